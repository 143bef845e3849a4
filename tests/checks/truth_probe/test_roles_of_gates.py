"""Taking roles away never makes a failing case SUPPORTED. Specification: truth_probe, sections 7 and 13 (4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, combinations
from typing import Any

import pytest
from assay.result import ControlResult

from checks.ask import ask
from checks.truth_probe.words import RULES, SUPPORTED
from tests.checks.truth_probe.cases import Case, Layer, evidence, probe

ROLES = ("features", "negated", "personas", "asks")

FAILING = {
    "FEATURE-NOT-TRUTH": Layer(a=3, b=6),
    "FEATURE-NOT-TRUTH battery": Layer(prefix=6),
    "FEATURE-NOT-TRUTH negated": Layer(negated=-1),
    "READABLE-ONLY": Layer(use=0),
    "OUTPUT-TRACKING": Layer(other=-1),
}

CASE = Case(layers=(*FAILING.values(), Layer()), train=160, test=200, width=40)
PARAMS: dict[str, Any] = {
    "causal_layers": tuple(range(len(CASE.layers))),
    "methods": ("md", "lr"),
    "distractor_margin": "0.2",
}
"""The margin is wider than by default: two hundred items cannot show less."""


def words(case: Case, controls: Sequence[ControlResult]) -> list[str]:
    """Return the words of the primary method, by layer."""
    check = probe(case, **PARAMS)
    found = check.judge(check.measure(evidence(check, case)), controls)
    return [one.word for one in found if one.code == "truth_feature"]


@pytest.fixture(scope="module")
def controls() -> tuple[ControlResult, ...]:
    """Controls see main rows alone, so those of the whole case are those of every part of it."""
    check = probe(CASE, **(PARAMS | {"causal_layers": (0,)}))
    told = ask(check, evidence(check, CASE)).controls
    assert all(one.held for one in told)
    return told


def test_every_layer_fails_as_planted_but_the_whole_one(controls: tuple[ControlResult, ...]) -> None:
    found = words(CASE, controls)
    assert found == [*(name.partition(" ")[0] for name in FAILING), SUPPORTED]


@pytest.mark.parametrize(
    "dropped",
    [
        pytest.param(subset, id="+".join(subset), marks=() if len(subset) in (1, len(ROLES)) else pytest.mark.slow)
        for subset in chain.from_iterable(combinations(ROLES, count) for count in range(1, len(ROLES) + 1))
    ],
)
def test_without_roles_nothing_becomes_supported(dropped: tuple[str, ...], controls: tuple[ControlResult, ...]) -> None:
    left = replace(
        CASE,
        features="features" not in dropped,
        negated="negated" not in dropped,
        personas="personas" not in dropped,
        asks="asks" not in dropped,
    )
    found = words(left, controls)
    assert len(found) == len(CASE.layers)
    assert SUPPORTED not in found
    # Gates that nothing was taken from still speak: a layer that failed by its states alone goes on failing.
    assert found[1] == "FEATURE-NOT-TRUTH"
    assert set(found) <= set(RULES)


@pytest.mark.slow
def test_rows_whose_persona_is_no_longer_told_never_support(controls: tuple[ControlResult, ...]) -> None:
    # The harder way to lose personas: every row stays, and nobody says who speaks.
    check = probe(replace(CASE, personas=False), **PARAMS)
    told = evidence(probe(CASE, **PARAMS), CASE).data("pairs")
    rows = [{name: value for name, value in row.items() if name != "persona"} for row in told]
    found = check.judge(check.measure(evidence(check, CASE, {"pairs": rows})), controls)
    tracking = list(FAILING).index("OUTPUT-TRACKING")
    assert [one.word for one in found if one.code == "truth_feature"][tracking] != SUPPORTED
