"""In-run controls: they join what `measure` has trained, and land in bands that must hold. Section 10.

What trains (the twin's dictionary, the frozen decoder) is trained beside the real dictionaries on the same passages or
the same batches, and what plants is planted once: a control reads its part of the session and does not repeat it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, ClassVar, Literal

from assay.result import Measured, Metric

from checks.check import Evidence, Expected, PromisedBand
from checks.memory import Joined
from checks.sae_features.probes.concept_values import BLANK_DRAWS

if TYPE_CHECKING:
    from checks.sae_features.check import SaeFeatures

STANDARD_ERRORS, LEAST_REACH = 4.0, 0.015
"""Half-width of the band of the null's mean: four standard errors, and at least this (section 10)."""

PLANTED_LEAST = 0.90
"""Area that dense and sparse probes reach on a plant of half a scale in the dictionary (section 10)."""

FALSE_MOST = 2
"""Plants of nothing that may be detected, of 20 (section 10)."""


SD_MOST = 0.5
"""Largest standard deviation of numbers from 0 to 1: half of them at each end."""

PERMUTATIONS_LEAST = 50
"""Label permutations that a caller may ask for at least (section 2)."""

NOTHING_ASKED = PromisedBand(metric="concepts_asked", low=0.0, high=0.0)
"""What a control of probes states where no concept was asked."""

WORST_NATS = 1000.0
"""No cross-entropy is above this; the band is open upwards in all but name."""


@dataclass(frozen=True)
class RandomWeights:
    """The model with the entries of its matrices permuted: it must really be broken, else it is no baseline."""

    name: ClassVar[str] = "random-weights"
    kind: ClassVar[Literal["negative"]] = "negative"

    @property
    def promises(self) -> Sequence[PromisedBand]:
        """Return the band of what is left to guessing."""
        return (PromisedBand(metric="ce_twin_excess", low=0.0, high=WORST_NATS, always=True),)

    def spoil(self, check: SaeFeatures, seen: Evidence) -> Evidence:
        """Return the evidence, of which the twin is looked at."""
        return Joined(seen, self.name)

    def bands(self, check: SaeFeatures, measured: Measured) -> Sequence[Expected]:
        """Return that the twin's cross-entropy lies nearer to that of guessing than to the model's."""
        return [_expected(one, 0.0, WORST_NATS) for one in measured.named("ce_twin_excess")]


@dataclass(frozen=True)
class FrozenDecoder:
    """A dictionary whose decoder stays as it was drawn: its rows must be those, byte for byte."""

    name: ClassVar[str] = "frozen-decoder"
    kind: ClassVar[Literal["negative"]] = "negative"

    @property
    def promises(self) -> Sequence[PromisedBand]:
        """Return the band of a truth value: 1."""
        return (PromisedBand(metric="frozen_rows_equal", low=1.0, high=1.0, always=True),)

    def spoil(self, check: SaeFeatures, seen: Evidence) -> Evidence:
        """Return the evidence, of which the frozen dictionary is looked at."""
        return Joined(seen, self.name)

    def bands(self, check: SaeFeatures, measured: Measured) -> Sequence[Expected]:
        """Return that its rows did not move."""
        return [_expected(one, 1.0, 1.0) for one in measured.named("frozen_rows_equal")]


@dataclass(frozen=True)
class LabelPermutation:
    """Labels permuted by group in train, val and test: probes must find nothing."""

    name: ClassVar[str] = "label-permutation"
    kind: ClassVar[Literal["null"]] = "null"

    @property
    def promises(self) -> Sequence[PromisedBand]:
        """Return how far the band may go: it hangs on the spread of the permutations, which their number bounds."""
        # The standard deviation of a sample, n - 1 below.
        reach = max(STANDARD_ERRORS * SD_MOST / sqrt(PERMUTATIONS_LEAST - 1), LEAST_REACH)
        return (PromisedBand(metric="null_auroc", low=0.5 - reach, high=0.5 + reach, fixed=False), NOTHING_ASKED)

    def spoil(self, check: SaeFeatures, seen: Evidence) -> Evidence:
        """Return the evidence, of which the permuted labels are looked at."""
        return Joined(seen, self.name)

    def bands(self, check: SaeFeatures, measured: Measured) -> Sequence[Expected]:
        """Return the band of the mean area of each concept, dictionary and probe."""
        expected = []
        for one in measured.named("null_auroc"):
            assert one.null is not None
            reach = max(STANDARD_ERRORS * float(one.null.sd) / sqrt(one.null.n), LEAST_REACH)
            expected.append(_expected(one, 0.5 - reach, 0.5 + reach))
        return expected or _nothing_asked(measured)


@dataclass(frozen=True)
class PlantedInDictionary:
    """A row of the dictionary added to half of the states: the probes must find it."""

    name: ClassVar[str] = "planted-in-dictionary"
    kind: ClassVar[Literal["positive"]] = "positive"

    @property
    def promises(self) -> Sequence[PromisedBand]:
        """Return the band of the areas."""
        return (PromisedBand(metric="planted_auroc", low=PLANTED_LEAST, high=1.0), NOTHING_ASKED)

    def spoil(self, check: SaeFeatures, seen: Evidence) -> Evidence:
        """Return the evidence, of which the plants are looked at."""
        return Joined(seen, self.name)

    def bands(self, check: SaeFeatures, measured: Measured) -> Sequence[Expected]:
        """Return that dense and sparse probes reach their floor."""
        found = [_expected(one, PLANTED_LEAST, 1.0) for one in measured.named("planted_auroc")]
        return found or _nothing_asked(measured)


@dataclass(frozen=True)
class PlantedNothing:
    """Half of the states called positive, and nothing added: the rule must not detect it."""

    name: ClassVar[str] = "planted-nothing"
    kind: ClassVar[Literal["null"]] = "null"

    @property
    def promises(self) -> Sequence[PromisedBand]:
        """Return the band of the count."""
        return (PromisedBand(metric="detected_at_zero", low=0.0, high=false_most(BLANK_DRAWS)), NOTHING_ASKED)

    def spoil(self, check: SaeFeatures, seen: Evidence) -> Evidence:
        """Return the evidence, of which the empty plants are looked at."""
        return Joined(seen, self.name)

    def bands(self, check: SaeFeatures, measured: Measured) -> Sequence[Expected]:
        """Return that at most two of twenty were detected."""
        found = [_expected(one, 0.0, false_most(one.n)) for one in measured.named("detected_at_zero")]
        return found or _nothing_asked(measured)


def false_most(plants: int) -> float:
    """Return how many of so many plants of nothing may be detected."""
    return FALSE_MOST / BLANK_DRAWS * plants


def _nothing_asked(measured: Measured) -> list[Expected]:
    """Where no concept was asked, controls of probes hold trivially, and say so: no concept's word rests on them."""
    of = NOTHING_ASKED
    return [_expected(one, of.low, of.high) for one in measured.named(of.metric)]


def _expected(metric: Metric, low: float, high: float) -> Expected:
    return Expected(metric=metric.name, value=float(metric.value), low=low, high=high, labels=metric.labels)
