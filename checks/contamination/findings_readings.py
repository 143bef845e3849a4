"""The numbers and controls of one benchmark, as its words read them (contamination, 9.2)."""

from __future__ import annotations

from collections.abc import Sequence

from assay.result import ControlResult, Measured, Metric

Truth = bool | None
"""None where what it rests on was not measured."""


class Readings:
    """The numbers of one benchmark."""

    def __init__(
        self, real: Measured, controls: Sequence[ControlResult], missed: frozenset[str], benchmark: str
    ) -> None:
        self._real, self._controls, self._missed = real, controls, missed
        self.benchmark = benchmark

    def of(self, name: str, *, whole: bool = False, **labels: str) -> Metric | None:
        """Return a metric of this benchmark, or of the whole corpus."""
        return self._real.find(name, **({} if whole else {"benchmark": self.benchmark}), **labels)

    def control(self, name: str, *, whole: bool = False) -> Truth:
        """Return whether a control held; unknown where it said nothing."""
        labels = {} if whole else {"benchmark": self.benchmark}
        held = [one.held for one in self._controls if one.name == name and one.labels == labels]
        if False in held:
            return False
        return None if not held or name in self._missed else True
