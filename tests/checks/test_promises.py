"""A check that breaks its own promise fails in the cell, with a step, before any answer leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
from assay.result import Answer, Measured

from checks.ask import ask
from checks.check import Check, Expected, MetricSpec, PromisedBand
from checks.memory import InMemoryEvidence, model_facts
from tests.checks.toy import Silenced, Toy


def asked(control: Silenced | None = None, **spec: Any) -> Answer:
    class Other(Toy):
        """A toy with another control, or another promise of its number."""

        controls = (control or Silenced(),)
        metrics: ClassVar[tuple[MetricSpec, ...]] = (dataclasses.replace(Toy.metrics[0], **spec),)

    check: Check = Other()
    states = np.full((2, 3), 0.25)
    seen = InMemoryEvidence(facts=model_facts(), check="toy", seed=1, activations={"resid.0": states})
    return ask(check, seen)


class Promising(Silenced):
    told: tuple[PromisedBand, ...] = ()

    @property
    def promises(self) -> Sequence[PromisedBand]:
        return self.told


BAND = PromisedBand(metric="mean", low=-0.5, high=0.5)


@pytest.mark.parametrize(
    ("promised", "outcome"),
    [
        ((BAND,), "measured"),
        ((dataclasses.replace(BAND, low=-1.0, fixed=False),), "measured"),
        ((dataclasses.replace(BAND, labels={"layer": "0"}), dataclasses.replace(BAND, low=-9.0)), "measured"),
        ((dataclasses.replace(BAND, low=-1.0),), "failed"),
        ((dataclasses.replace(BAND, low=-0.4, fixed=False),), "failed"),
        ((dataclasses.replace(BAND, metric="other"),), "failed"),
        ((dataclasses.replace(BAND, labels={"layer": "1"}),), "failed"),
        ((BAND, dataclasses.replace(BAND, metric="power", always=True)), "failed"),
        ((), "failed"),
    ],
)
def test_a_control_states_what_it_promised(promised: tuple[PromisedBand, ...], outcome: str) -> None:
    control = Promising()
    object.__setattr__(control, "told", promised)
    answer = asked(control)
    assert answer.outcome == outcome
    assert answer.step == ("control" if outcome == "failed" else None)


@pytest.mark.parametrize(
    ("spec", "outcome"),
    [
        ({}, "measured"),
        ({"interval": None}, "measured"),
        ({"interval": False}, "failed"),
        ({"tolerance": (1e-3, 0.0)}, "failed"),
        ({"tolerance": None}, "failed"),
        ({"margin": 0.1}, "failed"),
    ],
)
def test_a_number_is_of_the_tolerance_margin_and_interval_that_were_promised(spec: Any, outcome: str) -> None:
    answer = asked(**spec)
    assert (answer.outcome, answer.step) == (outcome, "measure" if outcome == "failed" else None)


def test_a_control_that_says_nothing_breaks_no_promise() -> None:
    class Mute(Silenced):
        def bands(self, check: Toy, measured: Measured) -> Sequence[Expected]:
            return []

    answer = asked(Mute())
    assert (answer.outcome, answer.valid) == ("measured", False)
