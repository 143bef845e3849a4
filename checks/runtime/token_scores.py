"""The sweep of scored texts: every token of each, once for all checks, in batches of neighbours in length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from checks.check import ModelFacts, Needs, Refusal, TokenScores
from checks.runtime import forward
from checks.runtime.batches import BATCH_TEXTS, BATCH_TOKENS
from checks.runtime.loading import Loaded
from checks.runtime.tokens import NON_FINITE, NOTHING_BEFORE, OUTSIDE_VOCABULARY, TOO_LONG, open_ended
from checks.token_scoring import scores_of

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

SCORED_TOKENS_MAX = 2**24
"""Tokens of all scored texts of one check: 384 MiB of scores, and a day of a small model on one core. An order test of
1300 items of 100 tokens takes a quarter of it."""

SCORED_TOO_MANY = "scored_tokens"
"""Reason of a check's refusal whose scored texts hold more; its items name the number and the limit."""

LOGITS_IN_A_BATCH = 2**26
"""Logits of one batch, 256 MiB in float32; one text always fits, whatever its length."""

TEXTS_AT_ONCE = 4096
"""Texts that are tokenised in one go: their encodings, which hold far more than numbers, are gone before the next."""


@dataclass(frozen=True, kw_only=True)
class ScoredTexts:
    """What the sweep scored, for all checks together."""

    of: Mapping[str, TokenScores]
    """By text; two texts of the same tokens share theirs."""
    lost: Mapping[str, str]
    """By text, with the reason."""
    texts: int
    """Sequences that ran; no two are the same tokens."""
    tokens: int
    passes: int

    def told(self, needs: Needs, ids: Sequence[str]) -> dict[str, TokenScores]:
        """Return the scores of a check's texts by id, of those named that could be scored."""
        wanted = set(ids)
        return {one.id: self.of[one.text] for one in needs.scored if one.id in wanted and one.text in self.of}


NOTHING_SCORED = ScoredTexts(of={}, lost={}, texts=0, tokens=0, passes=0)
"""Of an audit that scores no text."""


@dataclass(frozen=True, kw_only=True)
class ScoredPlan:
    """The scored texts of all checks as tokens."""

    ids: Mapping[str, tuple[int, ...]]
    """By text; those that can run."""
    lost: Mapping[str, str]
    twin: frozenset[str]
    """Texts that the twin scores too."""
    refused: tuple[tuple[Needs, Refusal], ...] = ()
    """Checks whose texts hold too many tokens; none of those runs for them."""

    def refusal_of(self, needs: Needs) -> Refusal | None:
        """Return why these very needs are refused."""
        return next((refusal for asked, refusal in self.refused if asked is needs), None)


NO_SCORED = ScoredPlan(ids={}, lost={}, twin=frozenset())
"""The plan of an audit that scores no text."""


def plan_scored(tokenizer: Tokenizer, needs: Sequence[Needs], facts: ModelFacts) -> ScoredPlan:
    """Merge the scored texts of all checks.

    Tokens that the tokenizer adds at a text's end are left off: nobody asks how likely an end is.

    Args:
        tokenizer: the model's own, without truncation.
        needs: one entry a check, each held against the model by `check_needs`.
        facts: for the context and the vocabulary.
    """
    texts = list(dict.fromkeys(one.text for need in needs for one in need.scored))
    ids: dict[str, tuple[int, ...]] = {}
    lost: dict[str, str] = {}
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        part = texts[start : start + TEXTS_AT_ONCE]
        for text, encoding in zip(part, tokenizer.encode_batch(part), strict=True):
            tokens = open_ended(encoding)
            if reason := _unscorable(tokens, facts):
                lost[text] = reason
            else:
                ids[text] = tokens
    refused = []
    kept: dict[str, None] = {}
    twin: set[str] = set()
    for need in needs:
        own = dict.fromkeys(one.text for one in need.scored)
        count = sum(len(ids.get(text, ())) for text in own)
        if count > SCORED_TOKENS_MAX:
            items = (f"tokens:{count}", f"tokens_max:{SCORED_TOKENS_MAX}")
            refused.append((need, Refusal(SCORED_TOO_MANY, items)))
            continue
        kept |= own
        wanted = set(need.scored_twin)
        twin |= {one.text for one in need.scored if one.id in wanted}
    run = {text: ids[text] for text in kept if text in ids}
    return ScoredPlan(ids=run, lost=lost, twin=frozenset(twin & set(run)), refused=tuple(refused))


