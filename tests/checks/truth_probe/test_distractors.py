"""Built-in distractors: no kind that the model cannot see, no coin that knows the label, no row that was not asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from checks.check import Text
from checks.truth_probe import distractors
from checks.truth_probe.distractors import BATTERY, Variant, battery, chosen, coin, variant
from checks.truth_probe.pairs import Pair, digest, read_pairs
from checks.truth_probe.splits import Plan, plans
from tests.checks.truth_probe.planting import rows_of


def planned(count: int = 500, *, extra: Sequence[dict[str, Any]] = (), reverse: bool = False, seed: int = 0) -> Plan:
    rows = [*rows_of([number % 2 for number in range(count)], [None] * count), *extra]
    rows = rows[::-1] if reverse else rows
    made = plans(read_pairs(rows), max_items=5000, anchors_k=16, seed=seed)["planted"]
    assert isinstance(made, Plan)
    return made


def pair(**changed: Any) -> Pair:
    return read_pairs([{**rows_of([1], [None])[0], "pos": "Rome is old.", "neg": "Rome is new.", **changed}])[0]


def run_numbers(variants: Sequence[Variant], known: set[str]) -> dict[str, int]:
    """Return the number of each text's tokens to a word-level tokenizer that writes other words as unknown."""
    tokens: dict[tuple[str, ...], int] = {}
    return {
        text.id: tokens.setdefault(
            tuple(word if word in known or word[0].isdigit() else "?" for word in text.text.split()), len(tokens)
        )
        for one in variants
        for text in one.texts
    }


EVERY_WORD = {"Lantern.", "Pebble.", "Robin", "agrees:", "rejects:", "Note:", "Hint:", "Number", "is", "not", "so."}


@pytest.mark.parametrize(
    ("unknown", "seen"),
    [
        (set(), set(BATTERY)),
        ({"Lantern.", "Pebble."}, {"opinion", "style"}),
        ({"Lantern."}, set(BATTERY)),
        ({"agrees:", "rejects:"}, {"word", "style"}),
        ({"Note:", "Hint:", "Robin"}, {"word", "opinion"}),
        (EVERY_WORD, set()),
    ],
)
def test_a_distractor_that_tokenises_away_is_not_tested(unknown: set[str], seen: set[str]) -> None:
    variants = battery(planned(), 0)
    assert distractors.testable(variants, run_numbers(variants, EVERY_WORD - unknown)) == seen


def test_a_distractor_that_one_text_swallows_is_not_tested() -> None:
    variants = battery(planned(), 0)
    runs = run_numbers(variants, EVERY_WORD)
    other = next(one for one in variants if one.use == "contrast" and one.kind == "style")
    drawn = next(one for one in variants if one.use == "frozen" and (one.kind, one.row) == ("style", other.row))
    runs[other.texts[1].id] = runs[drawn.texts[1].id]
    assert distractors.testable(variants, runs) == {"word", "opinion"}


def test_a_distractor_of_which_nothing_ran_is_not_tested() -> None:
    variants = battery(planned(), 0)
    runs = run_numbers(variants, EVERY_WORD)
    assert distractors.testable(variants, {}) == frozenset()
    lost = {text.id for one in variants if one.use == "contrast" and one.kind == "word" for text in one.texts}
    assert distractors.testable(variants, {k: v for k, v in runs.items() if k not in lost}) == {"opinion", "style"}
    assert distractors.testable(battery(planned(), 0, contrast=0), runs) == frozenset()


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(KeyError):
        variant(pair(), "rumour", 1)


@pytest.mark.parametrize(
    ("kind", "h", "pos", "neg"),
    [
        ("word", 1, "Lantern. Rome is old.", "Lantern. Rome is new."),
        ("word", 0, "Pebble. Rome is old.", "Pebble. Rome is new."),
        ("opinion", 1, "Robin agrees: Rome is old.", "Robin rejects: Rome is new."),
        ("opinion", 0, "Robin rejects: Rome is old.", "Robin agrees: Rome is new."),
        ("style", 1, "Note: Rome is old.", "Hint: Rome is new."),
        ("style", 0, "Hint: Rome is old.", "Note: Rome is new."),
    ],
)
def test_variants_begin_as_the_specification_says(kind: str, h: int, pos: str, neg: str) -> None:
    assert variant(pair(), kind, h) == (
        Text(id=f"planted/p0/battery/{kind}/pos", text=pos),
        Text(id=f"planted/p0/battery/{kind}/neg", text=neg),
    )


@pytest.mark.parametrize("kind", BATTERY)
@pytest.mark.parametrize("h", [0, 1])
def test_the_state_is_read_after_the_same_characters(kind: str, h: int) -> None:
    plain = pair(read_at=[4, 7])
    for before, after in zip(plain.texts(), variant(plain, kind, h), strict=True):
        assert before.read_at is not None
        assert after.read_at is not None
        assert after.text[after.read_at :] == before.text[before.read_at :]
        assert after.text[: after.read_at].endswith(" " + before.text[: before.read_at])
    assert [text.read_at for text in variant(pair(), kind, h)] == [None, None]


