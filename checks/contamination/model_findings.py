"""From the numbers of the model side to words: the first rule that is not false decides (contamination, 9.2).

As on the corpus side, a number that is not there makes what rests on it unknown, and an unknown rule ends the search
with `inconclusive`. Nothing here is computed from data, and nothing needs a model.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from assay.result import ControlResult, Finding, Measured, MetricRef

from checks.contamination import reasons
from checks.contamination.model_readings import ALL, Reading, Truth, compared, number, structured
from checks.contamination.model_texts import (
    DECLARATION,
    DECLARED,
    OPTIONS,
    ORDER,
    SURPRISE,
    TESTS,
    TRANSFER,
    ModelAsked,
)
from checks.contamination.options_test import MISMATCH
from checks.contamination.surprise_blind import SEPARATED
from checks.contamination.words import DETECTED, INCONCLUSIVE, INDICATED, INVALID, NOT_ASKED, NOT_DETECTED

ORDER_ORGANISM, ORDER_TWIN = "order-organism", "order-organism-shuffled"
OPTIONS_ORGANISM, OPTIONS_TWIN = "options-organism", "options-organism-shuffled"
RANDOM_WEIGHTS, LABEL_SWAP = "random-weights", "label-swap"
"""Names of the controls (section 10)."""

ORGANISMS = {ORDER: (ORDER_ORGANISM, ORDER_TWIN), OPTIONS: (OPTIONS_ORGANISM, OPTIONS_TWIN)}
"""Controls that gate a test on every benchmark."""

LOST_MAX = 0.20
"""Share of stretches, items or texts that could not be scored above which silence means nothing: as of items without a
p-value on the corpus side (section 4)."""

ORDER_STRUCTURED, BLIND_CONTROL = "order_structured", "blind_control"
WHY = {
    ORDER_STRUCTURED: "the published order has structure of its own, which any model would prefer",
    BLIND_CONTROL: "text alone, without any model, tells items from placebos",
    reasons.PLACEBO_MISMATCH: "the test fires on placebo items, which no model can know",
    reasons.COVERAGE: "too many items were left out or could not be scored",
    reasons.UNDERPOWERED: "so few items, orders or draws cannot show a p below the level, whatever the model does",
    reasons.NO_PLACEBO: "too few placebo items with options, so that the guard of this test was not run",
    reasons.CONTROL_MISSED: "a control missed its band",
    reasons.NOT_MEASURED: "a number that this rests on was not measured",
    reasons.PARAMETER: "the parameters do not ask for it",
    DECLARATION: "nobody vouches for the condition that the test needs",
    "role": "a data role that it needs is missing",
    "too_few": "too few items, stretches or reference models",
}
"""Reason -> how it reads in a sentence."""

BLIND_SPOT = "this test cannot see paraphrases"
"""Said with every silence of the model side (section 1)."""


@dataclass(frozen=True)
class _Step:
    word: str
    why: str | None
    holds: Truth


def findings(
    real: Measured, controls: Sequence[ControlResult], missed: Collection[str], asked: ModelAsked
) -> tuple[Finding, ...]:
    """Return every claim of the model side, by benchmark, in the order of the tests.

    Args:
        real: the numbers; `coverage["benchmark"]` names the benchmarks that are owed.
        controls: every result of every control.
        missed: names of controls that said nothing.
        asked: parameters.
    """
    named = (*real.coverage.get("benchmark", ()), *(one.labels["benchmark"] for one in real.named("items")))
    told: list[Finding] = []
    for benchmark in dict.fromkeys(named):
        reading = Reading(real, controls, frozenset(missed), benchmark, asked)
        told += [_finding(reading, test) for test in TESTS]
    return tuple(told)


def _controls_held(reading: Reading, test: str) -> bool:
    """Return whether every control that gates a test gave its number and held; transfer has none."""
    if test == TRANSFER:
        return True
    held = [reading.held(RANDOM_WEIGHTS, f"{test}.p", own=True)]
    held += [reading.held(name, f"{test}.p", own=False) for name in ORGANISMS.get(test, ())]
    if test == SURPRISE:
        held.append(reading.held(LABEL_SWAP, "label_swap.p", own=True))
    return all(held)


def _steps(reading: Reading, test: str) -> tuple[_Step, ...]:
    strong = INDICATED if test == TRANSFER else DETECTED
    return (
        *_guards(reading, test),
        _Step(INCONCLUSIVE, reasons.CONTROL_MISSED, not _controls_held(reading, test)),
        _Step(strong, None, reading.below(test)),
        _Step(INCONCLUSIVE, reasons.NO_PLACEBO, _unguarded(reading) if test == OPTIONS else False),
        _Step(INCONCLUSIVE, reasons.COVERAGE, _too_much_lost(reading, test)),
        _Step(INCONCLUSIVE, reasons.UNDERPOWERED, _out_of_reach(reading, test)),
        _Step(NOT_DETECTED, None, True),
    )


def _guards(reading: Reading, test: str) -> tuple[_Step, ...]:
    if test == ORDER:
        return (_Step(INVALID, ORDER_STRUCTURED, structured(reading)),)
    if test == OPTIONS:
        return (_Step(INVALID, reasons.PLACEBO_MISMATCH, _placebos_differ(reading)),)
    if test == SURPRISE:
        area = compared(reading.of("surprise.blind_auc"), lambda auc: auc >= reading.asked.blind_max)
        p = compared(reading.of("surprise.blind_p"), lambda told: told <= SEPARATED)
        told = True if True in (area, p) else None if None in (area, p) else False
        return (_Step(INVALID, BLIND_CONTROL, told),)
    return ()


def _placebos_differ(reading: Reading) -> Truth:
    count = reading.of("options.placebo_items")
    if count is None:
        return None
    if not number(count):
        return False  # there are none to look at
    return compared(reading.of("options.placebo_p"), lambda p: p <= MISMATCH)


def _unguarded(reading: Reading) -> Truth:
    """Return whether no placebo could have shown that the test fires on what no model can know."""
    count = reading.of("options.placebo_items")
    if count is None:
        return None
    return True if not number(count) else compared(reading.of("options.placebo_p_min"), lambda p: p > MISMATCH)


def _out_of_reach(reading: Reading, test: str) -> Truth:
    """Return whether no p of this test could be `detected`: then its silence says nothing.

    Held against all tests that the parameters ask for, not those that found their roles: Holm's worst case, and taking
    a role away cannot bring a test into reach.
    """
    asked = len(reading.asked.tests)
    return compared(reading.of(f"{test}.p_min"), lambda p: p * asked > reading.asked.alpha)


def _too_much_lost(reading: Reading, test: str) -> Truth:
    """Return whether so much was left out or could not be scored that silence means nothing."""
    if test == TRANSFER:
        return False
    if test == ORDER:
        return _order_lost(reading)
    if test == SURPRISE:
        lost, kept = [reading.of("surprise.left_out")], [reading.of("surprise.items"), reading.of("surprise.placebos")]
    else:
        lost = [reading.of("options.lost"), reading.of("options.left_out", reason=ALL)]
        kept = [reading.of("options.items")]
    if None in lost or None in kept:
        return None
    gone = sum(number(one) for one in lost if one is not None)
    return gone > LOST_MAX * (gone + sum(number(one) for one in kept if one is not None))


def _order_lost(reading: Reading) -> Truth:
    """Return the same of the order test, in items: those in no stretch, and their share of stretches that were lost."""
    told = [reading.of(name) for name in ("items", "order.short", "order.lost", "order.stretches")]
    known = [number(one) for one in told if one is not None]
    if len(known) < len(told):
        return None
    items, short, lost, kept = known
    return short + (items - short) * lost / max(lost + kept, 1) > LOST_MAX * items


def _finding(reading: Reading, test: str) -> Finding:
    why = reading.not_asked(test)
    word = NOT_ASKED
    if why is None:
        first = next(one for one in _steps(reading, test) if one.holds is not False)
        word, why = (first.word, first.why) if first.holds else (INCONCLUSIVE, reasons.NOT_MEASURED)
    rests = [one for name in _RESTS[test] if (one := reading.of(name)) is not None] if word != NOT_ASKED else []
    rests += reading.p_values(test) if word != NOT_ASKED else ()
    labels = {"benchmark": reading.benchmark} | ({"reason": why} if why else {})
    return Finding(
        code=test,
        word=word,
        severity="concern" if word == DETECTED else "note",
        claim=_claim(reading, test, word, why),
        labels=labels,
        rests_on=tuple(MetricRef(name=one.name, labels=one.labels) for one in rests),
    )


_RESTS = {
    ORDER: ("order.p_min", "order.effect", "order.guard_p"),
    OPTIONS: ("options.p_min", "options.mean_rank", "options.placebo_p", "options.placebo_p_min"),
    SURPRISE: ("surprise.p_min", "surprise.auc", "surprise.blind_auc", "surprise.blind_p"),
    TRANSFER: ("transfer.p_min",),
}

_FOUND = {
    ORDER: "the model prefers the published order of the items to random ones",
    OPTIONS: "the model prefers the published order of the options to others",
    SURPRISE: "the model is less surprised by the items than by placebos",
    TRANSFER: "the model does better here than its results elsewhere foretell",
}
_ONLY = {
    ORDER: "as far as the published order is one random order",
    OPTIONS: "as far as options were shuffled at creation",
    SURPRISE: "as far as items and placebos are exchangeable",
    TRANSFER: "an approximation, and no proof",
}


def _claim(reading: Reading, test: str, word: str, why: str | None) -> str:
    if word in (NOT_ASKED, INVALID, INCONCLUSIVE):
        begins = {NOT_ASKED: "not asked", INVALID: "not valid", INCONCLUSIVE: "could not tell"}[word]
        return f"{begins}: {WHY.get(why or '', why or 'unknown')}."
    alpha = reading.asked.alpha
    p = f"p {reading.holm[test]:.3g} after Holm over the tests of the benchmark, level {alpha:g}"
    if word == NOT_DETECTED:
        return f"not detected ({p}); {BLIND_SPOT}."
    vouched = f"; declared: {DECLARED[test]} yes" if test in DECLARED else ""
    if test == OPTIONS and _unguarded(reading) is not False:
        vouched += "; the guard on placebo items was not run, for too few of them have options"
    return f"{_FOUND[test]} ({p}), {_ONLY[test]}{vouched}."
