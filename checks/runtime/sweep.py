"""One forward sweep for all checks: each text once, in batches by length, no deeper than anyone asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from checks.check import Lesion, ModelFacts, Needs, TokenScores, TrialScores
from checks.memory import InMemoryEvidence
from checks.runtime import forward
from checks.runtime.batches import in_batches
from checks.runtime.lesions import TokenLesions
from checks.runtime.loading import Loaded
from checks.runtime.plan import NO_HEAD, Plan, Read, Score, reads_of, scores_of
from checks.runtime.replay import Replayer
from checks.runtime.sites import Sites
from checks.runtime.token_scores import NOTHING_SCORED, ScoredTexts
from checks.runtime.tokens import NON_FINITE, Row, place, share, tokenise

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float32

    from checks.sharding import Gathered


def ignore(_done: int, _owed: int) -> None:
    """Take no notice of progress."""


class TrialLesions(Protocol):
    """What answers the lesions of one check: `TokenLesions`, or `checks.runtime.feedforward.FeedForwardLesions`."""

    lost: Mapping[str, str]
    unit_sd: Mapping[str, np.ndarray]

    def __call__(self, lesions: Sequence[Lesion]) -> TrialScores:
        """Return how every trial of the check fares under each lesion."""
        ...


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What the sweep captured, for all checks together."""

    places: Mapping[Read, int]
    """Row of each read in `states`."""
    states: Mapping[int, Float32[np.ndarray, "read width"]]
    """Residual stream after each layer asked for; lost reads are rows of NaN."""
    lost: Mapping[Read, str]
    rows: tuple[Row, ...]
    """What ran; no two are the same tokens."""
    scores: Mapping[Score, float]
    """Log-probability (nats) of each continuation that could be scored."""
    unscored: Mapping[Score, str]
    """The other continuations, with the reason."""
    passes: int
    """Forward passes of the sweep itself."""
    lesions: tuple[tuple[Needs, TrialLesions], ...] = ()
    """What answers the lesions of each check that has trials; every check has its own, and its own budget."""
    scored: ScoredTexts = NOTHING_SCORED
    """Texts whose every token was scored, of all checks together."""

    @property
    def texts(self) -> int:
        """Sequences of tokens that ran, trials among them; none of a feed-forward model's are tokens."""
        return len(self.rows) + self.scored.texts + sum(one.texts for one in self._token_lesions)

    @property
    def tokens(self) -> int:
        """Tokens that ran, without padding."""
        of_rows = sum(len(row.ids) for row in self.rows)
        return of_rows + self.scored.tokens + sum(one.tokens for one in self._token_lesions)

    def lesions_of(self, needs: Needs) -> TrialLesions | None:
        """Return what answers the lesions of these very needs: two checks may ask alike, each within its budget."""
        return next((lesions for asked, lesions in self.lesions if asked is needs), None)

    @property
    def _token_lesions(self) -> list[TokenLesions]:
        return [one for _, one in self.lesions if isinstance(one, TokenLesions)]


NOTHING = Swept(places={}, states={}, lost={}, rows=(), scores={}, unscored={}, passes=0)
"""The sweep of an audit that needs none."""


def sweep(loaded: Loaded, plan: Plan, *, on_batch: Callable[[int, int], None] = ignore) -> Swept:
    """Run every text of the plan once; keep the states and score the continuations that were asked for.

    Args:
        loaded: the model.
        plan: the merged needs; must name at least one layer or continuation.
        on_batch: told (batches done, batches in all) after each batch.
    """
    rows, lost = tokenise(loaded.tokenizer, plan.reads, loaded.facts)
    placed, unscored = (
        place(loaded.tokenizer, plan.scores, loaded.facts) if loaded.head else ({}, dict.fromkeys(plan.scores, NO_HEAD))
    )
    rows = share(rows, placed)
    places = {read: number for number, read in enumerate(plan.reads)}
    states = {layer: np.full((len(plan.reads), loaded.facts.width), np.nan, dtype=np.float32) for layer in plan.layers}
    scores: dict[Score, float] = {}
    # Rows along which nothing is scored stop at the deepest layer asked for; the others run through the head.
    parts = ([row for row in rows if row.scores], [row for row in rows if not row.scores])
    batches = [batch for part in parts for batch in in_batches(part)]
    for done, batch in enumerate(batches, start=1):
        captured, of_batch = _run(loaded, batch, plan.layers)
        for number, row in enumerate(batch):
            for read, position in row.reads:
                for layer in plan.layers:
                    states[layer][places[read]] = captured[layer][number, position]
        scores |= of_batch
        on_batch(done, len(batches))
    unscored |= {score: NON_FINITE for score, value in scores.items() if not np.isfinite(value)}
    return Swept(
        places=places,
        states=states,
        lost=lost,
        rows=rows,
        scores={score: value for score, value in scores.items() if score not in unscored},
        unscored=unscored,
        passes=len(batches),
    )


