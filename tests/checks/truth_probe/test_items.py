"""Results item by item: they give the metrics of the report, fit their bytes, and hold no id and no text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from assay.compare.influence import influence
from assay.compare.items import Items, read_all
from assay.result import Measured

from checks.truth_probe.asking import CELLS_MAX
from checks.truth_probe.check import TruthProbe
from checks.truth_probe.items import ANSWER_BYTES, BYTES_MAX, CELL_BYTES, FILES, KINDS
from tests.checks.truth_probe.cases import BARE, Case, Layer, evidence, probe

CASE = replace(BARE, layers=(Layer(a=3.0), Layer(a=1.0)), train=120, test=160, width=24)
METHODS = {"methods": ("md", "lr"), "causal_layers": (1,)}

Files = Mapping[str, bytes]


def run(case: Case = CASE, **params: Any) -> tuple[Measured, Files]:
    check = probe(case, **(METHODS | params))
    seen = evidence(check, case)
    real = check.measure(seen)
    return real, check.hand_out(seen, real, ())


@pytest.fixture(scope="module")
def whole() -> tuple[Measured, Files]:
    return run()


def read(files: Files) -> list[Items]:
    return [one for data in files.values() for one in read_all(data)]


def test_items_give_the_metrics_of_the_report(whole: tuple[Measured, Files]) -> None:
    real, files = whole
    told = read(files)
    wanted = {(metric, method) for metric, method in KINDS if method != "ccs"}
    assert {(one.metric, dict(one.labels)["method"]) for one in told} == wanted
    assert len(told) == 2 * len(wanted)
    for one in told:
        metric = real.find(one.metric, **dict(one.labels))
        assert metric is not None
        assert influence(one).theta == pytest.approx(float(metric.value), abs=float(metric.step))
        assert len(one.scores) == 160
    assert not [one for one in real.skipped if one.reason.startswith("items_")]


def test_promised_files_are_the_ones_handed_out(whole: tuple[Measured, Files]) -> None:
    promised = {one.name: one.max_bytes for one in FILES}
    assert whole[1].keys() == promised.keys()
    assert set(promised.values()) == {BYTES_MAX}
    assert TruthProbe.artefacts == FILES


def test_no_id_and_no_text_leaves_with_the_items(whole: tuple[Measured, Files]) -> None:
    check = probe(CASE, **METHODS)
    rows = evidence(check, CASE).data("pairs")
    for data in whole[1].values():
        for row in rows[:50]:
            assert row["pos"].encode() not in data
            assert f'"{row["id"]}"'.encode() not in data


def test_items_that_do_not_fit_are_sampled_by_hash_and_told() -> None:
    real, files = run(items_bytes=3000)
    told = read(files)
    assert sum(map(len, files.values())) <= 3000
    assert {one.ids_sha256 for one in told} == {told[0].ids_sha256}
    assert {len(one.scores) for one in told} == {100}
    left = {one.item: one.reason for one in real.skipped if one.item.startswith("items:")}
    assert left["items:planted:rows:60"] == "items_sampled"
    assert sum(int(item.rpartition(":")[2]) for item in left if "instances" in item) + len(told) == 8
    # The layer whose effect is measured comes first, and there the ceiling.
    assert (told[0].metric, dict(told[0].labels)["layer"], dict(told[0].labels)["method"]) == ("accuracy", "1", "lr")


def test_another_model_hands_out_the_same_items() -> None:
    """Nothing about which documents or items there are may hang on the model: they would not pair."""
    other = replace(CASE, layers=(Layer(a=0.0), Layer(a=6.0)))
    for room in (3000, 16384):
        one, two = (read(run(case, items_bytes=room)[1]) for case in (CASE, other))
        keys = [[(d.metric, d.labels, d.ids_sha256, d.targets, d.clusters) for d in side] for side in (one, two)]
        assert keys[0] == keys[1]


def test_none_are_handed_out_where_none_are_wanted() -> None:
    real, files = run(items_bytes=0)
    assert files == {}
    assert not [one for one in real.skipped if one.item.startswith("items")]


def test_the_largest_answer_still_leaves_room() -> None:
    assert 0 < ANSWER_BYTES - CELLS_MAX * CELL_BYTES < BYTES_MAX < ANSWER_BYTES < 64 * 1024
