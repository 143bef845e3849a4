"""The synthetic table of the specification, section 10, through `ask`, and how often gate 1 holds on nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from assay.result import Answer, Finding

from checks.ask import ask
from checks.truth_probe.check import TruthProbe
from checks.truth_probe.fitting import Method
from checks.truth_probe.gates import gates
from tests.checks.truth_probe.cases import LEAN, planted_evidence

METHODS: tuple[Method, ...] = ("md", "tpc", "ccs", "lr")


@dataclass(frozen=True)
class Row:
    """One row of the table: the mean AUROC over seeds of each method, and the words."""

    plant: tuple[float, float]
    areas: Mapping[Method, tuple[float, float]]
    word: str
    words_of_lr: str


ROWS = {
    "4, 0": Row((4, 0), dict.fromkeys(METHODS, (0.99, 1.0)), "PROVISIONAL", "PROVISIONAL"),
    "2, 0": Row(
        (2, 0),
        {"md": (0.91, 0.96), "tpc": (0.91, 0.96), "ccs": (0.83, 0.95), "lr": (0.90, 0.96)},
        "PROVISIONAL",
        "PROVISIONAL",
    ),
    "3, 6": Row(
        (3, 6),
        {"md": (0.44, 0.58), "tpc": (0.44, 0.58), "ccs": (0.44, 0.58), "lr": (0.97, 1.0)},
        "FEATURE-NOT-TRUTH",
        "PROVISIONAL",
    ),
    "4, 4": Row((4, 4), {"md": (0.0, 1.0), "lr": (0.98, 1.0)}, "AMBIGUOUS", "PROVISIONAL"),
    "0, 0": Row((0, 0), dict.fromkeys(METHODS, (0.45, 0.55)), "NOT-DETECTED", "NOT-DETECTED"),
}


def asked(plants: Sequence[tuple[float, float]], seed: int, **size: int) -> Answer:
    check = TruthProbe(**LEAN, methods=METHODS)
    return ask(check, planted_evidence(plants, seed=seed, **size))


def words(answer: Answer, method: str) -> dict[str, str]:
    (found,) = [one for one in answer.findings if one.code.endswith("by_layer") and one.labels["method"] == method]
    return {name: word for name, word in found.labels.items() if name.startswith("layer:")}


def area(answer: Answer, layer: int, method: str) -> float:
    assert answer.measured is not None
    found = answer.measured.find("auroc", set="planted", layer=str(layer), method=method)
    assert found is not None
    return float(found.value)


@pytest.fixture(scope="module")
def small() -> Answer:
    """Every row as one layer of one model, at a width where the words come out alike."""
    return asked([row.plant for row in ROWS.values()], 0, n=400, d=64)


@pytest.mark.parametrize("name", ROWS)
def test_each_row_has_its_words(small: Answer, name: str) -> None:
    row, layer = ROWS[name], [*ROWS].index(name)
    assert words(small, "md")[f"layer:{layer}"] == row.word
    assert words(small, "lr")[f"layer:{layer}"] == row.words_of_lr


@pytest.mark.parametrize("name", ROWS)
def test_each_row_has_its_scores(small: Answer, name: str) -> None:
    row, layer = ROWS[name], [*ROWS].index(name)
    # One draw in place of five: its own standard error is .029 at one half.
    for method, (low, high) in row.areas.items():
        assert low - 0.06 <= area(small, layer, method) <= high + 0.06


def test_the_followed_feature_is_named(small: Answer) -> None:
    found = primary(small)[[*ROWS].index("3, 6")]
    assert found.labels["h"].partition("+")[0] == "h"


def primary(answer: Answer) -> list[Finding]:
    return [one for one in answer.findings if one.code == "truth_feature"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_the_table_at_its_own_size(name: str) -> None:
    row = ROWS[name]
    told = [asked([row.plant], seed, n=400, d=256) for seed in range(5)]
    assert [words(one, "md")["layer:0"] for one in told] == [row.word] * 5
    assert [words(one, "lr")["layer:0"] for one in told] == [row.words_of_lr] * 5
    for method, (low, high) in row.areas.items():
        assert low <= np.mean([area(one, 0, method) for one in told]) <= high, method


def false_positives(draws: int, **size: int) -> dict[str, int]:
    """Return in how many draws without any truth gate 1 holds, by method."""
    params: dict[str, Any] = LEAN | {"bootstrap": 1000}
    check = TruthProbe(**params)
    held: dict[str, int] = dict.fromkeys(check.methods, 0)
    for seed in range(100, 100 + draws):
        real = check.measure(planted_evidence([0.0], seed=seed, **size))
        for method in check.methods:
            held[method] += gates(real, "planted", "0", method, check.limits())["detected"] == "holds"
    return held


def test_gate_1_hardly_holds_on_nothing() -> None:
    assert max(false_positives(12, n=200, d=32).values()) <= 2


@pytest.mark.slow
def test_gate_1_hardly_holds_on_nothing_at_the_table_size() -> None:
    assert max(false_positives(60, n=400, d=256).values()) <= 3
