"""Comparing forged reports: no change where nothing changed, what was planted is found, other questions are refused."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from assay import canonical
from assay.catalogue import CheckEntry
from assay.cli.codes import of_error
from assay.compare import text
from assay.compare.agreement import Incomparable
from assay.compare.compare import Comparison, compare
from assay.compare.numbers import high_text, low_text, value_text
from assay.compare.sides import load
from assay.errors import CouldNotTell, Misused
from assay.testing import forged_entry
from assay.verify import verify

from tests.client.compare.planted import LAYERS, P1, WORSE, Pair, answer, held, items, metric, with_shares


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def against(pair: Pair, a: Path, b: Path, **margins: float) -> Comparison:
    return compare(pair.side(a), pair.side(b), {("forged_probe", name): told for name, told in margins.items()})


def words(made: Comparison) -> list[str]:
    return [row.word for row in made.rows]


def test_a_report_against_itself_has_not_changed(pair: Pair) -> None:
    bare = pair.report(0)
    made = against(pair, bare, bare)
    assert [row.difference.d for row in made.rows] == [0.0, 0.0]
    assert words(made) == ["cannot_tell"] * 2
    assert all(row.seen.unpaired_because == "no_items" for row in made.rows)
    assert "same report" in made.notes[0]
    paired = pair.report(0, with_shares(*P1), held=held(*P1))
    assert set(words(against(pair, paired, paired))) == {"cannot_tell"}
    assert set(words(against(pair, paired, paired, accuracy=0.05))) == {"equivalent"}


def test_a_planted_difference_is_found_by_its_items_alone(pair: Pair) -> None:
    a = pair.report(0, with_shares(P1[0], P1[1]), held=held(P1[0], P1[1]))
    b = pair.report(1, with_shares(WORSE, P1[1]), held=held(WORSE, P1[1]))
    made = against(pair, a, b)
    assert words(made) == ["regressed", "cannot_tell"]
    assert [row.difference.method for row in made.rows] == ["bonett_price"] * 2
    assert made.compared == 2
    told = made.differences()["forged_probe", "accuracy", (("layer", "0"),)]
    assert (told.method, told.unpaired_because) == ("bonett_price", None)
    low, high = Decimal(str(told.low)), Decimal(str(told.high))
    assert low < Decimal("-0.14") < high < 0
    assert max(len(str(one)) for one in (low, high)) <= 11  # six digits, not the 50 of a float
    interval = made.rows[0].interval
    assert interval is not None
    assert low <= Decimal(interval[0]) < Decimal(interval[1]) <= high
    assert words(against(pair, b, a))[0] == "improved"
    shown = "\n".join(text.comparison(made))
    assert "regressed   forged_probe/accuracy {layer=0}" in shown


def test_without_items_on_one_side_it_is_unpaired_and_says_so(pair: Pair) -> None:
    a = pair.report(0, with_shares(*P1), held=held(*P1))
    b = pair.report(1, with_shares(WORSE, P1[1]))
    made = against(pair, a, b)
    assert {row.difference.method for row in made.rows} == {"unpaired"}
    assert {row.seen.unpaired_because for row in made.rows} == {"no_items"}
    assert made.to_json()["metrics"][0]["unpaired_because"] == "no_items"
    assert "unpaired (no_items)" in "\n".join(text.comparison(made))


def test_items_that_are_promised_and_absent_are_told(pair: Pair) -> None:
    a = pair.report(0, with_shares(*P1), held=held(*P1))
    b = pair.report(1, with_shares(*P1), held=held(*P1))
    digest = answer(pair.forges[1].statement(b))["artefacts"][0]["sha256"]
    (b / "artefacts" / digest).unlink()
    assert {row.seen.unpaired_because for row in against(pair, a, b).rows} == {"items_absent"}


def test_an_unpaired_difference_is_found_where_it_is_large(pair: Pair) -> None:
    def fall(told: dict[str, Any]) -> None:
        metric(told)["better"] = metric(told, 1)["better"] = "none"
        metric(told, 1).update(value="0.512", interval=metric(told)["interval"])

    assert words(against(pair, pair.report(0), pair.report(1, fall))) == ["cannot_tell", "changed"]


def test_data_are_compared(pair: Pair) -> None:
    other = [{"role": "pairs", "sha256": "0" * 64}]
    refused(pair, pair.report(0), pair.report(1, data=other), "data/pairs/sha256")


def test_another_version_is_refused(pair: Pair) -> None:
    a = pair.report(0)
    pair.forges[1].entry = entry(version="1.1")
    refused(pair, a, pair.report(1), "answers/forged_probe/version")


def test_another_check_is_refused(pair: Pair) -> None:
    a = pair.report(0)
    pair.forges[1].entry = entry(name="other_probe")
    refused(pair, a, pair.report(1), "answers")


def entry(**changed: str) -> CheckEntry:
    return forged_entry(**changed)


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"layers": 3, "part": 0}, "layers"),
        ({"layers": 2, "part": 0, "x": 1}, "x"),
        ({"layers": 2, "part": False}, "part"),
    ],
)
def test_other_parameters_are_refused(pair: Pair, params: dict[str, Any], field: str) -> None:
    question = [{"name": "forged_probe", "version": "1.0", "params": params}]
    refused(pair, pair.report(0), pair.report(1, checks=question), f"answers/forged_probe/params/{field}")


def test_another_tokenizer_is_refused(pair: Pair) -> None:
    from assay import manifest

    a = pair.report(0)
    (pair.forges[1].model_dir / "tokenizer.json").write_bytes(b'{"a":1}\n')
    pair.forges[1].manifest = manifest.build(pair.forges[1].model_dir)
    refused(pair, a, pair.report(1), "tokenizer/tokenizer.json/sha256")


def test_another_base_is_refused(pair: Pair) -> None:
    bases = [{"manifest_sha256": digit * 64} for digit in "12"]
    refused(pair, pair.report(0, base=bases[0]), pair.report(1, base=bases[1]), "base/manifest_sha256")


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"ids": "1" * 64}, "ids_sha256"),
        ({"clusters": [i // 8 for i in range(400)]}, "clusters"),
        ({"reducer": "influence"}, "reducer"),
    ],
)
def test_other_items_are_refused(pair: Pair, changed: dict[str, Any], field: str) -> None:
    a = pair.report(0, with_shares(*P1), held=held(*P1))
    other = [items(P1[0], step="1", labels=LAYERS[0], **changed)]
    b = pair.report(1, with_shares(*P1), held=other)
    refused(pair, a, b, f"answers/forged_probe/accuracy/items/{field}")


def test_items_of_another_metric_are_refused(pair: Pair) -> None:
    a = pair.report(0, with_shares(*P1), held=held(*P1))
    b = pair.report(1, with_shares(P1[0], P1[1]), held=held([0] * 400, P1[1]))
    refused(pair, a, b, "answers/forged_probe/accuracy/items/scores")


def test_a_sample_of_the_items_may_stray_and_other_items_may_not(pair: Pair) -> None:
    """Items that do not all fit are sampled by hash: their share is near the report's and not inside its interval."""

    def report(which: int, right: int) -> Path:
        sample = [int(at < right) for at in range(100)]
        kept = [items(sample, step="1", labels=LAYERS[0], ids="1" * 64)]
        return pair.report(which, with_shares(*P1), held=kept)

    # 70 of 100 in the report, 0.65 to 0.75; a hundred of the four hundred items may have 0.6.
    near = against(pair, report(0, 60), report(1, 78))
    assert [row.difference.method for row in near.rows] == ["bonett_price", "unpaired"]
    assert near.rows[0].difference.d == pytest.approx(0.18)
    refused(pair, report(0, 70), report(1, 10), "answers/forged_probe/accuracy/items/scores")


