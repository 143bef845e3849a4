"""What a catalogue entry promises of an answer, where whole reports (`test_verify.py`) would be too coarse."""

from __future__ import annotations

from typing import Any

import pytest
from assay.errors import Malformed
from assay.promise import check_promise, stray_item
from assay.testing import forged_entry


def entry(**change: Any) -> dict[str, Any]:
    (metric,) = forged_entry().raw["metrics"]
    return {**forged_entry().raw, "controls": [], "metrics": [{**metric, **change}]}


def answer(**labels: str) -> dict[str, Any]:
    told = {"name": "accuracy", "labels": labels, "unit": "fraction", "better": "none", "determinism": "statistical",
            "margin": "0.03"}  # fmt: skip
    measured = {"coverage": {"layer": ["0"]}, "metrics": [{**told, "interval": {}}]}
    return {"outcome": "measured", "measured": measured, "controls": [], "findings": [], "skipped": [], "power": []}


def refused(told: dict[str, Any], promised: dict[str, Any]) -> str:
    with pytest.raises(Malformed) as caught:
        check_promise(told, promised)
    return caught.value.at


def test_a_label_may_be_left_away_only_where_the_entry_says_so() -> None:
    both = {"labels": ["layer", "site"]}
    check_promise(answer(layer="0", site="resid"), entry(**both))
    assert refused(answer(layer="0"), entry(**both)) == "/measured/metrics/0/labels"
    check_promise(answer(layer="0"), entry(**both, optional=["site"]))
    assert refused(answer(site="resid"), entry(**both, optional=["site"])) == "/measured/metrics/0/labels"
    assert refused(answer(layer="0", more="x"), entry(**both, optional=["site"])) == "/measured/metrics/0/labels"


def test_what_a_released_version_leaves_away_is_no_licence_for_another() -> None:
    promised = {**entry(labels=["layer", "site"]), "name": "sae_features"}
    check_promise(answer(layer="0"), {**promised, "version": "1.0"})
    assert refused(answer(layer="0"), {**promised, "version": "1.1"}) == "/measured/metrics/0/labels"
    assert refused(answer(site="resid"), {**promised, "version": "1.0"}) == "/measured/metrics/0/labels"


@pytest.mark.parametrize(
    ("item", "owed", "stray"),
    [
        ("layer:9", ["0", "1"], True),
        ("layer:9:pair-7", ["0"], True),
        ("layer:0:pair-7", ["0"], False),
        ("layer:0/shift", ["0"], False),
        ("layer:trained", ["trained-0"], False),
        ("layer:1", ["10"], True),
        ("layer:", [], False),
        ("control:9", ["0"], False),
        ("9", ["0"], False),  # by its bare value nobody can tell what it is: a stated blind spot
        ("layer:__x", ["x__x"], False),
        (f"layer:{'y' * 122}", ["y" * 128], False),  # cut at 128 characters
    ],
)
def test_an_item_that_is_skipped_and_not_owed(item: str, owed: list[str], stray: bool) -> None:
    assert stray_item([item], "layer", owed) == (item if stray else None)
