"""From the numbers of the model side to words: the first rule that is not false decides (contamination, 9.2).

As on the corpus side, a number that is not there makes what rests on it unknown, and an unknown rule ends the search
with `inconclusive`. Nothing here is computed from data, and nothing needs a model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from assay.result import ControlResult, Finding, Measured, Metric, MetricRef

from checks.contamination import reasons
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
from checks.contamination.order_test_guards import STRUCTURED
from checks.contamination.surprise_blind import SEPARATED
from checks.contamination.words import DETECTED, INCONCLUSIVE, INDICATED, INVALID, NOT_ASKED, NOT_DETECTED
from checks.holm import holm

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
    reasons.COVERAGE: "too many texts could not be scored",
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

Truth = bool | None


@dataclass(frozen=True)
class _Step:
    word: str
    why: str | None
    holds: Truth


def adjusted(p: Mapping[str, float], m: int) -> dict[str, float]:
    """Return Holm-adjusted p-values of the tests of a benchmark.

    A test that was asked and has no p counts with p = 1: what is missing never makes another test's p smaller.

    Args:
        p: by test.
        m: tests that were asked, at least as many.
    """
    whole = [*p.values(), *([1.0] * (m - len(p)))]
    return dict(zip(p, holm(whole), strict=False))


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
        reading = _Reading(real, controls, frozenset(missed), benchmark, asked)
        told += [_finding(reading, test) for test in TESTS]
    return tuple(told)


class _Reading:
    """The numbers of one benchmark."""

    def __init__(
        self,
        real: Measured,
        controls: Sequence[ControlResult],
        missed: frozenset[str],
        benchmark: str,
        asked: ModelAsked,
    ) -> None:
        self._real, self._controls, self._missed = real, controls, missed
        self.benchmark, self.asked = benchmark, asked
        self._skipped = {one.item: one.reason for one in real.skipped}
        tests = [test for test in TESTS if self.not_asked(test) is None and not (test == ORDER and _structured(self))]
        raw = {test: max(map(_value, of)) for test in tests if (of := self.p_values(test))}
        self.holm, self._least = adjusted(raw, len(tests)), adjusted(raw, len(raw))

    def of(self, name: str) -> Metric | None:
        return self._real.find(name, benchmark=self.benchmark)

    def p_values(self, test: str) -> tuple[Metric, ...]:
        """Return a test's p-values: one, or one for each benchmark that foretells; none where any is missing."""
        told = tuple(one for one in self._real.named(f"{test}.p") if one.labels.get("benchmark") == self.benchmark)
        if test != TRANSFER:
            return told[:1]
        count = self.of("transfer.references")
        return told if count is not None and told and len(told) == round(_value(count)) else ()

    def below(self, test: str) -> Truth:
        """Return whether Holm's p is at most alpha; unknown where that hangs on the p of another test that is missing.

        A missing p may be anything from 0, which takes a test out of the others' way, to 1.
        """
        if test not in self.holm:
            return None
        if self.holm[test] <= self.asked.alpha:
            return True
        return False if self._least[test] > self.asked.alpha else None

    def not_asked(self, test: str) -> str | None:
        """Return why a test was not asked; None where it was."""
        if test not in self.asked.tests:
            return reasons.PARAMETER
        if not self.asked.declared(self.benchmark, test):
            return DECLARATION
        return self._skipped.get(f"{test}:{self.benchmark}")

    def held(self, control: str, metric: str, *, own: bool) -> bool:
        """Return whether a control gave this number and held it; of this benchmark, or whatever its benchmark."""
        if control in self._missed:
            return False
        told = [
            one.held
            for one in self._controls
            if one.name == control
            and one.metric == metric
            and (not own or one.labels.get("benchmark") == self.benchmark)
        ]
        return bool(told) and all(told)


