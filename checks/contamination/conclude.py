"""From a merged sketch and its plan to numbers, controls and words (contamination, 6.9, 9, 10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from assay.result import ControlResult, Finding, Measured, Metric, Skipped

from checks.check import Refusal
from checks.contamination.authored import negatives
from checks.contamination.conclude_controls import Known, control_results, hard_negatives, known_answers
from checks.contamination.conclude_flags import Flagged, flag
from checks.contamination.conclude_metrics import benchmark_metrics, coverage_metrics, reached, swap_metric
from checks.contamination.evidence_rows import FlaggedTable, NotSearched, flagged_table, not_searched
from checks.contamination.findings import Gates, findings
from checks.contamination.gathering import check_plan, coverage, groups, plant_outcomes
from checks.contamination.plan import PARTS
from checks.contamination.planning import AUTHORED, Prepared, stream
from checks.contamination.plots import plots
from checks.contamination.sketch import Entry, Sketch

WORDS_MIN = 1000
"""Words of the smallest corpus that is concluded on (section 4)."""

UNCALIBRATED_NAMED = 20
"""Uncalibrated items told by name; all are counted (as rows of data roles, section 4)."""


@dataclass(frozen=True)
class Conclusion:
    """What an audit of a corpus says."""

    measured: Measured
    controls: tuple[ControlResult, ...]
    missed: tuple[str, ...]
    """Controls that said nothing."""
    findings: tuple[Finding, ...]
    flagged: FlaggedTable
    not_searched: tuple[NotSearched, ...]
    duplicates: tuple[tuple[str, ...], ...]
    """Items that ask an identical question."""
    benchmarks: tuple[Flagged, ...]
    hits: tuple[Entry, ...] = ()
    """Kept matches of flagged items at gating tiers, at most `keep` of each; places of a corpus, told by no output."""

    def places(self) -> tuple[Entry, ...]:
        """Return the matches whose bytes and sources `commitments.held` reads for the table of evidence."""
        return tuple(dict.fromkeys((*(row.entry for row in self.flagged.rows), *self.hits)))

    def flagged_names(self) -> Mapping[str, tuple[str, ...]]:
        """Return the flagged items of each benchmark as "benchmark/item"; for the inflation of scores, no output."""
        return {one.benchmark: one.names() for one in self.benchmarks}


def conclude(sketch: Sketch, plan: Prepared, *, encoder: Known | None = None) -> Conclusion:
    """Return what a scan of a corpus says of each benchmark.

    Args:
        sketch: of all shards of the plan that were read.
        plan: as it was prepared before any shard was read.
        encoder: for its control; without it nothing can be said of a plan that asked for embedding.

    Raises:
        Refusal: `other_plan` or `sketch_invalid`; `empty_corpus`: under 1000 words were read.
    """
    check_plan(sketch, plan)
    read = coverage(sketch, plan)
    if read.words < WORDS_MIN:
        raise Refusal("empty_corpus", (f"corpus:words:{read.words}", f"corpus:least:{WORDS_MIN}"))
    q, asked = plan.asked.q / PARTS, plan.asked
    all_groups = groups(sketch, plan)
    names = tuple(dict.fromkeys(one.benchmark for one in all_groups))
    told = tuple(flag(name, all_groups, q, asked.gating_tiers) for name in names)
    outcomes, misses = plant_outcomes(sketch, plan)
    facts = {fact.name: fact for fact in plan.facts}
    code = {
        f"{one.benchmark}/{one.item}"
        for one in plan.plan.owners
        if one.benchmark == AUTHORED and plan.plan.probes[one.probe].kind == "code"
    }
    metrics: list[Metric] = [*coverage_metrics(read, sum(one == "authored" for one in plan.sources))]
    hard, swapped = negatives(_seed(plan))
    metrics.append(swap_metric(swapped))
    controls: list[ControlResult] = [*known_answers(encoder if _embedded(plan) else None)]
    if _embedded(plan):
        controls.append(hard_negatives(hard.passed, hard.n))
    for one in told:
        label = f":{one.benchmark}"
        own = reached(one, outcomes, facts, code)
        metrics += benchmark_metrics(
            one, own, sketch, plan, stream(_seed(plan), f"bootstrap{label}"), stream(_seed(plan), f"check{label}")
        )
        controls += control_results(one, own, asked.gating_tiers, q, stream(_seed(plan), f"sets{label}"))
    measured = Measured(
        coverage={"benchmark": names},
        metrics=tuple(metrics),
        plots=tuple(plots(told, metrics)),
        skipped=_uncalibrated(told),
    )
    missed = ("KnownAnswer.encoder",) if _embedded(plan) and encoder is None else ()
    return Conclusion(
        measured=measured,
        controls=tuple(controls),
        missed=missed,
        findings=findings(measured, controls, missed, gates(plan)),
        flagged=flagged_table(told),
        not_searched=not_searched(misses, asked.gating_tiers),
        duplicates=plan.plan.duplicates(),
        benchmarks=told,
        hits=_hits(told, sketch, asked.gating_tiers),
    )


def gates(plan: Prepared) -> Gates:
    """Return the parameters that words depend on."""
    asked = plan.asked
    return Gates(
        gating_tiers=asked.gating_tiers,
        q=asked.q / PARTS,
        near_power=asked.near_power / PARTS,
        semantic_power=asked.semantic_power / PARTS,
        embedded=_embedded(plan),
        languages=plan.plan.parameters.languages,
    )


def _hits(told: Sequence[Flagged], sketch: Sketch, gating: Sequence[str]) -> tuple[Entry, ...]:
    probes = [
        probe
        for one in told
        for probe, flag in zip((at for group in one.groups for at in group.probes), one.leaks(), strict=True)
        if flag
    ]
    return tuple(entry for probe in probes for entry in sketch.best.get(probe, ()) if entry.tier in gating)


def _embedded(plan: Prepared) -> bool:
    return plan.plan.parameters.embed != "off"


def _seed(plan: Prepared) -> int:
    return plan.plan.seed


def _uncalibrated(told: Sequence[Flagged]) -> tuple[Skipped, ...]:
    named = [
        Skipped(item=fact.name, reason="uncalibrated")
        for one in told
        for fact, p in zip(one.facts, one.p, strict=True)
        if p != p  # NaN
    ]
    return tuple(named[:UNCALIBRATED_NAMED])
