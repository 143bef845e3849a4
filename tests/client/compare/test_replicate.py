"""Replications: agreement is shown, never assumed; another question is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from assay import canonical, statement
from assay.compare import text
from assay.compare.agreement import Incomparable
from assay.compare.replicate import PREDICATE_TYPE, Replication, replicate
from assay.errors import AssayError

from tests.client.compare.planted import P1, Pair, answer, items, metric, share

Alter = Callable[[dict[str, Any]], object]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    made = Pair(tmp_path)
    # A replication is of the same model.
    made.forges[1] = made.forges[0]
    return made


def judged(pair: Pair, first: Alter | None = None, second: Alter | None = None, held: Any = ()) -> Replication:
    a = pair.report(0, first, held=held)
    seed = pair.forges[0].statement(a)["predicate"]["registration"]["seed"]
    b = pair.report(1, second, held=held, seed_mode="fixed", seed=seed)
    return replicate(pair.side(a), pair.side(b))


def determined(kind: str, second: str | None = None, **fields: Any) -> Alter:
    def alter(told: dict[str, Any]) -> None:
        for at in range(2):
            metric(told, at).update(determinism=kind, interval=None, **fields)
        if second is not None:
            metric(told)["value"] = second

    return alter


def reasons(made: Replication) -> list[tuple[str, str]]:
    return [(row.word, row.reason) for row in made.rows]


def test_exact_numbers_agree_as_written(pair: Pair) -> None:
    same = determined("exact")
    made = judged(pair, same, same)
    assert made.outcome == "replicated"
    made = judged(pair, same, determined("exact", "0.513"))
    assert made.outcome == "not_replicated"
    assert reasons(made) == [("differs", "not_equal"), ("agrees", "equal"), ("agrees", "same_word")]


def test_tolerance_holds_on_the_same_machine_alone(pair: Pair) -> None:
    allowed = {"tolerance": {"abs": "0.001", "rel": "0"}}
    first, near, far = (determined("tolerance", value, **allowed) for value in ("0.512", "0.513", "0.514"))
    assert reasons(judged(pair, first, near))[0] == ("agrees", "within_tolerance")
    assert reasons(judged(pair, first, far))[0] == ("cannot_tell", "no_interval")

    def elsewhere(told: dict[str, Any]) -> None:
        near(told)
        told["predicate"]["environment"]["cpu"] = "another"

    made = judged(pair, first, elsewhere)
    assert reasons(made)[0] == ("cannot_tell", "no_interval")
    assert [(one.field, one.second) for one in made.environment] == [("environment/cpu", "another")]


def test_relative_tolerance_is_of_the_first(pair: Pair) -> None:
    allowed = {"tolerance": {"abs": "0", "rel": "0.01"}}
    first, near, far = (determined("tolerance", value, **allowed) for value in ("0.5", "0.505", "0.506"))
    assert reasons(judged(pair, first, near))[0] == ("agrees", "within_tolerance")
    assert reasons(judged(pair, first, far))[0] == ("cannot_tell", "no_interval")


def test_lack_of_a_difference_is_not_agreement(pair: Pair) -> None:
    made = judged(pair)
    assert made.outcome == "cannot_tell"
    assert reasons(made)[0] == ("cannot_tell", "unpaired_straddles_margin")
    assert made.rows[0].identical
    wide = judged(pair, *[lambda told: [metric(told, at).update(margin="0.2") for at in range(2)]] * 2)
    assert wide.outcome == "replicated"
    bare = judged(pair, *[lambda told: [metric(told, at).update(margin=None) for at in range(2)]] * 2)
    assert (bare.outcome, reasons(bare)[0]) == ("cannot_tell", ("cannot_tell", "no_margin"))


def test_a_number_outside_the_margin_differs(pair: Pair) -> None:
    moved = {"value": "0.712", "interval": {"low": "0.677", "high": "0.747", "level": "0.95", "method": "wilson"}}
    made = judged(pair, None, lambda told: metric(told).update(moved))
    assert reasons(made)[0] == ("differs", "outside_margin")
    assert made.outcome == "not_replicated"


def test_items_show_agreement_that_intervals_cannot(pair: Pair) -> None:
    def shares(told: dict[str, Any]) -> None:
        answer(told)["measured"]["metrics"] = [
            share(one, at) | {"margin": "0.03"} for one, at in zip(P1, "01", strict=True)
        ]

    held = [items(one, step="1", labels=(("layer", at),)) for one, at in zip(P1, "01", strict=True)]
    assert judged(pair, shares, shares, held).outcome == "replicated"
    assert judged(pair, shares, shares).outcome == "cannot_tell"


@pytest.mark.parametrize("gone", [0, 1])
def test_items_that_were_deleted_let_nothing_agree_or_differ(pair: Pair, gone: int) -> None:
    """The intervals alone would agree within this margin; what the items said is lost."""

    def alter(told: dict[str, Any]) -> None:
        answer(told)["measured"]["metrics"] = [share(P1[0], at) | {"margin": "0.3"} for at in "01"]

    held = [items(P1[0], step="1", labels=(("layer", "0"),))]
    a = pair.report(0, alter, held=held)
    seed = pair.forges[0].statement(a)["predicate"]["registration"]["seed"]
    b = pair.report(1, alter, held=held, seed_mode="fixed", seed=seed)
    assert reasons(replicate(pair.side(a), pair.side(b)))[0] == ("agrees", "inside_margin")
    place = (a, b)[gone]
    digest = answer(pair.forges[0].statement(place))["artefacts"][0]["sha256"]
    (place / "artefacts" / digest).unlink()
    made = replicate(pair.side(a), pair.side(b))
    assert reasons(made)[0] == ("cannot_tell", "items_absent")
    assert made.outcome == "cannot_tell"


def test_findings_have_equal_words(pair: Pair) -> None:
    same = determined("exact")

    def other_word(told: dict[str, Any]) -> None:
        same(told)
        answer(told)["findings"][0]["word"] = "not_detected"

    def none(told: dict[str, Any]) -> None:
        same(told)
        answer(told)["findings"] = []

    assert reasons(judged(pair, same, other_word))[-1] == ("differs", "other_word")
    for sides in ((same, none), (none, same)):
        made = judged(pair, *sides)
        assert reasons(made)[-1] == ("differs", "finding_missing")
        assert made.outcome == "not_replicated"


def failed(outcome: str, reason: str) -> Alter:
    def alter(told: dict[str, Any]) -> None:
        answer(told).update(outcome=outcome, valid=False, reason=reason, measured=None, controls=[], findings=[])

    return alter


def test_answers_without_numbers(pair: Pair) -> None:
    refusal, crash = failed("refused", "too_few_items"), failed("failed", "TIME_LIMIT")
    assert judged(pair, refusal, refusal).outcome == "replicated"
    assert judged(pair, crash, crash).outcome == "cannot_tell"
    assert judged(pair, None, crash).outcome == "cannot_tell"


def test_an_instance_on_one_side_cannot_be_told(pair: Pair) -> None:
    same = determined("exact")

    def fewer(told: dict[str, Any]) -> None:
        same(told)
        answer(told)["measured"]["metrics"].pop()
        answer(told)["measured"]["coverage"]["layer"] = ["0"]
        answer(told)["findings"][0]["rests_on"] = []

    assert ("cannot_tell", "only_in_first") in reasons(judged(pair, same, fewer))
    assert ("cannot_tell", "only_in_second") in reasons(judged(pair, fewer, same))


def test_another_question_is_refused(pair: Pair, tmp_path: Path) -> None:
    others = Pair(tmp_path / "other")
    first = pair.side(pair.report(0))
    cases = {
        "model/manifest_sha256": others.side(others.report(1)),
        "data/pairs/sha256": pair.side(pair.report(0, data=[{"role": "pairs", "sha256": "0" * 64}])),
        "registration/seed": pair.side(pair.report(0, nonce="1" * 64)),
    }
    question = [{"name": "forged_probe", "version": "1.0", "params": {"layers": 9}}]
    cases["answers"] = pair.side(pair.report(0, checks=question * 2))
    cases["answers/0/params"] = pair.side(pair.report(0, checks=question))
    cases["request/first"] = replace(
        first, request={"first": {"statement_sha256": "0" * 64, "bundle_sha256": "0" * 64}}
    )
    for field, second in cases.items():
        with pytest.raises(Incomparable) as refused:
            replicate(first, second)
        assert refused.value.field == field


def test_the_statement_is_a_replication_and_no_report(pair: Pair) -> None:
    same = determined("exact")
    made = judged(pair, same, same)
    told = made.statement()
    data = canonical.dumps(told)
    assert told["predicateType"] == PREDICATE_TYPE == "https://assay.example/replication/v1"
    assert told["subject"] == pair.side(pair.report(0)).statement["subject"]
    assert told["predicate"]["first"]["statement_sha256"] == made.first.statement_sha256
    assert told["predicate"]["second"]["statement_sha256"] == made.second.statement_sha256
    assert told["predicate"]["outcome"] == "replicated"
    with pytest.raises(AssayError):
        statement.parse(data)
    shown = [*text.replication(made)]
    assert shown[-1] == "replicated"
    assert any("does not name the report" in line for line in shown)
