"""Rows of the role `pairs`: what is refused, by line, and what a row is made into."""

from __future__ import annotations

from typing import Any

import pytest

from checks.check import Refusal
from checks.truth_probe.pairs import digest, folded, joined_clusters, read_pairs
from checks.truth_probe.roles import read_benign
from tests.checks.truth_probe.planting import rows_of


def row(**changed: Any) -> dict[str, Any]:
    return {**rows_of([1], [None])[0], **changed}


def without(name: str, of: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in of.items() if key != name}


def answer_row(**changed: Any) -> dict[str, Any]:
    base = without("pos", without("neg", row(form="answer")))
    return {**base, "prompt": "Is it so? ", "answer_pos": "Yes", "answer_neg": "No", **changed}


@pytest.mark.parametrize(
    ("bad", "item"),
    [
        (row(colour="red"), "line:1:colour:unknown"),
        (row(**{"a b<>": 1}), "line:1:a_b__:unknown"),
        *((without(name, row()), f"line:1:{name}:missing") for name in row() if name != "split"),
        *((without(name, answer_row()), f"line:1:{name}:missing") for name in ("prompt", "answer_pos", "answer_neg")),
        *((row(**{name: 7}), f"line:1:{name}:not_text") for name in ("id", "item", "cluster", "set", "template")),
        (row(pos=""), "line:1:pos:not_text"),
        (row(neg="half a pair: \ud83d"), "line:1:neg:not_text"),
        (answer_row(prompt=""), "line:1:prompt:not_text"),
        (answer_row(answer_neg=None), "line:1:answer_neg:not_text"),
        (row(label=2), "line:1:label:not_1_0_null"),
        (row(label=True), "line:1:label:not_1_0_null"),
        (row(label=1.0), "line:1:label:not_1_0_null"),
        (row(label=[1]), "line:1:label:not_1_0_null"),
        (row(polarity="double"), "line:1:polarity:unknown_word"),
        (row(split="dev"), "line:1:split:unknown_word"),
        (row(form="question"), "line:1:form:not_answer_or_statement"),
        (row(form=["answer"]), "line:1:form:not_answer_or_statement"),
        (row(persona=3), "line:1:persona:not_text"),
        (row(persona=""), "line:1:persona:not_text"),
        (answer_row(pos="x"), "line:1:pos:unknown"),
        (answer_row(yes="Yes"), "line:1:yes:unknown"),
        (row(set="benign"), "line:1:set:reserved"),
        (row(set="statements/more"), "line:1:set:reserved"),
        (row(id="p0/battery/word"), "line:1:id:reserved"),
    ],
)
def test_a_bad_row_is_named_by_line_and_field(bad: dict[str, Any], item: str) -> None:
    with pytest.raises(Refusal) as told:
        read_pairs([bad])
    assert told.value.reason == "role_invalid"
    assert item in told.value.items


@pytest.mark.parametrize(
    ("asked", "item"),
    [
        ({"yes": "Yes"}, "line:1:yes:without_no"),
        ({"no": "No"}, "line:1:no:without_yes"),
        ({"yes": "", "no": "No"}, "line:1:yes:not_text"),
        ({"yes": "Yes", "no": None}, "line:1:no:not_text"),
    ],
)
def test_an_answer_that_cannot_be_scored_is_no_silence(asked: dict[str, Any], item: str) -> None:
    with pytest.raises(Refusal) as told:
        read_pairs([row(**asked)])
    assert told.value.items == (item, "total:1")


@pytest.mark.parametrize(
    ("features", "item"),
    [
        ({"topic": 2}, "features:not_0_or_1"),
        ({"topic": True}, "features:not_0_or_1"),
        ({"topic": None}, "features:not_0_or_1"),
        ([1], "features:not_0_or_1"),
        ({f"f{number}": 1 for number in range(9)}, "features:too_many"),
        ({"larger first": 1}, "features:name_outside_alphabet"),
        ({"": 1}, "features:name_outside_alphabet"),
        ({"-x": 1}, "features:name_outside_alphabet"),
        ({"topic\n": 1}, "features:name_outside_alphabet"),
        ({"battery": 1}, "features:name_reserved"),
        ({"battery.word": 1}, "features:name_reserved"),
    ],
)
def test_a_feature_that_the_report_could_not_name_is_refused(features: Any, item: str) -> None:
    with pytest.raises(Refusal) as told:
        read_pairs([row(features=features)])
    assert told.value.items == (f"line:1:{item}", "total:1")


@pytest.mark.parametrize("read_at", ["first", [1], [1, 2, 3], True, [1, True], 1.5, None])
def test_a_read_position_of_another_type_is_refused(read_at: Any) -> None:
    with pytest.raises(Refusal, match="line:1:read_at:not_last_or_integers"):
        read_pairs([row(read_at=read_at)])


@pytest.mark.parametrize("read_at", [1000, 0, -1, [1, 1000], [0, 1]])
def test_a_read_position_outside_the_text_is_refused(read_at: Any) -> None:
    with pytest.raises(Refusal, match="line:1:read_at:outside_the_text"):
        read_pairs([row(read_at=read_at)])


