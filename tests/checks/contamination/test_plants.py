"""Plants are found where they are said to be, and none is the probe itself."""

from __future__ import annotations

import base64
import html
import json
from collections import Counter

import numpy as np
import pytest

from checks.contamination.items import Item, Rewrite
from checks.contamination.plants import (
    COPY_WORDS,
    HOST_WORDS,
    PLACEMENTS,
    PLACES,
    WRAP_WORDS,
    Plant,
    draw_plants,
    encoded,
    expected_misses,
    planted_document,
)
from checks.contamination.rewriter import words_of

SHARDS = (1000, 50_000, 1)


def _items(count: int) -> list[Item]:
    names = ["Tom", "Emma", "Jack", "Anna"]
    return [
        Item("bench", f"i{row}", "prose", f"{names[row % 4]} buys {row + 3} big apples and {row + 5} pears in 4 hours. "
             f"Boston has {row + 2} shops. How many \"fruits\" < {row + 90} are there?")
        for row in range(count)
    ]  # fmt: skip


def _plant(text: str, placement: str, place: int) -> Plant:
    return Plant(0, "bench/i0", 0, placement, "automatic", text, 0, 0, place)


def _host(words: int) -> str:
    return " ".join(f"word{row}{'.' if row % 9 == 8 else ''}" for row in range(words))


def test_planted_is_not_a_copy_of_the_probe() -> None:
    """A self-test that hands a scanner its own probe proves nothing."""
    items = _items(60)
    questions = {item.name: item.question for item in items}
    plants = draw_plants(items, (), (), SHARDS, 0.5, np.random.default_rng(1))
    for plant in plants:
        told = planted_document(_host(HOST_WORDS), plant)
        assert told.text.strip() != questions[plant.item]
        assert words_of(told.text) != words_of(questions[plant.item])
        if plant.depth == 1:
            assert plant.text != questions[plant.item]
        if plant.depth >= 2:
            assert words_of(plant.text) != words_of(questions[plant.item])
            assert questions[plant.item] not in told.text
    assert {plant.depth for plant in plants} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("placement", sorted(set(PLACEMENTS)))
@pytest.mark.parametrize("place", [0, 4321, PLACES - 1])
def test_the_span_holds_the_plant_and_the_host_is_a_copy(placement: str, place: int) -> None:
    text, host = _items(1)[0].question, _host(300)
    told = planted_document(host, _plant(text, placement, place))
    span = told.text[told.begin : told.end]
    if placement == "json":
        assert json.loads(span)["text"] == text
    elif placement == "html":
        assert html.unescape(span.removeprefix("<div><p>").removesuffix("</p></div>")) == text
    else:
        assert span.split() == text.split()
    if placement == "wrapped":
        assert max(len(line.split()) for line in span.split("\n")) == WRAP_WORDS
    rest = (told.text[: told.begin] + told.text[told.end :]).split()
    assert rest == (["Question:"] if placement == "alone" else host.split())
    if placement == "inline":
        assert told.text[: told.begin].rstrip()[-1] not in ".!?"
        assert "\n" not in told.text


def test_a_long_host_is_copied_around_the_plant() -> None:
    host = _host(5000)
    for place in (0, 5000, PLACES - 1):
        told = planted_document(host, _plant("a b c d e", "paragraph", place))
        kept = (told.text[: told.begin] + told.text[told.end :]).split()
        assert len(kept) == COPY_WORDS
        first = int(kept[0].strip("word."))
        assert kept == host.split()[first : first + COPY_WORDS]
        assert first <= place * 5000 // PLACES < first + COPY_WORDS
    assert planted_document("", _plant("a b", "paragraph", 3)).text.strip() == "a b"


def test_an_unknown_placement_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown"):
        encoded("a", "margin")


def test_no_share_no_plant_and_no_byte_is_refused() -> None:
    rewrites = (Rewrite("bench", "i0", "other words", 5),)
    assert draw_plants(_items(50), rewrites, (), SHARDS, 0.0, np.random.default_rng(2)) == ()
    with pytest.raises(ValueError, match="no byte"):
        draw_plants(_items(50), rewrites, (), (0,), 0.05, np.random.default_rng(2))


