"""The controls of the corpus side: numbers that the conclusion made on spoiled or planted scans, each in its band.

The plants were scanned with the corpus, and siblings that play items are among the probes, so a control reads its part
of the conclusion and scans nothing again (contamination, 10). On the other side a control has nothing to measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from assay.result import ControlResult, Measured, Metric

from checks.check import Evidence, Expected, MetricSpec, PromisedBand
from checks.contamination.conclude_controls import (
    FAMILIES_MIN,
    HARD_NEGATIVES,
    KNOWN_ANSWER,
    KNOWN_ENCODER,
    NEGATIVES_MAX,
    PLACEBO_AS_ITEM,
    PLANTED_FAMILIES,
    PLANTED_REWRITES,
    VERBATIM_MIN,
)
from checks.contamination.encoder import KNOWN_TOLERANCE
from checks.contamination.placebo import SETS_MAX
from checks.memory import Joined

if TYPE_CHECKING:
    from checks.contamination.check import Contamination

Kind = Literal["positive", "negative", "null"]

UNASKED = "asked"
"""Metric of a control that has nothing to measure: whether it was asked, which is no. It gates no claim that was made,
and its labels match none, so that a claim that needs it finds nothing to rest on."""


@dataclass(frozen=True)
class CorpusControl:
    """One control of the corpus side."""

    name: str
    kind: Kind
    metric: str
    low: float
    high: float

    @property
    def promises(self) -> Sequence[PromisedBand]:
        """Return its band, and that of a run in which nothing asks for it."""
        return (PromisedBand(metric=self.metric, low=self.low, high=self.high), UNASKED_BAND)

    def spoil(self, check: Contamination, seen: Evidence) -> Evidence:
        """Return the evidence, of which the control's part of the conclusion is looked at."""
        return Joined(seen, self.name)

    def bands(self, check: Contamination, measured: Measured) -> Sequence[Expected]:
        """Return the control's number for each benchmark, or for the scan as a whole."""
        return [
            Expected(metric=one.name, value=float(one.value), low=self.low, high=self.high, labels=one.labels)
            for one in measured.named(self.metric)
        ] or [unasked()]


UNASKED_BAND = PromisedBand(metric=UNASKED, low=0.0, high=0.0, labels={"asked": "no"})
"""What a control states that nothing asks for."""


def unasked() -> Expected:
    """Return the band of a control that nothing asks for."""
    of = UNASKED_BAND
    return Expected(metric=of.metric, value=0.0, low=of.low, high=of.high, labels=of.labels)


CORPUS_CONTROLS = (
    CorpusControl(PLACEBO_AS_ITEM, "null", "sets_flagged", 0, SETS_MAX),
    CorpusControl(PLANTED_REWRITES, "positive", "recall_verbatim", VERBATIM_MIN, 1),
    CorpusControl(PLANTED_FAMILIES, "positive", "recall_families", FAMILIES_MIN, 1),
    CorpusControl(HARD_NEGATIVES, "negative", "passed_as_same", 0, NEGATIVES_MAX),
    CorpusControl(KNOWN_ANSWER, "positive", "pairs_missed", 0, 0),
    CorpusControl(KNOWN_ENCODER, "positive", "largest_difference", 0, KNOWN_TOLERANCE),
)
"""In the order of section 10."""

_UNITS = {
    "sets_flagged": ("count", "Of five sets of siblings that played the items, how many had an item flagged."),
    "recall_verbatim": ("fraction", "Planted copies of depth 0 and 1 that were found."),
    "recall_families": ("fraction", "Planted rewordings of authored families that were found."),
    "passed_as_same": ("fraction", "Hard negatives of authored families that pass as the same."),
    "pairs_missed": ("count", "Fixed pairs that the verifier reads otherwise than is known."),
    "largest_difference": ("1", "Largest difference of the encoder's cosines from those that are known."),
}

CONTROL_SPECS: tuple[MetricSpec, ...] = tuple(
    MetricSpec(
        name=name, unit=unit, labels=("benchmark",), better="none", determinism="exact", summary=summary, interval=False
    )
    for name, (unit, summary) in _UNITS.items()
)
"""Numbers of the controls; no answer shows them but in its controls."""


def control_numbers(told: Sequence[ControlResult], name: str) -> Measured:
    """Return the numbers of one control as `measure` gives them."""
    metric = next((one.metric for one in CORPUS_CONTROLS if one.name == name), "")
    return Measured(metrics=tuple(_metric(one, metric) for one in told if one.name == name))


def _metric(one: ControlResult, name: str) -> Metric:
    exponent = Decimal(one.value).normalize().as_tuple().exponent
    assert isinstance(exponent, int)  # no NaN passes the decimal's grammar
    step = format(Decimal(1).scaleb(min(exponent, 0)), "f")
    return Metric(
        name=name, labels=one.labels, value=one.value, step=step, unit=_UNITS[name][0], n=1, determinism="exact"
    )


__all__ = ["CONTROL_SPECS", "CORPUS_CONTROLS", "Joined", "control_numbers", "unasked"]
