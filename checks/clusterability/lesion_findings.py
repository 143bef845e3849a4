"""From lesions to words: the rules of section 7 for `importance` and `specialisation`, on a report's numbers alone.

Absence is never an answer: a claim that lacks a partition, a cluster or a task that was owed is inconclusive, and one
that had no data is not asked. Only a claim whose evidence is whole is detected or not detected.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from assay.result import Finding, Measured, Metric, MetricRef

DETECTED, NOT_DETECTED, INCONCLUSIVE, NOT_ASKED = "detected", "not-detected", "inconclusive", "not-asked"
LESION_WORDS = (DETECTED, NOT_DETECTED, INCONCLUSIVE, NOT_ASKED)

LESION_CONTROLS = ("planted-two-nets", "shuffled-partition")
"""Controls that gate these claims, and no claim of structure (sections 8 and 12e)."""

LESION_CLOSING = (
    "Structure is not function; a high C can be trained in and no claim rests on it; access used: weights, activations."
)
"""Fixed closing line (section 7)."""

ROLE_ITEM = "role:lesion"
"""Item under which a role is told that came and could not be used."""

Claim = Literal["importance", "specialisation"]
SAID: Mapping[Claim, str] = {
    "importance": "functionally important",
    "specialisation": "functionally specialised",
}
"""What each claim is called (section 7)."""

EFFECT: Mapping[Claim, tuple[str, str]] = {
    "importance": ("max_drop", "largest accuracy drop"),
    "specialisation": ("gap", "largest drop less the others' mean"),
}
"""The metric that has a floor, and how it is called."""


WORDY_MOST = 16
"""Clusters whose claims are told at length; of more, rows, random sets and units stand in the metrics they rest on."""


@dataclass(frozen=True)
class LesionLimits:
    """The thresholds of the rules: the check's parameters as numbers."""

    alpha: float
    min_drop: float
    min_gap: float

    def floor(self, claim: Claim) -> float:
        """Return the effect floor of a claim."""
        return self.min_drop if claim == "importance" else self.min_gap


@dataclass(frozen=True)
class Cluster:
    """What the rules read of one cluster."""

    partition: str
    cluster: str
    units: int
    untested: str
    """Why it was not tested; empty where it was."""

    @property
    def labels(self) -> dict[str, str]:
        """Return the labels of its metrics."""
        return {"partition": self.partition, "cluster": self.cluster}


def lesion_findings(
    real: Measured, limits: LesionLimits, missed: Sequence[str], structured: Collection[str]
) -> tuple[Finding, ...]:
    """Return for each claim one finding for every cluster and one for the model.

    Args:
        real: the numbers, as the report has them.
        limits: thresholds.
        missed: controls that missed a band or said nothing; those of structure gate no cluster here.
        structured: matrices, graphs and nets whose structure is detected: of others the model has no clusters, whatever
            lesions of their parts do.
    """
    gated = [name for name in missed if name in LESION_CONTROLS]
    why = _role_refused(real)
    if why or "partition" not in real.coverage:
        return tuple(_without_data(claim, why) for claim in SAID)
    clusters, absent = _clusters(real), _absent(real)
    told: list[Finding] = []
    for claim in SAID:
        each = [_of_cluster(real, one, claim, limits, gated, absent) for one in clusters]
        told += [*each, _of_model(real, claim, each, absent, structured)]
    return tuple(told)


def word_of(
    claim: Claim, real: Measured, one: Cluster, limits: LesionLimits, *, missed: Sequence[str], absent: Sequence[str]
) -> tuple[str, str]:
    """Return the word of one cluster and the reason for it.

    Args:
        claim: which of the two.
        real: the numbers.
        one: the cluster.
        limits: thresholds.
        missed: controls of lesions that missed; any makes the word inconclusive.
        absent: what was owed and is not there; so does any of it.
    """
    effect, _, held = _numbers(real, one, claim)
    if missed:
        return INCONCLUSIVE, "control_missed"
    if one.untested:
        return INCONCLUSIVE, one.untested
    if effect is None or held is None or held.multiplicity is None:
        # A gap needs two tasks that can be tested; without them the cluster has no such number.
        return INCONCLUSIVE, "baseline_at_chance"
    if absent:
        return INCONCLUSIVE, "evidence_absent"
    if held.multiplicity.m / (held.n + 1) > limits.alpha:
        return INCONCLUSIVE, "p_resolution"
    if float(held.value) > limits.alpha:
        return NOT_DETECTED, "p_above_alpha"
    if float(effect.value) < limits.floor(claim):
        return NOT_DETECTED, "effect_below_floor"
    return DETECTED, "all_hold"


def _role_refused(real: Measured) -> str:
    return next((one.reason for one in real.skipped if one.item == ROLE_ITEM), "")


def _clusters(real: Measured) -> tuple[Cluster, ...]:
    reasons = {one.item: one.reason for one in real.skipped}
    return tuple(
        Cluster(
            metric.labels["partition"],
            metric.labels["cluster"],
            int(metric.value),
            reasons.get(f"partition:{metric.labels['partition']}:cluster:{metric.labels['cluster']}", ""),
        )
        for metric in real.named("lesion_units")
    )


