"""From numbers to words: the first rule that is not false decides (contamination, 9.2).

A number that is not there makes what rests on it unknown, and an unknown rule ends the search with `inconclusive`. So
taking a number, a control, a shard or the plants away can only move a word there: with all numbers every rule before
the word was false, without some of them it is false or unknown. Nothing here is computed from data.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from assay.result import ControlResult, Finding, Measured, Metric, MetricRef

from checks.contamination import reasons
from checks.contamination.conclude_controls import (
    HARD_NEGATIVES,
    KNOWN_ANSWER,
    KNOWN_ENCODER,
    PLACEBO_AS_ITEM,
    PLANTED_FAMILIES,
    PLANTED_REWRITES,
)
from checks.contamination.findings_claims import claim
from checks.contamination.findings_power import power
from checks.contamination.findings_readings import Readings, Truth
from checks.contamination.placebo import ITEMS_MIN, MISMATCH
from checks.contamination.recall import CODE
from checks.contamination.sketch import TIERS
from checks.contamination.words import DETECTED, INCONCLUSIVE, INVALID, LEAK, NOT_ASKED, NOT_DETECTED

UNCALIBRATED_MAX = 0.20
"""Share of a benchmark without a p-value above which near and semantic say nothing (section 4)."""

BREACH_SHARE = 0.01
"""Lower bound of the raw share from which a leak is a breach (9.2)."""


@dataclass(frozen=True)
class Gates:
    """Parameters of section 3 that words depend on."""

    gating_tiers: tuple[str, ...] = ("exact", "near", "semantic")
    q: float = 0.05
    near_power: float = 0.8
    semantic_power: float = 0.6
    embedded: bool = True
    """Whether windows were embedded at all."""
    languages: tuple[str, ...] = ("en",)
    """Whose words were examined."""

    def power(self, tier: str) -> float:
        """Return the lower bound of recall that `not detected` needs at a tier."""
        return self.semantic_power if tier == "semantic" else self.near_power


@dataclass(frozen=True)
class Verdict:
    """A word, why, and the metrics that it rests on."""

    word: str
    why: str | None
    rests: tuple[Metric, ...] = ()


@dataclass(frozen=True)
class _Step:
    word: str
    why: str
    holds: Truth


def findings(
    real: Measured, controls: Sequence[ControlResult], missed: Collection[str], gates: Gates | None = None
) -> tuple[Finding, ...]:
    """Return every claim of the corpus side, by benchmark, in the order of the table.

    Args:
        real: the numbers; `coverage["benchmark"]` names the benchmarks that are owed.
        controls: every result of every control.
        missed: names of controls that said nothing.
        gates: parameters that words depend on.
    """
    gates = gates or Gates()
    counted = (one.labels.get("benchmark") for one in real.named("items"))
    named = (*real.coverage.get("benchmark", ()), *(one for one in counted if one is not None))
    told: list[Finding] = []
    for benchmark in dict.fromkeys(named):
        readings = Readings(real, controls, frozenset(missed), benchmark)
        tiers = {tier: _tier(readings, tier, gates) for tier in TIERS[:4]}
        told.append(_finding(readings, LEAK, _together(tiers, gates), gates))
        told += [_finding(readings, f"leak.{tier}", verdict, gates) for tier, verdict in tiers.items()]
    return tuple(told)


def _tier(readings: Readings, tier: str, gates: Gates) -> Verdict:
    if tier not in gates.gating_tiers or (tier == "semantic" and not gates.embedded):
        return Verdict(NOT_ASKED, reasons.PARAMETER)
    flagged = readings.of("flagged", tier=tier)
    powered, why, rests = power(readings, tier, gates.power(tier), _embedded(readings) if gates.embedded else 0.0)
    steps = (
        _Step(NOT_ASKED, reasons.LANGUAGE, _other_language(readings)),
        _Step(INVALID, reasons.PLACEBO_MISMATCH, _mismatch(readings)),
        _Step(INCONCLUSIVE, reasons.COVERAGE, _above(readings.of("shards_missing", whole=True), 0)),
        _Step(INCONCLUSIVE, reasons.NO_PLACEBO, _uncalibrated(readings, tier)),
        _Step(INCONCLUSIVE, reasons.NO_RECALL, _unplanted(readings)),
        _Step(INCONCLUSIVE, reasons.CONTROL_MISSED, _missed(readings, tier, gates)),
        _Step(DETECTED, "", _above(flagged, 0)),
        _Step(INCONCLUSIVE, reasons.NO_PLACEBO, _above(readings.of("placebo_kind_items"), 0)),
        _Step(INCONCLUSIVE, reasons.COVERAGE, _unflaggable(readings)),
        _Step(INCONCLUSIVE, reasons.UNDERPOWERED, _out_of_reach(readings, tier)),
        _Step(INCONCLUSIVE, why, None if powered is None else not powered),
        _Step(NOT_DETECTED, "", True),
    )
    first = next(one for one in steps if one.holds is not False)
    if first.holds is None:
        return Verdict(INCONCLUSIVE, reasons.NOT_MEASURED, rests)
    return Verdict(first.word, first.why or None, rests)


def _together(tiers: dict[str, Verdict], gates: Gates) -> Verdict:
    """Return the word over all gating tiers: what was not searched keeps `not detected` from being said."""
    told = [verdict for tier, verdict in tiers.items() if tier in gates.gating_tiers]
    for word in (INVALID, DETECTED):
        if chosen := [one for one in told if one.word == word]:
            return chosen[0]
    if told and all(one.word == NOT_DETECTED for one in told):
        return told[-1]  # of the tier that is hardest to find
    if told and all(one.word == NOT_ASKED for one in told):
        return told[0]
    blocked = [one for one in told if one.word == INCONCLUSIVE]
    return blocked[0] if blocked else Verdict(INCONCLUSIVE, reasons.COVERAGE)


def _mismatch(readings: Readings) -> Truth:
    items = readings.of("placebo_check_items")
    if items is None:
        return None
    if float(items.value) < ITEMS_MIN:
        return False  # not asked of so few
    return _compared(readings.of("p_bulk"), lambda p: p < MISMATCH)


def _uncalibrated(readings: Readings, tier: str) -> Truth:
    items, without = readings.of("items"), readings.of("uncalibrated")
    if tier == "exact":
        # Identity needs no null, and what has one is held against it; but not where nothing can be claimed at all.
        closed = readings.of("placebo_kind_items")
        return None if items is None or closed is None else 0 < float(items.value) <= float(closed.value)
    if items is None or without is None:
        return None
    if float(without.value) > UNCALIBRATED_MAX * float(items.value):
        return True
    return _compared(readings.of("placebos"), lambda n: n == 0) if tier == "template" else False


def _unflaggable(readings: Readings) -> Truth:
    """Return whether too many items could be found at no tier for silence to speak of the benchmark."""
    items, without = readings.of("items"), readings.of("unflaggable")
    if items is None or without is None:
        return None
    return float(without.value) > UNCALIBRATED_MAX * float(items.value)


def _other_language(readings: Readings) -> Truth:
    """Return whether every item is code in a language that no scan looks for."""
    items, other = readings.of("items"), readings.of("other_language_items")
    return None if items is None or other is None else 0 < float(items.value) <= float(other.value)


def _out_of_reach(readings: Readings, tier: str) -> Truth:
    """Return whether no number of leaks could be flagged: with too few siblings an item, silence says nothing."""
    if tier == "exact":
        code = readings.of("code_items")
        if code is None or not float(code.value):
            return None if code is None else False  # identity is flagged without a p-value; code has none
    items, without, fewest = (readings.of(name) for name in ("items", "uncalibrated", "min_flaggable"))
    if items is None or without is None or fewest is None:
        return None
    return float(fewest.value) > float(items.value) - float(without.value)


def _unplanted(readings: Readings) -> Truth:
    return not any(
        readings.of("recall", depth=depth, placement="all", source=source + of) is not None
        for depth in ("0", "1")
        for source in ("automatic", "rewrites")
        for of in ("", CODE)
    )


def _missed(readings: Readings, tier: str, gates: Gates) -> Truth:
    """Return whether a control that gates the tier missed: true also where it said nothing."""
    held = [
        readings.control(KNOWN_ANSWER, whole=True),
        readings.control(PLACEBO_AS_ITEM),
        readings.control(PLANTED_REWRITES),
    ]
    if gates.embedded:
        held.append(readings.control(KNOWN_ENCODER, whole=True))
    if tier == "semantic":
        # Owed of every run: an audit that left the families out would pass where one with them says nothing.
        held += [readings.control(PLANTED_FAMILIES), readings.control(HARD_NEGATIVES, whole=True)]
    return not all(one is True for one in held)


def _embedded(readings: Readings) -> float | None:
    words, embedded = readings.of("words", whole=True), readings.of("words_embedded", whole=True)
    if words is None or embedded is None or not float(words.value):
        return None
    return min(1.0, float(embedded.value) / float(words.value))


def _low(metric: Metric) -> float:
    return float(metric.interval.low) if metric.interval else 0.0


def _above(metric: Metric | None, bound: float) -> Truth:
    return _compared(metric, lambda value: value > bound)


def _compared(metric: Metric | None, holds: Callable[[float], bool]) -> Truth:
    return None if metric is None else holds(float(metric.value))


def _finding(readings: Readings, code: str, verdict: Verdict, gates: Gates) -> Finding:
    tier = code.partition(".")[2] or "all"
    about = [readings.of(name, tier=tier) for name in ("flagged", "share.raw", "answer_near")]
    about += [
        readings.of("min_flaggable"),
        readings.of("unflaggable"),
        readings.of("uncalibrated"),
        readings.of("words", whole=True),
        readings.of("shards_declared", whole=True),
    ]
    rests = [one for one in (*about, *verdict.rests) if one is not None] if verdict.word != NOT_ASKED else []
    labels = {"benchmark": readings.benchmark} | ({"reason": verdict.why} if verdict.why else {})
    return Finding(
        code=code,
        word=verdict.word,
        severity=_severity(readings, tier, verdict),
        claim=claim(readings.of, verdict.word, verdict.why, tier, gates.q, verdict.rests, gates.languages),
        labels=labels,
        rests_on=tuple(MetricRef(name=one.name, labels=one.labels) for one in rests),
    )


def _severity(readings: Readings, tier: str, verdict: Verdict) -> Literal["note", "concern", "breach"]:
    if verdict.word != DETECTED:
        return "note"
    near, share = readings.of("answer_near", tier=tier), readings.of("share.raw", tier=tier)
    breach = (near is not None and float(near.value) > 0) or (share is not None and _low(share) >= BREACH_SHARE)
    if tier == "template" and not breach:
        return "note"
    return "breach" if breach else "concern"