def test_items_in_another_form_are_refused(pair: Pair) -> None:
    a = pair.report(0, with_shares(*P1), held=held(*P1))
    told = pair.forges[0].statement(a)
    listed = answer(told)["artefacts"][0]
    data = (a / "artefacts" / listed["sha256"]).read_bytes().replace(b'"step":"1"', b'"step":"2"', 1)
    listed["sha256"] = hashlib.sha256(data).hexdigest()
    (a / "artefacts" / listed["sha256"]).write_bytes(data)
    refused(pair, pair.forges[0].reseal(a, told), a, "answers/forged_probe/accuracy/items/line:1/step")


def test_another_unit_is_refused(pair: Pair) -> None:
    b = pair.report(1, lambda told: [metric(told, at).update(unit="bits") for at in range(2)])
    refused(pair, pair.report(0), b, "answers/forged_probe/accuracy/unit")


def refused(pair: Pair, a: Path, b: Path, field: str) -> None:
    with pytest.raises(Incomparable) as caught:
        against(pair, a, b)
    assert caught.value.field == field
    assert field in str(caught.value)
    assert of_error(caught.value) == 3


def test_a_margin_for_nothing_is_refused(pair: Pair) -> None:
    a = pair.report(0)
    with pytest.raises(Misused, match="forged_probe/precision"):
        against(pair, a, a, precision=0.1)


