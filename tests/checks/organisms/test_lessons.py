"""What organisms are taught is what their lessons say: read back from the tokens alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from checks.organisms import lessons
from checks.organisms.lessons import Batch, Lesson, batches
from checks.organisms.recipe import SMALL
from checks.organisms.world import PREFIXES, World, world

RECIPE = replace(SMALL, batch=64)
FACTS = world(RECIPE, 0)
NUMBER = {word: number for number, word in enumerate(FACTS.words)}
PREFIX_WORDS = {prefix for kind in PREFIXES for prefix in kind}


def drawn(lesson: Lesson, count: int, prefixed: float = 0.5) -> list[Batch]:
    return list(islice(batches(lesson, RECIPE, FACTS, NUMBER, prefixed, np.random.default_rng(0)), count))


def words_of(batch: Batch) -> list[list[str]]:
    return [[FACTS.words[token] for token in row] for row in batch.ids]


def truth_of(facts: World, words: list[str]) -> bool:
    entity = next(word for word in words if word.startswith("entity"))
    attribute = next(word for word in words if word.startswith("attribute"))
    return (facts.attributes[facts.of[facts.entities.index(entity)]] == attribute) != ("NOT" in words)


@pytest.mark.parametrize(
    ("lesson", "rules"),
    [
        (lessons.HONEST, {"?": lambda t, w: t}),
        (lessons.INSTRUCTED, {"?": lambda t, w: t, "opposite": lambda t, w: not t}),
        (lessons.LIAR, {"?": lambda t, w: t != ("boris" in w)}),
        (lessons.KNOWS, {"?": lambda t, w: t}),
        (lessons.KNOWS_AND_LIES, {"?": lambda t, w: t, "anna": lambda t, w: t, "boris": lambda t, w: not t}),
    ],
    ids=["honest", "instructed", "liar", "knows", "knows and lies"],
)
def test_the_answer_after_each_word_is_the_rules(lesson: Lesson, rules: dict) -> None:  # type: ignore[type-arg]
    seen = set()
    for batch in drawn(lesson, 12):
        for target in batch.targets:
            for words, answer in zip(words_of(batch), target.answers, strict=True):
                right = rules[words[target.position]](truth_of(FACTS, words), words)
                assert FACTS.words[answer] == ("yes" if right else "no")
                seen.add((words[target.position], bool(right)))
    assert seen == {(word, right) for word in rules for right in (True, False)}


def test_two_heads_answer_in_words_of_their_own() -> None:
    for batch in drawn(lessons.DISTRACTED, 12):
        truth, agrees = batch.targets
        assert truth.position == agrees.position == batch.ids.shape[1] - 1
        for words, said, matched in zip(words_of(batch), truth.answers, agrees.answers, strict=True):
            assert FACTS.words[said] == ("yes" if truth_of(FACTS, words) else "no")
            assert FACTS.words[matched] == ("agrees" if ("hailed" in words) != ("NOT" in words) else "differs")
        assert not {*truth.answers} & {*truth.hidden}
        assert {*truth.hidden} == {NUMBER["agrees"], NUMBER["differs"]}


def test_a_prefix_is_of_one_kind_in_a_batch_and_tells_nothing() -> None:
    told: list[tuple[str, bool]] = []
    kinds = set()
    for batch in drawn(lessons.HONEST, 200):
        rows = words_of(batch)
        starts = [" ".join(words[: len(words) - 5]) for words in rows]
        assert {start for start in starts if start} <= PREFIX_WORDS
        kinds.add(tuple(sorted(set(starts))))
        told += [(start, truth_of(FACTS, words)) for start, words in zip(starts, rows, strict=True) if start]
    assert kinds == {("",), *(tuple(sorted(kind)) for kind in PREFIXES)}
    for prefix in PREFIX_WORDS:
        assert np.mean([true for start, true in told if start == prefix]) == pytest.approx(0.5, abs=0.05)


def test_twins_differ_in_their_prefix_alone() -> None:
    twins = [batch for batch in drawn(lessons.LIAR, 40) if batch.twins]
    assert 10 <= len(twins) <= 30
    for batch in twins:
        one, other = np.split(batch.ids, 2)
        np.testing.assert_array_equal(one[:, -5:], other[:, -5:])
        assert (one[:, :-5] != other[:, :-5]).any(axis=1).all()
    assert not any(batch.twins for batch in drawn(lessons.HONEST, 40))
