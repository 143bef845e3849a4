"""A model folder through the whole of an audit: what read a benchmark in its published order is found, and no other."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from assay.result import Answer

from checks.catalogue import CATALOGUE
from checks.contamination.check import Contamination
from checks.documents import OrderedCheck
from checks.local import run_local
from checks.organisms.contamination_stored import Stored, stored
from checks.organisms.contamination_words import write
from tests.checks.promised import hold_to_promise

SMALL = 64
"""Items of the small audit: 16 stretches of 4, with 7 orders each."""


@cache
def organism(name: str) -> Stored:
    return stored(name)


def audited(folder: Path, name: str, items: int | None = None, **params: Any) -> Answer:
    """Return the answer about a stored organism, asked about the items that it read."""
    made = organism(name)
    declares = {f"organism-{name}": {"order_exchangeable": "yes", "options_randomised": "yes"}}
    write(folder, made.model, {"benchmark": made.rows[:items]})
    check = OrderedCheck(
        name="contamination",
        version=Contamination.version,
        params={"side": "model", "tests": ["order"], "declares": declares, **params},
    )
    data = {"benchmark": folder / "benchmark.jsonl"}
    (answer,) = run_local(folder / "model", [check], CATALOGUE, data=data, seed=3).answers
    return answer


def said(answer: Answer) -> dict[str, tuple[str, str | None]]:
    assert answer.outcome == "measured", answer.reason
    return {one.code: (one.word, one.labels.get("reason")) for one in answer.findings}


def test_an_order_that_was_read_is_detected_through_an_audit_and_the_twin_is_not(tmp_path: Path) -> None:
    small = {"order_span": 4, "shuffles": 7}
    told = {name: audited(tmp_path / name, name, SMALL, **small) for name in ("order", "order-twin")}
    assert said(told["order"])["order"] == ("detected", None)
    assert said(told["order-twin"])["order"] == ("not_detected", None)
    for answer in told.values():
        assert answer.valid
        hold_to_promise(answer)
        assert said(answer)["surprise"] == ("not_asked", "parameter")


@pytest.mark.slow
def test_the_whole_benchmark_is_detected_at_the_defaults_and_the_twin_is_not(tmp_path: Path) -> None:
    for name, word in (("order", "detected"), ("order-twin", "not_detected")):
        answer = audited(tmp_path / name, name)
        assert said(answer)["order"] == (word, None)
        assert answer.measured is not None
        (least,) = answer.measured.named("order.p_min")
        assert float(least.value) == 1e-12


def test_an_audit_that_could_not_have_detected_anything_says_so(tmp_path: Path) -> None:
    """Four stretches of seven orders have no p below 2.4e-4: at the level .0001 silence would say nothing."""
    answer = audited(tmp_path, "order-twin", 16, order_span=4, shuffles=7, alpha="0.0001")
    assert said(answer)["order"] == ("inconclusive", "underpowered")
    assert answer.measured is not None
    (least,) = answer.measured.named("order.p_min")
    assert float(least.value) == pytest.approx(8**-4, rel=1e-4)
