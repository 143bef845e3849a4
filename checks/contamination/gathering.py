"""From a sketch to what is concluded on: scores of items and their nulls, planted copies, and what was read.

Specification: contamination, section 6.9. Code in other languages than Python is left uncalibrated (section 6.7): an
item that was not searched for is neither found nor missed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.check import Refusal
from checks.contamination.conformal import Scores
from checks.contamination.normaliser import normalise
from checks.contamination.plan import NAMED_MIN, PlanProbe
from checks.contamination.planning import AUTHORED, EXACT_MIN, ItemFact, Prepared
from checks.contamination.recall import PlantOutcome
from checks.contamination.scan_code_probes import LANGUAGE, searchable
from checks.contamination.sketch import Entry, Sketch

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

SEARCHED = frozenset({"prose", "choice", "code"})
"""Kinds of items that a scan looks for; of code, what `scan_code_probes.searchable` tells."""

LONG_MIN = 20
"""Items of `plan.NAMED_MIN` tokens or more that a benchmark needs for its shorter ones to count. Counts of a benchmark
of one short guess would tell what a corpus holds as plainly as its name (9.3). Below, a short item is uncalibrated:
nothing that was found of it enters a number, a word or a row. Twenty, so that one item moves a share by no more than
.05; code is found by its function, not by its question, and is exempt."""

UNSEARCHED = frozenset({"base64", "reversed", "french"})
"""Sources of plants that are expected misses (6.11)."""


@dataclass(frozen=True)
class Group:
    """Items of one benchmark and kind, with the best that was found of each and of its siblings."""

    benchmark: str
    kind: str
    facts: tuple[ItemFact, ...]
    probes: tuple[int, ...]
    """Of each item."""
    best: tuple[Entry | None, ...]
    """Of each item."""
    scores: Scores
    sibling_best: tuple[Entry | None, ...]
    """In the order of `scores.siblings`."""
    searched: Bool[np.ndarray, " item"]
    """Whether a scan could find the item at all."""
    placebo: Int[np.ndarray, " placebo"]
    """Scores of supplied placebos of this benchmark and kind that a scan could find; their number is its length."""
    other_language: int = 0
    """Items of code in other languages than Python: not asked (6.7)."""


@dataclass(frozen=True)
class Coverage:
    """What the sketch read of what the plan names."""

    docs: int
    words: int
    words_embedded: int
    words_other_language: int
    bad_records: int
    shards_missing: int
    declared: int
    """Shards whose sketch was made elsewhere."""


def check_plan(sketch: Sketch, prepared: Prepared) -> None:
    """Refuse a sketch that is not of this plan, or that holds what the plan does not name.

    Raises:
        Refusal: `other_plan`, naming both; `sketch_invalid`, naming the shard, probe or plant.
    """
    plan = prepared.plan
    if sketch.plan_sha256 != plan.plan_sha256:
        raise Refusal("other_plan", sorted((f"plan:{sketch.plan_sha256}", f"plan:{plan.plan_sha256}")))
    unknown = sketch.shards.keys() - {shard.digest for shard in plan.shards}
    if unknown:
        raise Refusal("sketch_invalid", (f"shard:{min(unknown)}",))
    for name, told, known in (
        ("probe", {*sketch.best, *sketch.tiers, *sketch.contexts}, len(plan.probes)),
        ("plant", {*sketch.plants}, len(plan.plants)),
    ):
        if told and max(told) >= known:
            raise Refusal("sketch_invalid", (f"{name}:{max(told)}",))


def groups(sketch: Sketch, prepared: Prepared) -> tuple[Group, ...]:
    """Return the items of each benchmark and kind, in the order of the benchmark's rows.

    Nothing is told of short items in a benchmark with fewer than `LONG_MIN` longer ones.
    """
    told: dict[tuple[str, str], list[ItemFact]] = {}
    for fact in prepared.facts:
        told.setdefault((fact.benchmark, fact.kind), []).append(fact)
    owned = _owned(prepared)
    long = Counter(fact.benchmark for fact in prepared.facts if fact.tokens >= NAMED_MIN)
    guesses = {fact.name for fact in prepared.facts if _guess(fact) and long[fact.benchmark] < LONG_MIN}
    return tuple(_group(key, facts, sketch, prepared, owned, guesses) for key, facts in told.items())


def plant_outcomes(sketch: Sketch, prepared: Prepared) -> tuple[tuple[PlantOutcome, ...], tuple[PlantOutcome, ...]]:
    """Return what was made of each planted copy, and of each expected miss.

    A plant whose shard was not read is left out: nobody looked for it.
    """
    plan = prepared.plan
    items = {one.probe: one for one in plan.owners if one.role != "sibling"}
    measured: list[PlantOutcome] = []
    misses: list[PlantOutcome] = []
    for plant, source in zip(plan.plants, prepared.sources, strict=True):
        if plan.shards[plant.shard].digest not in sketch.shards:
            continue
        best = next(iter(sketch.plants.get(plant.id, ())), None)
        owner = items[plant.probe]
        outcome = PlantOutcome(
            plant.id,
            f"{owner.benchmark}/{owner.item}",
            plant.depth,
            plant.placement,
            None if best is None else best.tier,
            0 if best is None else best.score,
            source,
        )
        (misses if source in UNSEARCHED else measured).append(outcome)
    return tuple(measured), tuple(misses)


def coverage(sketch: Sketch, prepared: Prepared) -> Coverage:
    """Return what was read.

    Words of windows are not counted one by one; of a shard's words in the listed languages the share of its windows
    that were embedded counts as embedded.
    """
    counts = tuple(sketch.shards.values())
    embedded = 0
    for one in counts:
        asked = one.words - one.other_language_words
        embedded += asked * one.embedded // one.windows if one.windows else 0
    return Coverage(
        docs=sum(one.docs for one in counts),
        words=sum(one.words for one in counts),
        words_embedded=embedded,
        words_other_language=sum(one.other_language_words for one in counts),
        bad_records=sum(sum(one.bad.values()) for one in counts),
        shards_missing=len({shard.digest for shard in prepared.plan.shards} - sketch.shards.keys()),
        declared=sum(one.origin == "declared" for one in counts),
    )


def _owned(prepared: Prepared) -> Mapping[tuple[str, str, str], Sequence[int]]:
    """Return probes by (role, benchmark, item); of placebos by benchmark and kind."""
    told: dict[tuple[str, str, str], list[int]] = {}
    for one in prepared.plan.owners:
        name = prepared.plan.probes[one.probe].kind if one.role == "placebo" else one.item
        if one.benchmark != AUTHORED:
            told.setdefault((one.role, one.benchmark, name), []).append(one.probe)
    return told


def _group(
    key: tuple[str, str],
    facts: Sequence[ItemFact],
    sketch: Sketch,
    prepared: Prepared,
    owned: Mapping[tuple[str, str, str], Sequence[int]],
    guesses: Collection[str],
) -> Group:
    benchmark, kind = key

    def found(probe: int) -> Entry | None:
        return next(iter(sketch.best.get(probe, ())), None)

    probes = [owned["item", benchmark, fact.item][0] for fact in facts]
    told = prepared.plan.probes
    asked = [fact.name not in guesses for fact in facts]
    searched = np.array([wanted and _findable(told[probe]) for wanted, probe in zip(asked, probes, strict=True)], bool)
    siblings = [
        (place, probe)
        for place, fact in enumerate(facts)
        if searched[place]  # what cannot be found has no null either
        for probe in owned.get(("sibling", benchmark, fact.item), ())
    ]
    sibling_best = [found(probe) for _, probe in siblings]
    best = [found(probe) if wanted else None for wanted, probe in zip(asked, probes, strict=True)]
    # A placebo that cannot be found would count as one that was not: a null of zeros flags everything.
    placebo = [found(probe) for probe in owned.get(("placebo", benchmark, kind), ()) if _findable(told[probe])]
    return Group(
        benchmark=benchmark,
        kind=kind,
        facts=tuple(facts),
        probes=tuple(probes),
        best=tuple(best),
        scores=Scores(_scores(best), _scores(sibling_best), np.array([at for at, _ in siblings], dtype=np.int64)),
        sibling_best=tuple(sibling_best),
        searched=searched,
        placebo=_scores(placebo),
        other_language=sum(kind == "code" and told[probe].language.lower() != LANGUAGE for probe in probes),
    )


def _guess(fact: ItemFact) -> bool:
    return fact.kind != "code" and fact.tokens < NAMED_MIN


def _findable(probe: PlanProbe) -> bool:
    """Return whether a scan can find a probe: five tokens of a question (section 2), or a function in Python."""
    if probe.kind == "code":
        return searchable(probe.language, probe.entry, probe.reference)
    return probe.kind in SEARCHED and len(normalise(probe.text).words) >= EXACT_MIN


def _scores(best: Sequence[Entry | None]) -> Int[np.ndarray, " n"]:
    return np.array([0 if one is None else one.score for one in best], dtype=np.int64)