def _run(
    loaded: Loaded, batch: Sequence[Row], layers: Sequence[int]
) -> tuple[Mapping[int, np.ndarray], Mapping[Score, float]]:
    """Return [row, position, width] for each layer, and each continuation's score, of one padded forward pass."""
    from transformer_lens.model_bridge.exceptions import StopAtLayerException

    ids, mask = forward.padded([row.ids for row in batch])
    owed = [
        (score, forward.Wanted(row=number, position=position, token=token))
        for number, row in enumerate(batch)
        for score, placed in row.scores
        for position, token in placed.targets
    ]
    captured: dict[int, np.ndarray] = {}

    def capture(layer: int) -> Callable[..., None]:
        def hook(state: torch.Tensor, **_: Any) -> None:
            captured[layer] = state.detach().float().cpu().numpy().copy()
            if layer == layers[-1] and not owed:
                # The bridge's own way to stop, raised where the last state is in hand: `stop_at_layer` stops before
                # a block, so after the last block it would compute logits over the whole vocabulary.
                raise StopAtLayerException(state)

        return hook

    hooks = [(f"blocks.{layer}.hook_out", capture(layer)) for layer in layers]
    found = forward.run(loaded, ids, mask, hooks=hooks, wanted=[wanted for _, wanted in owed])
    scores: dict[Score, float] = {}
    for (score, _), value in zip(owed, found, strict=True):
        scores[score] = scores.get(score, 0.0) + float(value)
    return captured, scores


def evidence(
    facts: ModelFacts,
    *,
    check: str,
    seed: int,
    needs: Needs,
    swept: Swept,
    weights: Mapping[str, np.ndarray],
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    twin: Swept | None = None,
    loaded: Loaded | None = None,
    sites: Sites | None = None,
    blobs: Mapping[str, bytes] | None = None,
    gathered: Gathered | None = None,
) -> InMemoryEvidence:
    """Return exactly what one check's needs named.

    A text whose states are not finite at any of the check's sites is lost (`non_finite`). Where only some layers are,
    the rows stay as they are: the check leaves out the layer, not the text.

    Args:
        facts: facts of the model.
        check: name of the check.
        seed: the audit's seed.
        needs: what the check asked for; the very ones that were swept for, where they name trials.
        swept: the sweep of all checks, with what answers the check's lesions.
        weights: tensors that any check asked for.
        rows: parsed rows of all data roles.
        twin: the sweep of the randomly initialised twin; None where no check asked for one.
        loaded: the model, which must outlive the evidence; None where no check may replay.
        sites: answers for the check's sites of passages; None where it has none.
        blobs: bytes of the roles that are not rows.
        gathered: plan and joined parts of the role that is read in shards; None where there is none.
    """
    reads = reads_of(needs) if needs.sites else ()
    states = _states(needs, reads, swept)
    lost = _lost(needs, reads, swept, states)
    runs = _runs(needs, reads, swept, lost)
    lesions = swept.lesions_of(needs)
    if lesions is not None:
        lost |= dict(lesions.lost)
    lost |= {one.id: swept.scored.lost[one.text] for one in needs.scored if one.text in swept.scored.lost}
    if sites is not None:
        lost |= dict(sites.tokenised.lost)
    return InMemoryEvidence(
        facts=facts,
        check=check,
        seed=seed,
        weights={name: weights[name] for name in needs.weights},
        activations=states,
        rows={role: rows[role] for role in needs.data_roles if role in rows},
        lost=lost,
        runs=runs,
        log_probabilities={
            one.id: swept.scores[score]
            for one, score in zip(needs.continuations, scores_of(needs), strict=True)
            if score in swept.scores
        },
        replay=Replayer(loaded, needs, swept) if needs.replay and loaded is not None else None,
        twin=_states(needs, reads, twin) if needs.twin and twin is not None else None,
        lesioned=lesions,
        unit_sd={} if lesions is None else lesions.unit_sd,
        sites=sites,
        models=() if sites is None else sites.there,
        blobs={role: blobs[role] for role in needs.data_roles if role in blobs} if blobs else None,
        token_scores=swept.scored.told(needs, [one.id for one in needs.scored]),
        twin_token_scores=_of_twin(needs, twin) if needs.scored_twin else None,
        gathered=gathered,
    )


def _of_twin(needs: Needs, twin: Swept | None) -> dict[str, TokenScores]:
    """Return what the twin scored; nothing where every text that it was asked is lost."""
    return {} if twin is None else twin.scored.told(needs, needs.scored_twin)


def _states(needs: Needs, reads: Sequence[Read], swept: Swept) -> dict[str, np.ndarray]:
    """Return each text's states; NaN where it was not swept."""
    places = np.array([swept.places.get(read, -1) for read in reads], dtype=np.int64)
    states = {site: swept.states[int(site.removeprefix("resid."))][places] for site in needs.sites}
    for of_site in states.values():
        of_site[places < 0] = np.nan
    return states


def _lost(needs: Needs, reads: Sequence[Read], swept: Swept, states: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Return the ids of the check's texts and continuations that nothing can be said of, with the reason."""
    lost = {text.id: swept.lost[read] for text, read in zip(needs.texts, reads, strict=False) if read in swept.lost}
    if states:
        finite = np.any([np.isfinite(state).all(axis=1) for state in states.values()], axis=0)
        lost |= {
            text.id: NON_FINITE
            for text, good in zip(needs.texts, finite, strict=True)
            if not good and text.id not in lost
        }
    return lost | {
        one.id: swept.unscored[score]
        for one, score in zip(needs.continuations, scores_of(needs), strict=True)
        if score in swept.unscored
    }


def _runs(needs: Needs, reads: Sequence[Read], swept: Swept, lost: Mapping[str, str]) -> dict[str, int]:
    """Return a number for each text that ran, counted along this check's texts: others' texts leave no trace."""
    row_of = {read: number for number, row in enumerate(swept.rows) for read, _ in row.reads}
    numbers: dict[int, int] = {}
    return {
        text.id: numbers.setdefault(row_of[read], len(numbers))
        for text, read in zip(needs.texts, reads, strict=False)
        if text.id not in lost
    }
