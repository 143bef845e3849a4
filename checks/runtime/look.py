"""All that a model is loaded for: the sweep of its twin, its own sweep, trials, and the model itself for replay."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from checks.check import ModelFacts, Needs, TokenTrial, VectorTrial
from checks.feedforward import FeedForward
from checks.memory import generator
from checks.runtime.lesions import TokenLesions
from checks.runtime.loading import Loaded, load, read_tokenizer
from checks.runtime.plan import Plan, plan, twin_plan
from checks.runtime.site_models import Models, Source
from checks.runtime.sweep import NOTHING, Swept, TrialLesions, ignore, sweep
from checks.runtime.token_scores import NO_SCORED, ScoredPlan, plan_scored, score
from checks.runtime.weights import read_weights
from sandbox.reader.model import ModelReading

if TYPE_CHECKING:
    import numpy as np

TWIN_RNG = ("runtime", "twin")
"""Names the draw of the twin's weights among all draws of an audit's seed (`checks.memory.generator`)."""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What was captured for all checks together."""

    swept: Swept
    twin: Swept | None
    """The twin's sweep, where a check asked for one."""
    loaded: Loaded | None
    """The model, kept only where a check may replay; what answers lesions holds it too. It lives as long as this."""
    models: Models | None = None
    """Reads whose states are asked, one model at a time; None where no check asks for sites of passages."""
    scored: ScoredPlan = NO_SCORED
    """Texts whose every token was to be scored, and the checks that asked for too many."""


UNSEEN = Looked(swept=NOTHING, twin=None, loaded=None)
"""What an audit sees whose checks need no pass of the model."""


def look(
    needs: Sequence[Needs],
    reading: ModelReading,
    files: Mapping[str, Path],
    facts: ModelFacts,
    *,
    seed: int,
    threads: int,
    on_step: Callable[[str, int, int], None],
    base: Source | None = None,
) -> Looked:
    """Sweep the model, and first its twin where one is asked for; then run the trials that lesions are asked of.

    The twin is gone before the model is read: never are two in memory, and the model can stay while it may answer. A
    feed-forward model has no sweep: its tensors are read, and its trials run. Where sites of passages are asked, the
    model may have to make room for another; whoever keeps it is lent one that is read again.

    Args:
        needs: one entry a check, each held against the model by `check_needs`; together they need a pass.
        reading: config and tensor table of the files.
        files: path of each manifest file.
        facts: facts of the model.
        seed: the audit's seed; the twin's weights are drawn from it.
        threads: CPU threads.
        on_step: told (step, done, owed) of "loading" and "sweep"; the twin's sweep, the model's, the first pass of
            each check's trials and the scored texts of either are equal parts of the second.
        base: files of the base model, where the audit names one that checks may ask.

    Raises:
        LoadRefused: the files do not make the model that the config describes.
    """
    import torch

    torch.set_num_threads(threads)
    merged, of_twin = plan(needs, facts), twin_plan(needs, facts)
    tried = [one for one in needs if one.trials]
    scored = plan_scored(read_tokenizer(files), needs, facts) if merged.scored else NO_SCORED
    owed = (of_twin.sweeps, merged.reads_or_scores, bool(scored.twin), bool(scored.ids))
    parts = _Parts(sum(owed) + len(tried), on_step)
    on_step("loading", 0, 1)
    if facts.feedforward is not None:
        weights = read_weights(_tensors(facts.feedforward), reading.tensors, files, facts.transposed)
        on_step("loading", 1, 1)
        return replace(UNSEEN, swept=replace(NOTHING, lesions=_of_vectors(facts.feedforward, weights, tried, parts)))
    twin = _twin(of_twin, scored, reading, files, facts, seed, parts) if of_twin.sweeps or scored.twin else None
    models = None
    if merged.sites:
        models = Models(Source(reading=reading, files=files, facts=facts), base, seed=seed)
    loaded = load(reading.config, facts, reading.tensors, files) if models is None else models.lent()
    on_step("loading", 1, 1)
    swept = sweep(loaded, merged, on_batch=parts.next()) if merged.reads_or_scores else NOTHING
    swept = replace(swept, lesions=_of_tokens(loaded, tried, parts))
    if scored.ids or scored.lost:
        swept = replace(swept, scored=score(loaded, scored, on_batch=parts.next() if scored.ids else ignore))
    if any(one.replay for one in needs):
        return Looked(swept=swept, twin=twin, loaded=loaded, models=models, scored=scored)
    del loaded
    gc.collect()
    return Looked(swept=swept, twin=twin, loaded=None, models=models, scored=scored)


class _Parts:
    """Tells equal parts of a sweep as one step."""

    def __init__(self, parts: int, on_step: Callable[[str, int, int], None]) -> None:
        self._parts, self._on_step, self._begun = parts, on_step, 0

    def next(self) -> Callable[[int, int], None]:
        """Return what is told (done, owed) of the part that begins."""
        before = self._begun
        self._begun += 1
        return lambda done, owed: self._on_step("sweep", before * owed + done, self._parts * owed)


Lesions = tuple[tuple[Needs, TrialLesions], ...]


def _of_tokens(loaded: Loaded, tried: Sequence[Needs], parts: _Parts) -> Lesions:
    """Run each check's trials once."""
    return tuple(
        (
            one,
            TokenLesions(
                loaded,
                [trial for trial in one.trials if isinstance(trial, TokenTrial)],
                one.units,
                one.lesions,
                on_batch=parts.next(),
            ),
        )
        for one in tried
    )


def _of_vectors(
    model: FeedForward, weights: Mapping[str, np.ndarray], tried: Sequence[Needs], parts: _Parts
) -> Lesions:
    from checks.runtime.feedforward import FeedForwardLesions  # torch, which only models need

    answering: list[tuple[Needs, TrialLesions]] = []
    for one in tried:
        trials = [trial for trial in one.trials if isinstance(trial, VectorTrial)]
        answering.append((one, FeedForwardLesions(model, weights, trials, one.units, one.lesions)))
        parts.next()(1, 1)
    return tuple(answering)


def _tensors(model: FeedForward) -> tuple[str, ...]:
    """Return the names of all tensors of a declared model, in the order of its layers."""
    named = (part for layer in model.layers for part in (layer.weight, layer.bias, layer.mean, layer.var))
    return tuple(name for name in named if name is not None)


def _twin(
    of_twin: Plan,
    scored: ScoredPlan,
    reading: ModelReading,
    files: Mapping[str, Path],
    facts: ModelFacts,
    seed: int,
    parts: _Parts,
) -> Swept:
    """Draw the twin, sweep it, and leave nothing of it in memory."""
    twin_seed = int(generator(seed, *TWIN_RNG).integers(2**63))
    random = load(reading.config, facts, reading.tensors, files, twin_seed=twin_seed)
    swept = sweep(random, of_twin, on_batch=parts.next()) if of_twin.sweeps else NOTHING
    if scored.twin:
        swept = replace(swept, scored=score(random, scored, twin=True, on_batch=parts.next()))
    del random
    gc.collect()  # a wrapped model refers to itself
    return swept
