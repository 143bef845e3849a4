"""From parameters and rows to what must be captured; nothing here looks at a state."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from checks.check import ModelFacts, Needs, Refusal
from checks.passages import CONTEXT_MAX, Contrast, Passage, Which
from checks.sae_features.rows import ConceptRow, ContrastRow, CorpusRow, Rows, in_training, read_roles

if TYPE_CHECKING:
    from checks.sae_features.check import SaeFeatures

PASSES_MAX = 2
"""Passes over the training part of the corpus at most (specification, section 2)."""

BATCH = 1024
"""States a training step (specification, section 5)."""

TAIL_STEPS_LEAST, TAIL_SHARE = 200, 0.2
"""Steps through the model that the objective mse_kl_tail ends with, each three passes (section 5)."""

HELD_TOKENS_MAX = 131_072
"""States held out in memory: the bound of a latent's rate, 3/N, is then 2.3e-5; more would be bytes, not knowledge."""

SPLICE_TOKENS_MAX = 16_384
"""Tokens whose output is compared with the dictionary spliced in: every one costs a vocabulary of logits an edit."""

NEUTRAL_MAX = 64
"""Held-out documents that stand for `neutral` where the role did not come (section 3)."""

EDITS_A_CONTRAST = 400
"""Edited passes a contrast row may take for one dictionary: battery, controls, doses, exact attribution, gradients at
three passes each; an upper bound, and the least that may be asked with 99 matched controls is about 260."""

ANSWER_MAX, OF_DICTIONARY, OF_CONCEPT, OF_BOTH = 55_000, 400, 1_850, 450
"""Charged bytes of an answer, of the 65,536 that an audit may carry out; what a judged dictionary, a concept, and a
dictionary's reading of a concept add. Measured: 9.0 kB for one concept and two dictionaries, 29.7 for eight, 51.5 for
sixteen; 21.8 for three and five dictionaries, 42.2 for eight."""

SUPPLIED_COUNTS = 3
"""A supplied dictionary is told as fully as the first trained one: power, edits and every probe."""

MODELS_ALIKE = 3
"""Submitted, shuffled, base: each reads the passages."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What one check asks of one audit."""

    rows: Rows
    needs: Needs
    train: tuple[CorpusRow, ...]
    """In the order in which they are swept: by the digest of seed and id, so that no source comes in one block."""
    held: tuple[CorpusRow, ...]
    """Held-out rows, in the same order."""
    concepts: tuple[ConceptRow, ...]
    """Rows of the concepts that are asked."""
    contrast: tuple[ContrastRow, ...]
    neutral: tuple[str, ...]
    """Ids of the passages on which an edit should change nothing."""
    neighbours: tuple[str, ...]
    """Sites of the same kind in the blocks before and after; read where a dictionary's convention is tested."""
    supplied: bool
    """Whether a supplied dictionary is to be read."""


