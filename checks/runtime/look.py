"""Everything that a model must be loaded for: the sweep of its twin, its own sweep, and the model itself for replay."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from checks.check import ModelFacts, Needs
from checks.memory import generator
from checks.runtime.loading import Loaded, load
from checks.runtime.plan import Plan, plan, twin_plan
from checks.runtime.sweep import NOTHING, Swept, sweep
from sandbox.reader.model import ModelReading

TWIN_RNG = ("runtime", "twin")
"""Names the draw of the twin's weights among all draws of an audit's seed (`checks.memory.generator`)."""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What was captured for all checks together."""

    swept: Swept
    twin: Swept | None
    """The twin's sweep, where a check asked for one."""
    loaded: Loaded | None
    """The model, kept only where a check may replay; it lives as long as this."""


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
) -> Looked:
    """Sweep the model, and first its twin where one is asked for.

    The twin is gone before the model is read: never are two in memory, and the model can stay while it may replay.

    Args:
        needs: one entry a check, each held against the model by `check_needs`; together they need a sweep.
        reading: config and tensor table of the files.
        files: path of each manifest file.
        facts: facts of the model.
        seed: the audit's seed; the twin's weights are drawn from it.
        threads: CPU threads.
        on_step: told (step, done, owed) of "loading" and "sweep"; with a twin, each sweep is half of the second.

    Raises:
        LoadRefused: the files do not make the model that the config describes.
    """
    import torch

    torch.set_num_threads(threads)
    merged, of_twin = plan(needs, facts), twin_plan(needs, facts)
    halves = 2 if of_twin.sweeps else 1

    def told(half: int) -> Callable[[int, int], None]:
        return lambda done, owed: on_step("sweep", half * owed + done, halves * owed)

    on_step("loading", 0, 1)
    twin = _twin(of_twin, reading, files, facts, seed, told(0)) if of_twin.sweeps else None
    loaded = load(reading.config, facts, reading.tensors, files)
    on_step("loading", 1, 1)
    swept = sweep(loaded, merged, on_batch=told(halves - 1))
    if any(one.replay for one in needs):
        return Looked(swept=swept, twin=twin, loaded=loaded)
    del loaded
    gc.collect()
    return Looked(swept=swept, twin=twin, loaded=None)


def _twin(
    of_twin: Plan,
    reading: ModelReading,
    files: Mapping[str, Path],
    facts: ModelFacts,
    seed: int,
    on_batch: Callable[[int, int], None],
) -> Swept:
    """Draw the twin, sweep it, and leave nothing of it in memory."""
    twin_seed = int(generator(seed, *TWIN_RNG).integers(2**63))
    random = load(reading.config, facts, reading.tensors, files, twin_seed=twin_seed)
    swept = sweep(random, of_twin, on_batch=on_batch)
    del random
    gc.collect()  # a wrapped model refers to itself
    return swept
