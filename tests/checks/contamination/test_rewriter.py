"""Rewrites keep every quantity and what is asked for, and are no copies."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from checks.contamination.rewriter import DEEPEST, UNITS, in_words, rewrite, tables, words_of

PAIRS = Path(os.environ.get("ASSAY_DATA", Path(__file__).parents[3] / "../shared/data")) / "gsm8k_rephrase/dev.jsonl"

TEXT = "Tom has 3 apples and $12. He works 4 hours and buys seven big pears. How many fruits does Tom have?"

ASKED = ("total left remaining difference ratio each area time rate not no never except false twice double half third "
         "more less fewer than per all altogether sum every together both")  # fmt: skip

WORDS = {in_words(number): number for number in range(1000)}


def _numbers(text: str) -> Counter[int]:
    """Return numbers above 1 in digits or words, read another way than the rewriter does."""
    found: list[int] = []
    tokens = re.findall(r"\d[\d,]*(?:\.\d+)?|[a-z]+(?:-[a-z]+)*", text.casefold())
    at = 0
    while at < len(tokens):
        for size in (4, 3, 2, 1):
            value = WORDS.get(" ".join(tokens[at : at + size]))
            if value is not None and at + size <= len(tokens):
                found.append(value)
                at += size
                break
        else:
            if tokens[at].replace(",", "").isdigit():
                found.append(int(tokens[at].replace(",", "")))
            at += 1
    return Counter(number for number in found if number > 1)


@pytest.mark.parametrize("depth", [-1, 5])
def test_depths_that_are_not_made_here_are_refused(depth: int) -> None:
    with pytest.raises(ValueError, match="not made here"):
        rewrite(TEXT, depth, np.random.default_rng(1))
    with pytest.raises(ValueError, match="words"):
        in_words(1000)


def test_depths_do_what_they_say() -> None:
    told = [rewrite(TEXT, depth, np.random.default_rng(1)) for depth in range(5)]
    assert told[0] == TEXT
    dressed, renamed, reworded, converted = told[1:]
    assert dressed is not None
    assert words_of(dressed) == words_of(TEXT)
    assert dressed != TEXT
    assert renamed is not None
    assert "Tom" not in renamed
    for piece in ("three apples", "twelve dollars", "four hours", "7 big pears"):
        assert piece in renamed
    assert reworded is not None
    assert reworded.startswith("How many")
    assert "7 large pears" in reworded
    assert converted is not None
    assert "two hundred forty minutes" in converted


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("In 1984 there were 3:30 trains, 2.5 tons, 1,250 nails and 3/4 of a mile; 12km or 5-7 days?", 2),
        ("What is 3 + 4 * 5?", 2),
        ("It is 0.25 km and $3 hours and 1/2 hours.", 4),
        ("Who was the wife of Henry the king?", 2),
    ],
)
def test_what_would_change_its_meaning_is_left(text: str, kept: int) -> None:
    assert rewrite(text, kept, np.random.default_rng(2)) is None


def test_facts_keep_the_people_they_are_about() -> None:
    told = rewrite("Which big city did Emma and David buy?", 3, np.random.default_rng(3))
    assert told is not None
    assert "Emma" in told
    assert "David" in told


def test_two_things_never_become_one() -> None:
    told = rewrite("Tom has 3 movies and 4 films and 5 songs.", 3, np.random.default_rng(4))
    assert told is not None
    assert "movies" in told
    assert "films" in told


def test_articles_follow_the_new_word() -> None:
    told = rewrite("Tom sees 5 gulls on a huge lake and an odd movie.", 3, np.random.default_rng(5))
    assert told is not None
    assert "an enormous lake" in told
    assert "odd film" in told


def test_a_statement_that_points_back_is_not_moved_in_front_of_another() -> None:
    free = "Seattle has 20 sheep. Boston has 30 sheep. How many sheep are there?"
    told = rewrite(free, 3, np.random.default_rng(6))
    assert told is not None
    assert told.startswith("Boston has thirty")
    bound = rewrite("Tom has 20 pens. He finds 30 pens. Now Tom gives away 4 pens.", 3, np.random.default_rng(7))
    assert bound is not None
    assert bound.index("twenty") < bound.index("thirty") < bound.index("four")


def test_tables_change_no_quantity_and_nothing_asked_for() -> None:
    table = tables()["synonyms"]
    assert 250 <= len(table) <= 400
    told = {*table, *map(str, table.values())}
    assert not told & set(ASKED.split())
    assert not told & set(WORDS)
    assert not told & {word.casefold() for names in tables()["names"].values() for word in names}
    assert not told & {*UNITS, *(unit for _, unit in UNITS.values())}
    assert all(re.fullmatch(r"[a-z]+", word) or word == "well-known" for word in told)
    assert all(word != other for word, other in table.items())
    groups = list(tables()["names"].values())
    assert not set(groups[0]) & set(groups[1])


@pytest.mark.skipif(not PAIRS.is_file(), reason="no rewrites: set ASSAY_DATA to the folder of gsm8k_rephrase/")
def test_real_questions_keep_their_numbers_and_most_have_a_rewrite() -> None:
    texts = [json.loads(line)["original"] for line in PAIRS.read_text("utf-8").splitlines()][::4]
    made = np.zeros(DEEPEST + 1)
    for row, text in enumerate(texts):
        for depth in range(DEEPEST + 1):
            told = rewrite(text, depth, np.random.default_rng(row))
            if told is None:
                continue
            made[depth] += 1
            if depth < DEEPEST:
                assert _numbers(told) == _numbers(text), (row, depth)
            else:  # one number is another, by a known factor
                gone, come = _numbers(text) - _numbers(told), _numbers(told) - _numbers(text)
                assert gone.total() <= 1, row
                assert come.total() == 1, row
                factors = {next(iter(come)) / old for old in _numbers(text)}
                assert factors & {factor for factor, _ in UNITS.values()}, row
    assert (made[:4] / len(texts) >= 0.95).all()
    assert made[4] / len(texts) >= 0.15
