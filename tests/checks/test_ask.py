"""Whatever a check does, there is an answer, and no answer is better than its controls."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from assay.result import Answer, Measured

from checks.ask import as_name, ask, listed
from checks.check import Check, Expected
from checks.memory import InMemoryEvidence, model_facts
from tests.checks.toy import Silenced, Toy


def evidence(value: float = 1.0, **more: Any) -> InMemoryEvidence:
    return InMemoryEvidence(facts=model_facts(), check="toy", activations={"resid.0": np.full((5, 4), value)}, **more)


def test_a_measured_answer_carries_its_controls() -> None:
    answer = ask(Toy(), evidence(lost={"t7": "too_long"}))
    assert (answer.outcome, answer.valid) == ("measured", True)
    assert [(one.name, one.value, one.held) for one in answer.controls] == [("silenced", "0", True)]
    assert [(one.item, one.reason) for one in answer.skipped] == [("t7", "too_long")]
    assert answer.params == {"control_low": "-0.5", "raises": "", "plot": False}
    assert Answer.model_validate_json(answer.model_dump_json()) == answer


def test_a_control_that_missed_its_band_leaves_the_answer_not_valid() -> None:
    answer = ask(Toy(control_low="0.1"), evidence())
    assert (answer.outcome, answer.valid) == ("measured", False)
    assert not answer.controls[0].held


@pytest.mark.parametrize("step", ["measure", "judge"])
def test_an_exception_is_a_failed_answer_without_its_text(step: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer = ask(Toy.model_validate({"raises": step}), evidence())
    assert (answer.outcome, answer.reason, answer.step) == ("failed", "check_error", step)
    assert "secret" not in answer.model_dump_json()
    assert "secret" in capsys.readouterr().err


def test_running_out_of_memory_is_the_cells_end_and_no_answer() -> None:
    class Hungry(Toy):
        """A toy that the cell's limit stops."""

        def measure(self, evidence: Any) -> Measured:
            raise MemoryError

    hungry: Check = Hungry()
    with pytest.raises(MemoryError):
        ask(hungry, evidence())


@pytest.mark.parametrize(("what", "step"), [("word", "judge"), ("reason", "measure"), ("unit", "measure")])
def test_what_the_class_does_not_declare_is_the_checks_fault(what: str, step: str) -> None:
    answer = ask(Toy.model_validate({"raises": what}), evidence())
    assert (answer.outcome, answer.step) == ("failed", step)


def asked_with(control: Any) -> Answer:
    class Other(Toy):
        """A toy with another control."""

        controls = (control,)

    check: Check = Other()
    return ask(check, evidence())


def test_a_control_that_says_nothing_has_not_held() -> None:
    @dataclasses.dataclass(frozen=True)
    class Mute(Silenced):
        def bands(self, check: Toy, measured: Measured) -> Sequence[Expected]:
            return []

    answer = asked_with(Mute())
    assert (answer.outcome, answer.valid) == ("measured", False)
    assert [(one.item, one.reason) for one in answer.skipped] == [("control:silenced", "no_band")]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_control_without_a_number_fails_and_does_not_hold(value: float) -> None:
    @dataclasses.dataclass(frozen=True)
    class Unnumbered(Silenced):
        def bands(self, check: Toy, measured: Measured) -> Sequence[Expected]:
            return [Expected(metric="mean", value=value, low=0, high=1, labels={})]

    answer = asked_with(Unnumbered())
    assert (answer.outcome, answer.step) == ("failed", "control")


def test_hostile_items_are_told_in_the_name_alphabet_and_counted() -> None:
    told = listed(["<script>alert(1)</script>", "", "ü" * 500, *[f"line:{n}" for n in range(400)]], "bad_row")
    assert told[0].item == "x_script_alert_1__/script_"
    assert len(told) == 201
    assert told[-1].item == "more:203"
    assert as_name("") == "x"
