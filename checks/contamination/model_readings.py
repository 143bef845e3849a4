"""The numbers of one benchmark on the model side, as its words read them (contamination, 9.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from assay.result import ControlResult, Measured, Metric

from checks.contamination import reasons
from checks.contamination.model_texts import DECLARATION, ORDER, TESTS, TRANSFER, ModelAsked
from checks.contamination.order_test_guards import STRUCTURED
from checks.holm import holm

Truth = bool | None

ALL = "all"
"""Reason of a count over all reasons."""


def adjusted(p: Mapping[str, float], m: int) -> dict[str, float]:
    """Return Holm-adjusted p-values of the tests of a benchmark.

    A test that was asked and has no p counts with p = 1: what is missing never makes another test's p smaller.

    Args:
        p: by test.
        m: tests that were asked, at least as many.
    """
    whole = [*p.values(), *([1.0] * (m - len(p)))]
    return dict(zip(p, holm(whole), strict=False))


class Reading:
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
        tests = [test for test in TESTS if self.not_asked(test) is None and not (test == ORDER and structured(self))]
        raw = {test: max(map(number, of)) for test in tests if (of := self.p_values(test))}
        self.holm, self._least = adjusted(raw, len(tests)), adjusted(raw, len(raw))

    def of(self, name: str, **labels: str) -> Metric | None:
        """Return a number of this benchmark; None where it was not measured."""
        return self._real.find(name, benchmark=self.benchmark, **labels)

    def p_values(self, test: str) -> tuple[Metric, ...]:
        """Return a test's p-values: one, or one for each benchmark that foretells; none where any is missing."""
        told = tuple(one for one in self._real.named(f"{test}.p") if one.labels.get("benchmark") == self.benchmark)
        if test != TRANSFER:
            return told[:1]
        count = self.of("transfer.references")
        return told if count is not None and told and len(told) == round(number(count)) else ()

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


def structured(reading: Reading) -> Truth:
    """Return whether the published order has structure of its own."""
    return compared(reading.of("order.guard_p"), lambda p: p <= STRUCTURED)


def number(metric: Metric) -> float:
    """Return a metric's value."""
    return float(metric.value)


def compared(metric: Metric | None, holds: Callable[[float], bool]) -> Truth:
    """Return whether a value holds a condition; None where it was not measured."""
    return None if metric is None else holds(number(metric))
