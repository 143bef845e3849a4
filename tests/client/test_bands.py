"""Bands, tolerances, margins and p-values of an answer are those that its check promised, and nothing wider."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from assay import bands
from assay.catalogue import Catalogue, parse_entry
from assay.errors import Malformed
from assay.promise import check_promise
from assay.result import P_LEAST, Metric
from assay.testing import Forge, forged_entry
from assay.verify import Verification, verify
from pydantic import ValidationError

Json = dict[str, Any]
Change = Callable[[Json], object]

BEFORE = ("bands", "tolerance", "margin")
"""What entries leave out that are from before bands were promised."""


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path, seed=3)


@pytest.fixture
def answer(forge: Forge) -> Json:
    return forge.answer({"layers": 2, "part": 0})


def control(at: int, **change: Any) -> Change:
    return lambda answer: answer["controls"][at].update(change)


def metric(**change: Any) -> Change:
    return lambda answer: answer["measured"]["metrics"][0].update(change)


WIDE = {"low": "0", "high": "1"}
SUBVERTED: dict[str, Change] = {
    "null_control_at_any_value": control(0, value="0.99", band=WIDE),
    "positive_control_that_found_nothing": control(1, value="0.1", band=WIDE),
    "tolerance_of_a_thousand": metric(tolerance={"abs": "1000", "rel": "1000"}),
    "p_of_nothing": metric(p="0"),
    "margin_that_is_wider": metric(margin="0.9"),
    "margin_left_out": metric(margin=None),
    "band_of_another_number": control(0, metric="anything"),
    "narrower_than_fixed": control(0, band={"low": "0.46", "high": "0.55"}),
    "control_without_a_band": lambda answer: answer["controls"][0].pop("band"),
    "p_above_one": metric(p="1.5"),
}


def refused(told: Json, entry: Json) -> str:
    with pytest.raises(Malformed) as caught:
        check_promise(told, entry)
    return caught.value.at


@pytest.mark.parametrize("name", SUBVERTED)
def test_each_part_of_a_subverted_cells_answer_is_refused(name: str, answer: Json) -> None:
    check_promise(answer, dict(forged_entry().raw))
    SUBVERTED[name](answer)
    assert refused(answer, dict(forged_entry().raw)).startswith(("/controls/", "/measured/metrics/0/"))


def promising(*told: Json) -> Json:
    (null, planted) = forged_entry().raw["controls"]
    return {**forged_entry().raw, "controls": [{**null, "bands": list(told)}, planted]}


def band(low: str, high: str, *, metric: str = "accuracy", always: bool = False, **labels: str) -> Json:
    return {"metric": metric, "labels": labels, "low": low, "high": high, "fixed": False, "always": always}


@pytest.mark.parametrize(
    ("low", "high", "holds"),
    [
        ("0.4", "0.6", True),
        ("0.40", "0.6", True),
        ("0.5", "0.5", True),
        ("0.399", "0.6", False),
        ("0.4", "0.601", False),
        ("-9", "9", False),
        ("1e-1", "0.6", False),
        (None, None, False),
    ],
)
def test_a_band_that_hangs_on_the_data_lies_within_the_promised_one(
    low: Any, high: Any, holds: bool, answer: Json
) -> None:
    control(0, band={"low": low, "high": high})(answer)
    entry = promising(band("0.4", "0.6"))
    if holds:
        check_promise(answer, entry)
    else:
        assert refused(answer, entry) == "/controls/0/band"


def test_the_first_band_whose_labels_fit_is_meant(answer: Json) -> None:
    entry = promising(band("0.45", "0.55", layer="1"), band("0", "1"))
    check_promise(answer, entry)
    control(0, band=WIDE)(answer)
    assert refused(answer, entry) == "/controls/0/band"
    control(0, labels={"layer": "0"})(answer)
    check_promise(answer, entry)


def test_a_control_leaves_out_no_number_that_each_run_states(answer: Json) -> None:
    owed = band("0", "1", metric="power", always=True)
    assert refused(answer, promising(band("0", "1"), owed)) == "/controls"
    answer["controls"].append({**answer["controls"][0], "metric": "power"})
    check_promise(answer, promising(band("0", "1"), owed))
    answer["controls"] = [one for one in answer["controls"] if one["name"] != "ShuffledLabels"]
    answer["skipped"] = [{"item": "control:ShuffledLabels", "reason": "no_band"}]
    check_promise(answer, promising(band("0", "1"), owed))  # it could not run at all, and is named


def test_a_number_that_never_has_an_interval_gets_none(answer: Json) -> None:
    (told,) = forged_entry().raw["metrics"]
    entry = {**forged_entry().raw, "metrics": [{**told, "interval": False}]}
    assert refused(answer, entry) == "/measured/metrics/0/interval"
    for one in answer["measured"]["metrics"]:
        one["interval"] = None
    check_promise(answer, entry)


@pytest.mark.parametrize(("p", "fits"), [("0", False), ("0.0000000000009", False), (P_LEAST, True), ("1", True),
                                         ("1.000001", False), ("-0.5", False)])  # fmt: skip
def test_no_p_value_below_its_floor(p: str, fits: bool, answer: Json) -> None:
    told = {**answer["measured"]["metrics"][0], "p": p}
    assert bands.is_p(p) is fits
    if fits:
        Metric.model_validate(told)
    else:
        with pytest.raises(ValidationError, match="p is"):
            Metric.model_validate(told)


@pytest.mark.parametrize(
    "change",
    [
        {"bands": []},
        {"bands": None},
        {"bands": [{"metric": "a", "low": "0", "high": "1", "fixed": True}]},
        {"bands": [{"metric": "a", "low": "1", "high": "0", "fixed": True, "always": False}]},
        {"bands": [{"metric": "a", "low": 0, "high": 1, "fixed": True, "always": False}]},
        {"bands": [{"metric": "a", "low": "0", "high": "1", "fixed": True, "always": False, "labels": {"x": 1}}]},
    ],
)
def test_an_entry_whose_bands_are_none_is_malformed(change: Json) -> None:
    (null, planted) = forged_entry().raw["controls"]
    with pytest.raises(Malformed, match="catalogue_form"):
        parse_entry({**forged_entry().raw, "controls": [{**null, **change}, planted]})


@pytest.mark.parametrize(
    "change",
    [{"tolerance": {"abs": "1"}}, {"tolerance": {"abs": "1", "rel": "-1"}}, {"tolerance": "1"}, {"margin": "-0.1"},
     {"tolerance": {"abs": "1", "rel": "1", "more": "1"}}, {"margin": 0}],
)  # fmt: skip
def test_an_entry_whose_tolerance_or_margin_is_none_is_malformed(change: Json) -> None:
    (told,) = forged_entry().raw["metrics"]
    with pytest.raises(Malformed, match="catalogue_form"):
        parse_entry({**forged_entry().raw, "metrics": [{**told, **change}]})


def before(entry: Json) -> Json:
    """Return an entry as it was before bands were promised."""
    bare = {kind: [{key: one[key] for key in one if key not in BEFORE} for one in entry[kind]]
            for kind in ("metrics", "controls")}  # fmt: skip
    bare["metrics"][0]["summary"] = "Share told apart. No interval."  # some said so, and had one
    return {**entry, **bare}


def look(forge: Forge, report: Path, shipped: Json) -> Verification:
    return verify(report, keys=[forge.key_file], catalogue=Catalogue((parse_entry(shipped),), "0" * 64))


def wrong(seen: Verification) -> list[str]:
    return [f"{step.id}: {step.detail}" for step in seen.steps if step.status == "wrong"]


def test_a_report_of_an_older_entry_is_held_to_the_bands_of_today(forge: Forge) -> None:
    now = dict(forge.entry.raw)
    forge.entry = parse_entry(before(now))
    honest = look(forge, forge.report(), now)
    assert honest.outcome == "verified", wrong(honest)
    assert any("from before bands were promised" in item for item in honest.not_checked)
    answer = forge.answer({"layers": 2, "part": 0})
    metric(margin=None)(answer)  # a margin that nobody had promised
    assert look(forge, forge.report(answers=[answer]), now).outcome == "verified"
    control(0, value="0.99", band=WIDE)(answer)
    seen = look(forge, forge.report(answers=[answer]), now)
    assert [one[:3] for one in wrong(seen)] == ["V10"]
    assert "the catalogue promises exactly [0.45, 0.55]" in wrong(seen)[0]


def test_an_older_entry_may_not_be_a_weaker_one_otherwise(forge: Forge) -> None:
    now = dict(forge.entry.raw)
    forge.entry = parse_entry({**before(now), "words": [*now["words"], "splendid"]})
    assert "differs in words" in wrong(look(forge, forge.report(), now))[0]
    forge.entry = parse_entry({**before(now), "controls": before(now)["controls"][:1]})
    assert "differs in controls" in wrong(look(forge, forge.report(), now))[0]


def test_a_reader_of_an_older_entry_holds_the_reports_own_bands(forge: Forge) -> None:
    now = dict(forge.entry.raw)
    assert look(forge, forge.report(), before(now)).outcome == "verified"
    answer = forge.answer({"layers": 2, "part": 0})
    control(0, value="0.99", band=WIDE)(answer)
    assert [one[:3] for one in wrong(look(forge, forge.report(answers=[answer]), before(now)))] == ["V10"]


def test_bands_that_differ_from_the_shipped_ones_are_wrong(forge: Forge) -> None:
    strict = dict(forge.entry.raw)
    (null, planted) = strict["controls"]
    weak = [{**null, "bands": [{**null["bands"][0], "low": "0", "high": "1"}]}, planted]
    forge.entry = parse_entry({**strict, "controls": weak})
    answer = forge.answer({"layers": 2, "part": 0})
    control(0, value="0.99", band=WIDE)(answer)
    assert "differs in controls" in wrong(look(forge, forge.report(answers=[answer]), strict))[0]
