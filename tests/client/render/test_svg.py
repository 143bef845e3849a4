"""Drawings: ticks, thinning, refusals, and what a reader who sees no colours or no picture is told."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from assay.render import plots, shapes, svg
from assay.render.scale import Scale, place, ticks

from tests.client.render.planted import every_kind, plot, series


def drawn(value: dict[str, Any]) -> str:
    return str(svg.figure(plots.read(value), "plot"))


def shape_of(value: dict[str, Any]) -> ET.Element:
    picture = re.search(r"<svg[^>]*class=\"plot\".*?</svg>", drawn(value), re.DOTALL)
    assert picture
    return ET.fromstring(picture.group())


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-0.0031, 0.0054), (0, 1e15), (-7, -6.999999), (1e-18, 3e-18), (0.5, 9999)]
)
def test_ticks_are_one_two_or_five_times_a_power_of_ten(low: float, high: float) -> None:
    found = ticks(Scale(low, high, 0, 100))
    assert 2 <= len(found) <= 6
    assert all(low <= at <= high for at, _ in found)
    steps = [Decimal(repr(b)) - Decimal(repr(a)) for (a, _), (b, _) in pairwise(found)]
    first = float(steps[0])
    assert all(math.isclose(float(one), first, rel_tol=1e-6) for one in steps)
    assert round(first / 10 ** math.floor(math.log10(first) + 1e-9)) in (1, 2, 5)
    assert all(math.isclose(float(told), at, rel_tol=1e-12, abs_tol=1e-30) for at, told in found)


def test_every_kind_is_well_formed_with_two_decimals() -> None:
    for value in every_kind():
        root = shape_of(value)
        assert root.get("viewBox") == "0 0 640 240"
        assert root.get("role") == "img"
        title, desc = root[0], root[1]
        assert (title.tag, title.text) == ("title", value["title"])
        assert desc.tag == "desc"
        assert desc.text
        for one in root.iter():
            assert not re.search(r"\.\d{3}|nan|inf|e-", one.get("d", "")), one.get("d")
            for number in re.findall(r"[MLHV](-?[\d.]+) ?(-?[\d.]+)?", one.get("d", "")):
                assert all(-20 <= float(part) <= 660 for part in number if part)


def test_description_tells_first_last_least_greatest_and_n() -> None:
    held = {"name": "a", "x": ["0", "1", "2"], "y": ["0.50", "-3", "2.5"], "low": None, "high": None}
    assert svg.description(plots.read(plot("line", [held]))) == "a: n 3, first 0.50, last 2.5, min -3, max 2.5."


def test_twelve_series_differ_without_colour() -> None:
    seen = set()
    for at in range(12):
        path = re.sub(r"(stroke|fill)=\"#\w+\"", "", shapes.markers([(1, 1)], at) + shapes.stroke([(1, 1), (2, 2)], at))
        seen.add(path)
    assert len(seen) == 12


def test_extremes_survive_thinning_and_are_counted() -> None:
    held = series("long", 2000, interval=False)
    held["y"] = ["0"] * 2000
    held["y"][777], held["y"][1234] = "1", "-1"
    line = plots.read(plot("line", [held])).lines[0]
    kept = shapes.kept(line.x, line.y, Scale(0, 1999, 66, 628), svg.COLUMNS, ordered=True)
    assert {777, 1234} <= set(kept)
    assert kept == sorted(kept)
    assert len(kept) <= 2 * (svg.COLUMNS + 1)
    said = re.search(r"Drawn (\d+) of 2000 points", drawn(plot("line", [held])))
    assert said
    assert 560 <= int(said.group(1)) <= 2 * (svg.COLUMNS + 1)
    assert "Drawn" not in drawn(plot("line", [series("short", 600, interval=False)]))


def test_line_that_turns_back_keeps_its_order() -> None:
    held = series("tree", 1500, interval=False)
    held["x"] = [str(at % 7) for at in range(1500)]
    line = plots.read(plot("line", [held], marks=[])).lines[0]
    kept = shapes.kept(line.x, line.y, Scale(0, 6, 66, 628), 100, ordered=True)
    assert kept == sorted(kept)
    assert len(kept) <= 200


@pytest.mark.parametrize(
    "broken",
    [
        {"kind": "pie"},
        {"series": []},
        {"series": [{"name": "a", "x": ["1"], "y": ["1", "2"]}]},
        {"series": [{"name": "a", "x": ["1"], "y": ["1e5"]}]},
        {"series": [{"name": "a", "x": ["1"], "y": [1.5]}]},
        {"series": [{"name": "a", "x": ["1"], "y": ["1"], "low": ["0"], "high": None}]},
        {"series": [{"name": "a", "x": ["1"] * 2001, "y": ["1"] * 2001}]},
        {"series": [series(f"s{at}", 2) for at in range(13)]},
        {"marks": [{"axis": "z", "at": "1", "label": "x"}]},
        {"x": 3, "series": "none"},
    ],
)
def test_what_is_no_plot_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(plots.NotDrawn):
        plots.read(plot("line", [series("a", 3)]) | broken)


def test_null_distribution_is_a_grey_band() -> None:
    paths = [one.get("fill") for one in shape_of(plot("line", [series("null", 5), series("a", 5)])).iter()]
    assert shapes.GREY in paths


@pytest.mark.parametrize("value", [0.0, -0.001, 1.005, 12.5, -3.0])
def test_coordinates_have_no_minus_zero_and_no_idle_zeros(value: float) -> None:
    assert place(value) in {"0", "1", "12.5", "-3", "1.0", "1.01"}