def _controls_held(reading: _Reading, test: str) -> bool:
    """Return whether every control that gates a test gave its number and held; transfer has none."""
    if test == TRANSFER:
        return True
    held = [reading.held(RANDOM_WEIGHTS, f"{test}.p", own=True)]
    held += [reading.held(name, f"{test}.p", own=False) for name in ORGANISMS.get(test, ())]
    if test == SURPRISE:
        held.append(reading.held(LABEL_SWAP, "label_swap.p", own=True))
    return all(held)


def _steps(reading: _Reading, test: str) -> tuple[_Step, ...]:
    strong = INDICATED if test == TRANSFER else DETECTED
    return (
        *_guards(reading, test),
        _Step(INCONCLUSIVE, reasons.CONTROL_MISSED, not _controls_held(reading, test)),
        _Step(strong, None, reading.below(test)),
        _Step(INCONCLUSIVE, reasons.COVERAGE, _too_much_lost(reading, test)),
        _Step(NOT_DETECTED, None, True),
    )


def _guards(reading: _Reading, test: str) -> tuple[_Step, ...]:
    if test == ORDER:
        return (_Step(INVALID, ORDER_STRUCTURED, _structured(reading)),)
    if test == OPTIONS:
        return (_Step(INVALID, reasons.PLACEBO_MISMATCH, _placebos_differ(reading)),)
    if test == SURPRISE:
        area = _compared(reading.of("surprise.blind_auc"), lambda auc: auc >= reading.asked.blind_max)
        p = _compared(reading.of("surprise.blind_p"), lambda told: told <= SEPARATED)
        told = True if True in (area, p) else None if None in (area, p) else False
        return (_Step(INVALID, BLIND_CONTROL, told),)
    return ()


def _structured(reading: _Reading) -> Truth:
    return _compared(reading.of("order.guard_p"), lambda p: p <= STRUCTURED)


def _placebos_differ(reading: _Reading) -> Truth:
    count = reading.of("options.placebo_items")
    if count is None:
        return None
    if not _value(count):
        return False  # there are none to look at
    return _compared(reading.of("options.placebo_p"), lambda p: p <= MISMATCH)


def _too_much_lost(reading: _Reading, test: str) -> Truth:
    """Return whether so many parts could not be scored that silence means nothing."""
    if test == TRANSFER:
        return False
    if test == SURPRISE:
        lost, kept = [reading.of("surprise.left_out")], [reading.of("surprise.items"), reading.of("surprise.placebos")]
    else:
        parts = "stretches" if test == ORDER else "items"
        lost, kept = [reading.of(f"{test}.lost")], [reading.of(f"{test}.{parts}")]
    if None in lost or None in kept:
        return None
    gone = sum(_value(one) for one in lost if one is not None)
    return gone > LOST_MAX * (gone + sum(_value(one) for one in kept if one is not None))


def _finding(reading: _Reading, test: str) -> Finding:
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
    ORDER: ("order.effect", "order.guard_p"),
    OPTIONS: ("options.mean_rank", "options.placebo_p"),
    SURPRISE: ("surprise.auc", "surprise.blind_auc", "surprise.blind_p"),
    TRANSFER: (),
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


def _claim(reading: _Reading, test: str, word: str, why: str | None) -> str:
    if word in (NOT_ASKED, INVALID, INCONCLUSIVE):
        begins = {NOT_ASKED: "not asked", INVALID: "not valid", INCONCLUSIVE: "could not tell"}[word]
        return f"{begins}: {WHY.get(why or '', why or 'unknown')}."
    alpha = reading.asked.alpha
    p = f"p {reading.holm[test]:.3g} after Holm over the tests of the benchmark, level {alpha:g}"
    if word == NOT_DETECTED:
        return f"not detected ({p}); {BLIND_SPOT}."
    vouched = f"; declared: {DECLARED[test]} yes" if test in DECLARED else ""
    return f"{_FOUND[test]} ({p}), {_ONLY[test]}{vouched}."


def _value(metric: Metric) -> float:
    return float(metric.value)


def _compared(metric: Metric | None, holds: Callable[[float], bool]) -> Truth:
    return None if metric is None else holds(_value(metric))