def asked(check: SaeFeatures, model: ModelFacts, data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Asked:
    """Return what a check asks for.

    Raises:
        Refusal: a role cannot be read, a block does not exist, a concept is unknown, or roles do not go together.
    """
    _check_site(check.site, model)
    rows = read_roles(data)
    supplied = _supplied(check, data)
    names = rows.concept_names()
    _check_names(check, names)
    wanted = set(check.asks(names))
    concepts = tuple(row for row in rows.concepts if row.concept in wanted)
    contrast = tuple(row for row in rows.contrast if row.concept in wanted) if model.causal else ()
    strangers = sorted({row.concept for row in rows.contrast} - set(names))
    if strangers:
        raise Refusal("contrast_without_concept", tuple(f"concept:{name}" for name in strangers))
    _check_size(check, model, len(wanted))
    ordered = sorted(rows.corpus, key=lambda row: _order(check.seed, row.id))
    train = tuple(row for row in ordered if in_training(row.group, check.seed))
    held = tuple(row for row in ordered if not in_training(row.group, check.seed))
    if check.objective == "mse_kl_tail" and not model.causal:
        raise Refusal("no_replay", ("params.objective",))
    if not train or not held:
        raise Refusal("too_few_groups", (f"corpus:train:{len(train)}", f"corpus:held:{len(held)}"))
    neutral = rows.neutral or held[:NEUTRAL_MAX]
    neighbours = _neighbours(check.site, model) if supplied else ()
    models: tuple[Which, ...] = ("submitted", "shuffled", "base")
    needs = Needs(
        data_roles=tuple(data),
        passages=tuple(
            [_passage("corpus", row) for row in (*train, *held)]
            + [_passage("neutral", row) for row in rows.neutral]
            + [Passage(id=f"concepts/{row.id}", text=row.text, read=row.read) for row in concepts]
        ),
        contrasts=tuple(
            Contrast(id=f"contrast/{row.id}", prompt=row.prompt, target=row.target, foil=row.foil) for row in contrast
        ),
        passage_sites=(check.site, *neighbours),
        passage_models=models,
        passage_tokens=_tokens(check, model, train, held, concepts, contrast, neutral),
        gradients=bool(contrast) or check.objective == "mse_kl_tail",
    )
    return Asked(
        rows=rows,
        needs=needs,
        train=train,
        held=held,
        concepts=concepts,
        contrast=contrast,
        neutral=tuple(f"{'neutral' if rows.neutral else 'corpus'}/{row.id}" for row in neutral),
        neighbours=neighbours,
        supplied=supplied,
    )


def _passage(role: str, row: CorpusRow) -> Passage:
    return Passage(id=f"{role}/{row.id}", text=row.text, tokens=row.tokens)


def _order(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"order\0{seed}\0{name}".encode()).digest()


def _check_site(site: str, model: ModelFacts) -> None:
    block = int(site.partition(".")[2]) if "." in site else 0
    if block >= model.layers:
        raise Refusal("site_unknown", (f"site:{site}", f"layers:{model.layers}"))


def _neighbours(site: str, model: ModelFacts) -> tuple[str, ...]:
    kind, _, block = site.partition(".")
    if not block:
        return ()
    return tuple(f"{kind}.{one}" for one in (int(block) - 1, int(block) + 1) if 0 <= one < model.layers)


def _supplied(check: SaeFeatures, data: Mapping[str, Any]) -> bool:
    """Return whether a dictionary came, and refuse where only half of it did or none that was asked for."""
    there = [role for role in ("sae", "sae_config") if role in data]
    if len(there) == 1:
        other = "sae" if there == ["sae_config"] else "sae_config"
        raise Refusal("dictionary_missing", (f"role:{other}",))
    if check.dictionary != "train" and not there:
        raise Refusal("dictionary_missing", ("role:sae", "role:sae_config"))
    if check.dictionary == "train" and there:
        raise Refusal("dictionary_not_asked", ("params.dictionary",))
    return bool(there)


def _check_names(check: SaeFeatures, names: Sequence[str]) -> None:
    named = (*check.watch, *(() if check.concepts == "all" else check.concepts))
    unknown = [name for name in dict.fromkeys(named) if name not in names]
    if unknown:
        raise Refusal("concept_unknown", tuple(f"concept:{name}" for name in unknown))


def _check_size(check: SaeFeatures, model: ModelFacts, concepts: int) -> None:
    """Refuse before any weight is read what could not be trained, or would not fit into an answer."""
    latents = check.latents(model.width)
    if check.active(latents) > latents:
        raise Refusal("k_over_latents", (f"k:{check.active(latents)}", f"latents:{latents}"))
    judged = check.dictionary_seeds + SUPPLIED_COUNTS * (check.dictionary != "train")
    most = (ANSWER_MAX - OF_DICTIONARY * judged) // (OF_CONCEPT + OF_BOTH * judged)
    if concepts > most:
        items = (f"concepts:{concepts}", f"limit:{most}", f"dictionaries:{judged}")
        raise Refusal("too_many_concepts", items)


def _tail_tokens(check: SaeFeatures, model: ModelFacts) -> int:
    """Return what all tails may run: a batch is filled with whole passages, three passes each."""
    # The heads of some models are together wider than the stream: four times at most among those that are tabled.
    latents = check.latents((4 if check.site.startswith("attn_z") else 1) * model.width)
    steps = max(TAIL_STEPS_LEAST, int(TAIL_SHARE * check.length(latents) / BATCH) + 1)
    return 3 * steps * (BATCH + CONTEXT_MAX) * (check.dictionary_seeds + 2)


def _tokens(
    check: SaeFeatures,
    model: ModelFacts,
    train: Sequence[CorpusRow],
    held: Sequence[CorpusRow],
    concepts: Sequence[ConceptRow],
    contrast: Sequence[ContrastRow],
    neutral: Sequence[CorpusRow],
) -> int:
    """Return an upper bound of the tokens that run: texts are not tokenised yet, and a limit is no cost."""
    # One more than the passes of a training: the head of the stream is read before it begins.
    swept = sum(min(row.longest, CONTEXT_MAX) for row in train) * (PASSES_MAX + 1)
    kept = sum(min(row.longest, CONTEXT_MAX) for row in held)
    off = sum(min(row.longest, CONTEXT_MAX) for row in neutral)
    read = sum(min(len(row.text.encode()) + 2, CONTEXT_MAX) for row in concepts)
    dictionaries = check.dictionary_seeds + 2
    prompt = max(
        (min(len(row.prompt.encode()) + len(row.target.encode()) + 2, CONTEXT_MAX) for row in contrast), default=0
    )
    edited = min(len(contrast), check.edit_rows * max(1, len({row.concept for row in contrast}))) * prompt
    tail = _tail_tokens(check, model) if check.objective == "mse_kl_tail" else 0
    named = max(1, len({row.concept for row in contrast}))
    asked_for = len({row.concept for row in concepts})
    edits = EDITS_A_CONTRAST + 2 * max(check.matched_controls, ceil(asked_for / float(check.alpha)))
    return (
        MODELS_ALIKE * (swept + 3 * kept + read + off)
        + tail
        + (dictionaries + 4) * min(kept, SPLICE_TOKENS_MAX + CONTEXT_MAX) * MODELS_ALIKE
        + dictionaries * (edits * edited + 4 * off * named)
    )
