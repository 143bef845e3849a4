"""The calibration goes on where it was cut off, and what it measured stands beside the check, whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import clusterability_calibration as calibration
from benchmarks.clusterability_calibration import Draw, Kept, Row, draw_of, law
from checks.clusterability.intervals import clopper_pearson
from checks.clusterability.noise import DENSE, MASKS, SHAPE
from checks.clusterability.nulls import COMMITTED_SHAPES, auto_ks, committed_graph_power, committed_power


def test_a_run_that_was_cut_off_draws_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "draws.jsonl"
    first = law(Kept(path), "iid", 3)
    drawn: list[int] = []

    def counted(name: str, number: int, draw: int) -> Draw:
        drawn.append(draw)
        return draw_of(name, number, draw)

    monkeypatch.setattr(calibration, "draw_of", counted)
    again = law(Kept(path), "iid", 5)
    assert drawn == [3, 4]
    assert again.draws[:3] == first.draws


def test_draws_of_another_null_are_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Else one table would mix the p-values of two tables of nulls.
    path = tmp_path / "draws.jsonl"
    Kept(path).add(Draw("iid", 0, 0.5, 0.0, flagged=False))
    assert list(Kept(path).row("iid", 1)) == [Draw("iid", 0, 0.5, 0.0, flagged=False)]
    monkeypatch.setattr(calibration, "nulls_sha256", lambda: "other")
    assert list(Kept(path).row("iid", 1)) == [0]


def test_shares_have_exact_intervals() -> None:
    row = Row("law", tuple(Draw("law", draw, 0.01 if draw < 4 else 0.5, 0.1, flagged=draw < 1) for draw in range(100)))
    told = row.document(0.05)
    # Clopper & Pearson's limits solve binomial tails; of 4 in 100 and 1 in 100 they are tabled.
    assert (told["p_alone"]["low"], told["p_alone"]["high"]) == (0.011, 0.0993)
    assert (told["full_rule"]["low"], told["full_rule"]["high"]) == (0.0003, 0.0545)
    assert clopper_pearson(0, 400)[1] == pytest.approx(1 - 0.025 ** (1 / 400))


def test_power_is_known_of_every_committed_shape_and_family() -> None:
    for shape in COMMITTED_SHAPES:
        assert (committed_power(shape) is None) == (4 not in auto_ks(shape)), shape
    for name in ("virtual_mlp", "head_graph", "network"):
        found = committed_graph_power(name)
        assert found is not None
        assert found[1] >= 20


def test_the_committed_table_is_of_the_committed_nulls() -> None:
    table = json.loads(calibration.TABLE.read_text())
    assert table["ks"] == list(auto_ks(SHAPE))
    assert {law["name"] for law in table["laws"]} == {*DENSE, *MASKS}
    assert [kind["name"] for kind in table["kinds"]] == ["iid", "heterogeneous", "sparse"]
    assert all(law["n"] >= 400 for law in table["laws"] if law["route"] == "dense")
    # The claim of the table: no law of noise is called clustered more often than once in a hundred.
    assert all(law["full_rule"]["share"] <= 0.01 for law in table["laws"])