def _absent(real: Measured) -> tuple[str, ...]:
    """Return what was owed and is not there: partitions, clusters, tests, tasks."""
    found: list[str] = []
    clusters, tests = _clusters(real), real.named("p_importance_holm")
    untested = sum(bool(one.untested) for one in clusters)
    for partition in real.coverage.get("partition", ()):
        owed = next((one for one in real.named("lesion_clusters") if one.labels["partition"] == partition), None)
        here = [one for one in clusters if one.partition == partition]
        if owed is None or int(owed.value) != len(here):
            found.append(f"partition:{partition}")
    if any(one.multiplicity is None or one.multiplicity.m != len(tests) for one in tests):
        found.append("tests")
    if len(tests) + untested != len(clusters):
        found.append("clusters")
    measured = {metric.labels["task"] for metric in real.named("baseline_accuracy")}
    found += [f"task:{task}" for task in real.coverage.get("task", ()) if task not in measured]
    if "task" not in real.coverage:
        found.append("tasks")
    return tuple(found)


def _numbers(real: Measured, one: Cluster, claim: Claim) -> tuple[Metric | None, Metric | None, Metric | None]:
    names = (EFFECT[claim][0], f"p_{claim}", f"p_{claim}_holm")
    effect, p, held = (real.find(name, **one.labels) for name in names)
    return effect, p, held


def _of_cluster(
    real: Measured, one: Cluster, claim: Claim, limits: LesionLimits, missed: Sequence[str], absent: Sequence[str]
) -> Finding:
    word, reason = word_of(claim, real, one, limits, missed=missed, absent=absent)
    numbers = _numbers(real, one, claim)
    why = "" if word == DETECTED else f" ({reason})"
    said = f"{SAID[claim]}: {word.replace('-', ' ')}{why}"
    short = len(real.named("lesion_units")) > WORDY_MOST
    held_at = () if short else (f"{one.units} units held at their mean",)
    return Finding(
        code=claim,
        word=word,
        severity="note",
        claim=f"{'; '.join((said, *_evidence(real, one, claim, short=short), *held_at))}.",
        labels={**one.labels, "reason": reason},
        rests_on=tuple(
            MetricRef(name=metric.name, labels=dict(metric.labels))
            for metric in (real.find("lesion_units", **one.labels), *numbers)
            if metric is not None
        ),
    )


def _evidence(real: Measured, one: Cluster, claim: Claim, *, short: bool) -> tuple[str, ...]:
    """Return effect with interval and rows, p with its family and random sets, as far as they were measured."""
    effect, p, held = _numbers(real, one, claim)
    if effect is None or effect.interval is None or p is None or held is None or held.multiplicity is None:
        return ()
    low, high = effect.interval.low, effect.interval.high
    if short:
        return (f"{effect.value} [{low}, {high}], p {held.value} after Holm",)
    return (
        f"{EFFECT[claim][1]} {effect.value} [{low}, {high}], {_task(real, one)}{effect.n} rows",
        f"p {held.value} after Holm over {held.multiplicity.m} clusters, {held.n} random sets of like units",
    )


def _task(real: Measured, one: Cluster) -> str:
    """Return the task that loses most, of those that can be tested."""
    chance = {skipped.item for skipped in real.skipped if skipped.reason == "baseline_at_chance"}
    drops = [
        metric
        for metric in real.named("drop")
        if {**one.labels, "task": metric.labels["task"]} == metric.labels
        and f"task:{metric.labels['task']}:tests" not in chance
    ]
    return f"task {max(drops, key=lambda metric: float(metric.value)).labels['task']}, " if drops else ""


def _of_model(
    real: Measured, claim: Claim, each: Sequence[Finding], absent: Sequence[str], structured: Collection[str]
) -> Finding:
    words = [finding.word for finding in each]
    counts = {word: words.count(word) for word in LESION_WORDS}
    refused = len([item for item in absent if item.startswith(("partition:", "task:"))])
    found_in = {one.labels["partition"]: one.labels["matrix"] for one in real.named("lesion_clusters")}
    of_modules = [one for one in each if found_in.get(one.labels["partition"]) in structured]
    if absent or not words:
        word = INCONCLUSIVE
    elif any(one.word == DETECTED for one in of_modules):
        word = DETECTED
    else:
        # Units that matter, in a partition that noise could have given, are no cluster of this model.
        word = INCONCLUSIVE if counts[INCONCLUSIVE] or counts[DETECTED] else NOT_DETECTED
    left = f" Not measured: {', '.join(absent)[:160]}." if absent else ""
    if word == INCONCLUSIVE and counts[DETECTED] and not absent:
        left = " The partitions of those detected are not structurally clustered: their units are no modules."
    return Finding(
        code=f"{claim}_of_model",
        word=word,
        severity="note",
        claim=(
            f"{SAID[claim]}: detected in {counts[DETECTED]} of {len(words)} tested, {counts[INCONCLUSIVE]} "
            f"inconclusive, {refused} refused.{left} {LESION_CLOSING}"
        ),
        rests_on=tuple(
            MetricRef(name=metric.name, labels=dict(metric.labels)) for metric in real.named(f"p_{claim}_holm")
        ),
    )


def _without_data(claim: Claim, why: str) -> Finding:
    """Return the one finding of a claim that nothing was measured for."""
    word, reason = (INCONCLUSIVE, why) if why else (NOT_ASKED, "no_lesion_data")
    said = f"inconclusive ({why})" if why else "not asked (no lesion data)"
    return Finding(
        code=f"{claim}_of_model",
        word=word,
        severity="note",
        claim=f"{SAID[claim]}: {said}. {LESION_CLOSING.split('; access', maxsplit=1)[0]}.",
        labels={"reason": reason},
        rests_on=(),
    )