def score(loaded: Loaded, plan: ScoredPlan, *, twin: bool = False, on_batch: Callable[[int, int], None]) -> ScoredTexts:
    """Score every token of the plan's texts: float32 forward, float64 reductions, equal tokens run once.

    Args:
        loaded: the model, which has an output head, or its twin.
        plan: from `plan_scored`.
        twin: whether the twin's texts alone are scored.
        on_batch: told (batches done, batches in all) after each batch.
    """
    wanted = {text: ids for text, ids in plan.ids.items() if not twin or text in plan.twin}
    rows = sorted(set(wanted.values()), key=lambda ids: (len(ids), ids))
    batches = list(_batches(rows, loaded.facts.vocabulary))
    found: dict[tuple[int, ...], TokenScores] = {}
    for done, batch in enumerate(batches, start=1):
        found.update(zip(batch, _run(loaded, batch), strict=True))
        on_batch(done, len(batches))
    strange = {ids for ids, scores in found.items() if not _finite(scores)}
    return ScoredTexts(
        of={text: found[ids] for text, ids in wanted.items() if ids not in strange},
        lost={**plan.lost, **{text: NON_FINITE for text, ids in wanted.items() if ids in strange}},
        texts=len(rows),
        tokens=sum(map(len, rows)),
        passes=len(batches),
    )


def _batches(rows: Sequence[tuple[int, ...]], vocabulary: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Yield batches of neighbours in length."""
    most = max(1, min(BATCH_TOKENS, LOGITS_IN_A_BATCH // max(1, vocabulary)))
    batch: list[tuple[int, ...]] = []
    for row in rows:  # ascending in length, so that the newest row is the longest
        if batch and (len(batch) == BATCH_TEXTS or (len(batch) + 1) * len(row) > most):
            yield tuple(batch)
            batch = []
        batch.append(row)
    if batch:
        yield tuple(batch)


def _run(loaded: Loaded, batch: Sequence[tuple[int, ...]]) -> list[TokenScores]:
    """Return the scores of each row of one padded forward pass."""
    import torch

    ids, mask = forward.padded(batch)
    follows = mask[:, 1:].bool()  # positions whose next token is one of the text

    def gather(state: torch.Tensor, **_: Any) -> torch.Tensor:
        return state[:, :-1][follows].unsqueeze(0)

    with torch.inference_mode():
        logits = loaded.bridge.run_with_hooks(ids, attention_mask=mask, fwd_hooks=[("unembed.hook_in", gather)])[0]
        scores = scores_of(logits, ids[:, 1:][follows])
    cuts = np.cumsum([len(row) - 1 for row in batch])[:-1]
    parts = [np.split(part, cuts) for part in (scores.logp, scores.mean, scores.sd)]
    return [TokenScores(logp=logp, mean=mean, sd=sd) for logp, mean, sd in zip(*parts, strict=True)]


def _finite(scores: TokenScores) -> bool:
    return all(bool(np.isfinite(part).all()) for part in (scores.logp, scores.mean, scores.sd))


def _unscorable(ids: tuple[int, ...], facts: ModelFacts) -> str | None:
    if len(ids) > facts.context:
        return TOO_LONG
    if len(ids) < 2:
        return NOTHING_BEFORE
    if any(not 0 <= token < facts.vocabulary for token in ids):
        return OUTSIDE_VOCABULARY
    return None
