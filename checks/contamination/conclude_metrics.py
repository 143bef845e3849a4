"""The numbers of one benchmark and of what was read (contamination, 6.9, 9.1)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from assay.result import Metric, Multiplicity

from checks import quantise
from checks.contamination.authored import Passed
from checks.contamination.conclude_flags import Flagged, is_identity
from checks.contamination.gathering import Coverage, Group
from checks.contamination.placebo import ITEMS_MIN, placebo_check
from checks.contamination.planning import AUTHORED, ItemFact, Prepared
from checks.contamination.recall import CODE, DEPTHS, PlantOutcome, found, pooled_recalls, recalls
from checks.contamination.shares import corrected_share, raw_share
from checks.contamination.shares_estimate import Estimate, cluster_index, counted, scored
from checks.contamination.sketch import TIERS, Sketch

if TYPE_CHECKING:
    from jaxtyping import Bool

ALL = "all"
"""Tier or placement of a number over all of them."""

CORRECTED_DEPTHS = (2, 5)
"""Depths of rewording for which shares are corrected, never mixed (6.9, step 4)."""


def swap_metric(told: Passed) -> Metric:
    """Return how many operator swaps of authored families pass as the same: what the verifier cannot see (6.6)."""
    return _estimate("operator_swap_pass", scored(told.passed, told.n), {}, better="lower")


def coverage_metrics(told: Coverage, families: int) -> Iterator[Metric]:
    """Yield what was read, and how many authored families were planted."""
    for name, value in (
        ("families", families),
        ("docs", told.docs),
        ("words", told.words),
        ("words_embedded", told.words_embedded),
        ("words_other_language", told.words_other_language),
        ("bad_records", told.bad_records),
        ("shards_missing", told.shards_missing),
        ("shards_declared", told.declared),
    ):
        yield _count(name, value, {})


def benchmark_metrics(
    told: Flagged,
    outcomes: Sequence[PlantOutcome],
    sketch: Sketch,
    prepared: Prepared,
    rng: np.random.Generator,
    ties: np.random.Generator,
) -> Iterator[Metric]:
    """Yield the numbers of one benchmark.

    Args:
        told: what is flagged.
        outcomes: of its plants and of those of the authored families, as `reached` returns them.
        sketch: of the corpus.
        prepared: its plan.
        rng: the stream "bootstrap".
        ties: the stream "ties".
    """
    of = {"benchmark": told.benchmark}
    gating, q = prepared.asked.gating_tiers, _share(prepared.asked.q)
    yield _count("items", len(told.facts), of)
    yield _count("uncalibrated", len(told.facts) - told.calibrated, of)
    yield from _shares(told, gating)
    yield from _placebo_rates(told, gating)
    if (fewest := told.min_flaggable(q)) is not None:
        yield _count("min_flaggable", fewest, of)
    yield _count("placebo_kind_items", told.unplaced(), of)
    yield _count("other_language_items", sum(one.other_language for one in told.groups), of)
    yield _count("null_items", min((len(one.null) for one in told.open_calibrations()), default=0), of)
    yield _count("placebos", min((len(one.supplied) for one in told.open_calibrations()), default=0), of)
    yield from _check(told, ties)
    held = sum(bool(sketch.contexts.get(probe)) for one in told.groups for probe in one.probes)
    yield _count("context_found", held, of)
    yield _count("code_items", told.code_items(), of)
    yield _count("unflaggable", told.unflaggable(q), of)
    yield from _planted(told, outcomes)
    yield from _recalls(told, outcomes, gating)
    yield from _pooled(told, outcomes, gating)
    yield from _corrected(told, outcomes, gating, rng)


def reached(
    told: Flagged, outcomes: Sequence[PlantOutcome], facts: Mapping[str, ItemFact], code: Collection[str] = ()
) -> tuple[PlantOutcome, ...]:
    """Return the plants of a benchmark and of the authored families, those without a tier that this run would not flag.

    Args:
        told: what is flagged of the benchmark.
        outcomes: of all plants.
        facts: items by name; those of authored families have none, and must reach what every kind must.
        code: names of authored items that are code; those of a sort that the benchmark has no item of are left out.
    """
    kept = []
    kinds = {one.kind == "code" for one in told.groups if one.kind not in told.closed}
    for one in outcomes:
        benchmark = one.item.partition("/")[0]
        if benchmark not in (told.benchmark, AUTHORED):
            continue
        fact = facts.get(one.item)
        if fact is not None and fact.kind in told.closed:
            continue  # nothing is claimed of its kind, so that no recall speaks for it
        of_code = fact.kind == "code" if fact else one.item in code
        if fact is None and of_code not in kinds:
            continue
        one = replace(one, source=one.source + CODE) if of_code else one
        lowest = told.lowest.get(fact.kind) if fact else told.lowest_of(of_code)
        whole = fact is not None and is_identity(fact, one.tier)
        kept.append(one if whole or found(one, lowest, TIERS) else replace(one, tier=None))
    return tuple(kept)


def _shares(told: Flagged, gating: Sequence[str]) -> Iterator[Metric]:
    tiers = told.tiers()
    near = [one is not None and one.answer_near == "yes" for one in told.best]
    for tier in (*TIERS, ALL):
        chosen = np.array([one is not None and (one in gating if tier == ALL else one == tier) for one in tiers])
        labels = {"benchmark": told.benchmark, "tier": tier}
        p = float(np.nanmin(told.q_values)) if tier == ALL and told.calibrated else None
        yield _count("flagged", int(chosen.sum()), labels, n=len(chosen))
        bh = Multiplicity(family=f"leak:{told.benchmark}"[:128], m=told.calibrated, corrected="bh")
        yield _estimate("share.raw", raw_share(chosen), labels, p=p, multiplicity=bh if p is not None else None)
        yield _count("answer_near", int((chosen & np.array(near)).sum()), labels)


def _placebo_rates(told: Flagged, gating: Sequence[str]) -> Iterator[Metric]:
    """Yield how often siblings reach what is flagged: what an unleaked benchmark would show."""
    above = [
        (entry, lowest is not None and entry is not None and entry.score >= lowest)
        for one in told.groups
        for lowest in (told.lowest[one.kind],)
        for entry in one.sibling_best
    ]
    if not above:
        return
    for tier in (*TIERS, ALL):
        hits = sum(
            high and entry is not None and (entry.tier in gating if tier == ALL else entry.tier == tier)
            for entry, high in above
        )
        yield _estimate("placebo_rate", counted(hits, len(above)), {"benchmark": told.benchmark, "tier": tier})
    whole = sum(entry is not None and entry.tier == "exact" for entry, _ in above)
    yield _estimate("identity_rate", counted(whole, len(above)), {"benchmark": told.benchmark})


def _check(told: Flagged, ties: np.random.Generator) -> Iterator[Metric]:
    """Yield the placebo check of each kind that has items enough, the smallest p of them told."""
    checks = [
        placebo_check(one.scores, told.of_group(at), ties)
        for at, one in enumerate(told.groups)
        if one.kind not in told.closed
    ]
    asked = [(one.p, one.n) for one in checks if one.p is not None and one.n >= ITEMS_MIN]
    of = {"benchmark": told.benchmark}
    if not asked:
        yield _count("placebo_check_items", max((one.n for one in checks), default=0), of)
        return
    p, n = min(asked)
    yield _count("placebo_check_items", n, of)
    family = Multiplicity(family=f"placebo:{told.benchmark}"[:128], m=len(asked), corrected="none")
    yield quantise.metric("p_bulk", p, n=n, unit="1", determinism="statistical", labels=of, p=p, multiplicity=family)


def _recalls(told: Flagged, outcomes: Sequence[PlantOutcome], gating: Sequence[str]) -> Iterator[Metric]:
    for one in recalls(outcomes, 0, gating):  # those that this run would not flag have lost their tier
        labels = {
            "benchmark": told.benchmark,
            "depth": str(one.depth),
            "placement": one.placement or ALL,
            "source": one.source,
        }
        yield _estimate("recall", one.share, labels, better="higher")


def _planted(told: Flagged, outcomes: Sequence[PlantOutcome]) -> Iterator[Metric]:
    """Yield how many items were planted, by the depths that speak for a tier; told also where there are none."""
    for depths, chosen in DEPTHS.items():
        for source in ("rewrites", "automatic"):
            for name in (source, source + CODE) if told.code_items() else (source,):
                items = {one.item for one in outcomes if one.source == name and one.depth in chosen}
                labels = {"benchmark": told.benchmark, "depth": depths, "source": name}
                yield _count("planted", len(items), labels)


def _pooled(told: Flagged, outcomes: Sequence[PlantOutcome], gating: Sequence[str]) -> Iterator[Metric]:
    """Yield what a silence rests on; authored plants are no one's, and speak in `recall` alone."""
    for one in pooled_recalls([one for one in outcomes if not one.source.startswith("authored")], 0, gating):
        labels = {"benchmark": told.benchmark, "depth": one.depths, "source": one.source, "searched": one.searched}
        yield _estimate("recall.pooled", one.share, labels, better="higher")
        yield quantise.metric(
            "recall.least", one.least, n=one.share.n, unit="fraction", determinism="exact", labels=labels,
            better="higher",
        )  # fmt: skip