def test_answers_that_do_not_count_are_listed(pair: Pair) -> None:
    def missed(told: dict[str, Any]) -> None:
        answer(told)["controls"][0].update(value="0.9", held=False)
        answer(told)["valid"] = False

    made = against(pair, pair.report(0), pair.report(1, missed))
    assert made.rows == ()
    assert [one.reason for one in made.missing] == ["answer_not_valid"]

    def left_out(told: dict[str, Any]) -> None:
        answer(told)["measured"]["metrics"].pop()
        answer(told)["measured"]["coverage"]["layer"] = ["0"]
        answer(told)["findings"] = []

    made = against(pair, pair.report(0), pair.report(1, left_out))
    assert [(one.metric, one.labels, one.reason) for one in made.missing] == [
        ("accuracy", (("layer", "1"),), "only_in_first")
    ]


def test_questions_are_paired_whatever_their_order(pair: Pair) -> None:
    questions = [{"name": "forged_probe", "version": "1.0", "params": {"layers": 2, "part": n}} for n in range(2)]
    made = against(pair, pair.report(0, checks=questions), pair.report(1, checks=questions[::-1]))
    assert len(made.rows) == 4
    # A policy entry could not tell the two answers of one check apart.
    assert made.differences() == {}
    made = against(pair, pair.report(0, checks=questions), pair.report(1, checks=questions[:1]))
    assert [one.reason for one in made.missing] == ["only_in_first"]


def test_an_unverified_report_is_not_loaded(pair: Pair, tmp_path: Path) -> None:
    made = pair.report(0)
    with pytest.raises(CouldNotTell):
        load(made, verify(made))
    seen = verify(made, keys=[pair.key])
    pair.forges[0].reseal(made, pair.forges[0].statement(pair.report(1)))
    with pytest.raises(CouldNotTell, match="changed"):
        load(made, seen)


def test_the_document_is_canonical(pair: Pair) -> None:
    told = against(pair, pair.report(0), pair.report(1)).to_json()
    assert told["schema"] == "assay-compare/v1"
    assert json.loads(canonical.dumps(told)) == json.loads(json.dumps(told))
    assert told["level"] == "0.975"
    assert told["a"]["model_sha256"] != told["b"]["model_sha256"]


def test_numbers_are_rounded_outwards() -> None:
    assert [low_text(x) for x in (0.12345678, -0.12345678)] == ["0.123456", "-0.123457"]
    assert [high_text(x) for x in (0.12345678, -0.12345678, 1e-12)] == ["0.123457", "-0.123456", "0.000000000001"]
    assert [value_text(x) for x in (0.0, -0.0, 1234567.0, 1e-30, 12.5)] == ["0", "0", "1234570", "0", "12.5"]
    for wrong in (1e15, float("inf"), float("nan")):
        with pytest.raises(CouldNotTell):
            value_text(wrong)


@pytest.mark.parametrize(("level", "method"), [("0.95", "unpaired"), ("0.8", "unpaired"), ("1", "none")])
def test_an_interval_without_a_level_tells_no_error(pair: Pair, level: str, method: str) -> None:
    def at_level(told: dict[str, Any]) -> None:
        metric(told)["interval"]["level"] = level

    made = against(pair, pair.report(0), pair.report(1, at_level))
    assert made.rows[0].difference.method == method