def test_in_answer_form_the_prompt_is_distracted() -> None:
    row = {key: value for key, value in rows_of([1], [None])[0].items() if key not in ("pos", "neg")}
    row |= {"form": "answer", "prompt": "Is it so? ", "answer_pos": "Yes", "answer_neg": "No", "read_at": 9}
    texts = variant(read_pairs([row])[0], "opinion", 0)
    assert [text.text for text in texts] == ["Robin rejects: Is it so? Yes", "Robin agrees: Is it so? No"]
    assert [text.text[: text.read_at] for text in texts] == ["Robin rejects: Is it so?", "Robin agrees: Is it so?"]


def test_coins_know_neither_label_nor_file_order_nor_one_another() -> None:
    keys = [f"planted/p{number}" for number in range(2000)]
    tosses = {kind: [coin(key, kind, 0) for key in keys] for kind in BATTERY}
    for kind in BATTERY:
        # Of 2000 fair tosses, 1000 +- 22.4; four standard errors.
        assert abs(sum(tosses[kind]) - 1000) < 90
        assert abs(sum(toss == number % 2 for number, toss in enumerate(tosses[kind])) - 1000) < 90
        assert abs(sum(a == coin(key, kind, 1) for a, key in zip(tosses[kind], keys, strict=True)) - 1000) < 90
    for one, two in (("word", "opinion"), ("opinion", "style"), ("word", "style")):
        assert abs(sum(a == b for a, b in zip(tosses[one], tosses[two], strict=True)) - 1000) < 90
    plan, turned = planned(), planned(reverse=True)
    said = {one.texts[0].id: one.h for one in battery(plan, 0)}
    assert said == {one.texts[0].id: one.h for one in battery(turned, 0)}


def extra_rows() -> list[dict[str, Any]]:
    """Return a second template of every item, and a negation of each."""
    plain = rows_of([number % 2 for number in range(500)], [None] * 500)
    more = []
    for row in plain:
        more.append({**row, "id": row["id"] + "u", "template": "u", "pos": row["pos"] + "!", "neg": row["neg"] + "!"})
        more.append(
            {**row, "id": row["id"] + "n", "polarity": "negated", "pos": row["pos"] + "?", "neg": row["neg"] + "?"}
        )
    return more


@pytest.mark.parametrize("split", ["train", "test"])
def test_distracted_rows_are_main_labelled_and_one_an_item(split: Any) -> None:
    plan = planned(extra=extra_rows())
    every = chosen(plan, split, 10_000)
    items = [plan.pairs[row].item for row in every]
    assert items == sorted(set(items), key=lambda item: digest(item, 0))
    assert {(plan.kinds[row], plan.splits[row]) for row in every} == {("main", split)}
    assert len(every) == len({p.item for p, s in zip(plan.pairs, plan.splits, strict=True) if s == split})
    assert Counter(plan.pairs[row].template for row in every).keys() == {"t", "u"}
    assert chosen(plan, split, 30) == every[:30]
    turned = planned(extra=extra_rows(), reverse=True)
    assert [turned.pairs[row].id for row in chosen(turned, split, 30)] == [plan.pairs[row].id for row in every[:30]]


def test_unlabelled_rows_are_not_distracted() -> None:
    rows = rows_of([number % 2 if number % 3 else None for number in range(60)], ["test"] * 60)
    plan = plans(read_pairs(rows), max_items=1000, anchors_k=16, seed=0)["planted"]
    assert isinstance(plan, Plan)
    assert len(chosen(plan, "test", 1000)) == 40
    assert chosen(plan, "train", 1000) == ()


def test_the_battery_is_as_large_as_declared_and_says_which_row_it_came_from() -> None:
    plan = planned(1200)
    variants = battery(plan, 0)
    assert Counter((one.kind, one.use) for one in variants) == {
        (kind, use): count for kind in BATTERY for use, count in (("frozen", 400), ("refit", 200), ("contrast", 8))
    }
    ids = [text.id for one in variants for text in one.texts]
    ids += [text.id for one in plan.pairs for text in one.texts()]
    assert len(set(ids)) == len(ids)
    for one in variants:
        original = plan.pairs[one.row].texts()
        assert all(new.text.endswith(f" {old.text}") for new, old in zip(one.texts, original, strict=True))
        assert plan.splits[one.row] == ("train" if one.use == "refit" else "test")


def test_contrasts_are_the_side_that_did_not_fall() -> None:
    plan = planned()
    variants = battery(plan, 3)
    drawn = {(one.row, one.kind): one.h for one in variants if one.use != "contrast"}
    contrasts = [one for one in variants if one.use == "contrast"]
    assert all(drawn[one.row, one.kind] == 1 - one.h for one in contrasts)
    assert all(drawn[one.row, one.kind] == coin(plan.pairs[one.row].key, one.kind, 3) for one in contrasts)