def _corrected(
    told: Flagged, outcomes: Sequence[PlantOutcome], gating: Sequence[str], rng: np.random.Generator
) -> Iterator[Metric]:
    scores = told.groups
    false_hits = np.concatenate([_false(one, told.lowest[one.kind], gating) for one in scores])
    begins = np.cumsum([0, *(len(one.facts) for one in scores)])
    owners = np.concatenate([one.scores.owner + begin for one, begin in zip(scores, begins[:-1], strict=True)])
    owner = np.unique(owners, return_inverse=True)[1]
    template = cluster_index([fact.template for fact in told.facts])
    for depth in CORRECTED_DEPTHS:
        own = [replace(one, source=one.source.removesuffix(CODE)) for one in outcomes if one.depth == depth]
        source = next(
            (name for name in ("rewrites", "automatic", "authored") if any(o.source == name for o in own)), ""
        )
        hits = np.array([one.tier in gating for one in own if one.source == source], dtype=bool)
        share = corrected_share(told.leaks(), template, hits, false_hits, owner, rng)
        if share is not None:
            labels = {"benchmark": told.benchmark, "depth": str(depth)}
            yield _estimate("share.corrected", share, labels, determinism="statistical")


def _false(group: Group, lowest: int | None, gating: Collection[str]) -> Bool[np.ndarray, " sibling"]:
    """Return which siblings reach what is flagged by a match of a gating tier."""
    told = [
        lowest is not None and one is not None and one.tier in gating and one.score >= lowest
        for one in group.sibling_best
    ]
    return np.array(told, dtype=bool)


def _share(parts: int) -> float:
    from checks.contamination.plan import PARTS

    return parts / PARTS


def _count(name: str, value: int, labels: Mapping[str, str], n: int | None = None) -> Metric:
    # Six digits are told of a number without an interval: a corpus has more words than that.
    return quantise.metric(name, value, n=value if n is None else n, unit="count", determinism="exact", labels=labels)


def _estimate(name: str, told: Estimate, labels: Mapping[str, str], **more: object) -> Metric:
    given = {"determinism": "exact", **more}
    return quantise.metric(
        name,
        told.value,
        n=told.n,
        unit="fraction",
        labels=labels,
        interval=(told.low, told.high),
        method=told.method,
        **given,  # type: ignore[arg-type]
    )