@pytest.mark.parametrize(("items", "share", "planted"), [(30, 0.05, 30), (100, 0.05, 40), (3000, 0.2, 400)])
def test_so_many_items_are_planted(items: int, share: float, planted: int) -> None:
    plants = draw_plants(_items(items), (), (), SHARDS, share, np.random.default_rng(3))
    assert len({plant.item for plant in plants}) == planted
    assert len(plants) == 2 * planted
    assert Counter(plant.depth < 2 for plant in plants) == {True: planted, False: planted}


def test_placements_come_in_their_tenths_and_hosts_by_byte() -> None:
    plants = draw_plants(_items(3000), (), (), SHARDS, 0.2, np.random.default_rng(4))
    assert [plant.plant for plant in plants] == list(range(len(plants)))
    for depth in (0, 1):
        told = Counter(plant.placement for plant in plants if plant.depth == depth)
        assert told == {name: 20 * PLACEMENTS.count(name) for name in set(PLACEMENTS)}
    assert all(0 <= plant.offset < SHARDS[plant.shard] and 0 <= plant.place < PLACES for plant in plants)
    assert 0.96 < np.mean([plant.shard == 1 for plant in plants]) < 1  # 50 000 of 51 001 bytes


def test_the_auditors_rewrites_come_first_and_take_no_automatic_one_away() -> None:
    rewrites = [Rewrite("bench", f"i{row}", f"reworded {row} times", 5) for row in range(7)]
    authored = [("families/f1", "another text")]
    plants = draw_plants(_items(60), rewrites, authored, SHARDS, 0.5, np.random.default_rng(5))
    assert [plant.source for plant in plants[:7]] == ["rewrites"] * 7
    assert plants[-1].source == "authored"
    assert plants[-1].depth == 5
    without = draw_plants(_items(60), (), authored, SHARDS, 0.5, np.random.default_rng(5))
    texts = [[(one.item, one.text) for one in told if one.source == "automatic"] for told in (plants, without)]
    assert texts[0] == texts[1]
    assert {plant.depth for plant in plants if plant.source == "automatic"} >= {0, 1, 2}


def test_choice_items_keep_their_options_and_code_its_layout() -> None:
    choice = Item("b", "c", "choice", "Which of 4 big cities is it?", choices=("Rome", "Oslo"))
    code = Item("b", "d", "code", "Add numbers.", language="python", entry="f", reference="def f(a):\n    return a")
    plants = draw_plants([choice, code], (), (), SHARDS, 0.5, np.random.default_rng(6))
    told = {(plant.item, plant.depth > 1): plant for plant in plants}
    assert all(plant.text.endswith("\nA) Rome\nB) Oslo") for plant in plants if plant.item == "b/c")
    assert told[("b/d", False)].text == "Add numbers.\n\n```python\ndef f(a):\n    return a\n```"
    assert told[("b/d", False)].placement == "paragraph"
    assert ("b/d", True) not in told


def test_expected_misses_are_what_they_say() -> None:
    items = _items(9)
    questions = {item.name: item.question for item in items}
    plants = expected_misses(items, SHARDS, np.random.default_rng(7), 100)
    assert Counter(plant.source for plant in plants) == {"base64": 5, "reversed": 5, "french": 5}
    assert [plant.plant for plant in plants] == list(range(100, 115))
    for plant in plants:
        question = questions[plant.item]
        match plant.source:
            case "base64":
                assert base64.b64decode(plant.text).decode() == question
            case "reversed":
                assert plant.text.split()[::-1] == question.split()
            case _:
                assert "combien beaucoup" in plant.text.casefold()


def test_the_same_stream_plants_the_same() -> None:
    first, second = (draw_plants(_items(50), (), (), SHARDS, 0.5, np.random.default_rng(8)) for _ in range(2))
    assert first == second