def test_duplicate_ids_and_the_total_are_told() -> None:
    with pytest.raises(Refusal) as told:
        read_pairs([row()] * 40)
    assert told.value.items[0] == "line:2:id:duplicate"
    assert told.value.items[-1] == "total:39"
    assert len(told.value.items) == 21


def test_an_id_is_unique_over_sets_and_so_is_what_texts_are_called_by() -> None:
    with pytest.raises(Refusal, match="line:2:id:duplicate"):
        read_pairs([row(set="a"), row(set="b")])
    with pytest.raises(Refusal, match="line:2:id:duplicate"):
        read_pairs([row(set="a/b", id="c"), row(set="a", id="b/c")])


def test_forms_make_their_texts() -> None:
    pair = read_pairs([answer_row(read_at=12)])[0]
    assert (pair.pos, pair.neg) == ("Is it so? Yes", "Is it so? No")
    assert (pair.prompt, pair.answers, pair.asks) == ("Is it so? ", ("Yes", "No"), None)
    assert [text.read_at for text in pair.texts()] == [12, 12]
    assert [text.read_at for text in read_pairs([row(read_at=[3, 5])])[0].texts()] == [3, 5]
    said = read_pairs([row(yes="y", no="n", persona="A", features={"topic": 1})])[0]
    assert [text.read_at for text in said.texts()] == [None, None]
    assert (said.form, said.prompt, said.answers, said.asks) == ("statement", None, None, ("y", "n"))
    assert (said.persona, said.features) == ("A", {"topic": 1})


def test_truth_is_told_of_the_branch_that_was_asked() -> None:
    of = {label: read_pairs([row(label=label)])[0] for label in (1, 0, None)}
    assert [of[label].truth("pos") for label in (1, 0, None)] == [1, 0, None]
    assert [of[label].truth("neg") for label in (1, 0, None)] == [0, 1, None]


def test_answers_are_scored_after_the_prompt_and_yes_and_no_after_each_text() -> None:
    answered = read_pairs([answer_row()])[0].continuations()
    assert [(c.id, c.after, c.text) for c in answered] == [
        ("planted/p0/answer_pos", "Is it so? ", "Yes"),
        ("planted/p0/answer_neg", "Is it so? ", "No"),
    ]
    asked = read_pairs([row(pos="A is.", neg="A is not.", yes=" yes", no=" no")])[0].continuations()
    assert [(c.id, c.after, c.text) for c in asked] == [
        ("planted/p0/pos/yes", "A is.", " yes"),
        ("planted/p0/pos/no", "A is.", " no"),
        ("planted/p0/neg/yes", "A is not.", " yes"),
        ("planted/p0/neg/no", "A is not.", " no"),
    ]
    assert read_pairs([row()])[0].continuations() == ()


def test_no_two_things_that_are_asked_share_an_id() -> None:
    # Ids are free text: one pair's may look like the end of another's.
    named = ("x", "x/pos", "x/pos/yes", "x/neg", "x/answer_pos")
    pairs = read_pairs([row(id=name, item=name, yes="y", no="n") for name in named])
    benign = read_benign([{"id": "planted/x/pos", "cluster": "c", "text": "Hello."}])
    ids = [text.id for pair in pairs for text in pair.texts()] + [benign[0].text().id]
    ids += [answer.id for pair in pairs for answer in pair.continuations()]
    assert len(set(ids)) == len(ids)
    assert pairs[1].key == "planted/x/pos"


def test_duplicates_force_clusters_into_one() -> None:
    rows = rows_of([1] * 6, [None] * 6, per_cluster=2)
    rows[0]["pos"] = "  \uff2e\uff35\uff2d\uff22\uff25\uff32 4 is\tNOT so."  # row 4's, full-width and shouted
    clusters = joined_clusters(read_pairs(rows))
    assert clusters == ("c0", "c0", "c1", "c1", "c0", "c0")
    assert folded("\ufb01ne  Stra\u00dfe ") == "fine strasse"


def test_an_item_in_two_clusters_makes_them_one() -> None:
    rows = rows_of([1] * 4, [None] * 4)
    rows[3]["item"] = rows[1]["item"]
    assert joined_clusters(read_pairs(rows)) == ("c0", "c1", "c2", "c1")
    assert joined_clusters(read_pairs(rows[::-1])) == ("c1", "c2", "c1", "c0")


def test_an_item_is_never_taken_for_a_text() -> None:
    rows = rows_of([1] * 2, [None] * 2)
    rows[1]["item"] = folded(rows[0]["pos"])
    assert joined_clusters(read_pairs(rows)) == ("c0", "c1")


def test_the_order_hangs_on_the_seed_and_on_nothing_else() -> None:
    names = [f"c{number}" for number in range(50)]
    orders = [sorted(names, key=lambda name: digest(name, seed)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != names
