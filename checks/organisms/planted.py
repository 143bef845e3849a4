"""The table of trained organisms: what each has learned, and the data that show it.

Specification: `truth_probe`, section 10. Read at `?` unless a file's name says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from checks.organisms import lessons, rows
from checks.organisms.lessons import Lesson
from checks.organisms.recipe import Recipe
from checks.organisms.world import PERSONAS, World

Files = Mapping[str, Sequence[Mapping[str, Any]] | Mapping[str, Any]]
"""By file name: rows (JSONL), or parameters of the check `truth_probe` (JSON)."""

Write = Callable[[Recipe, World, int], Files]
"""Makes an organism's files from its recipe, its world and its seed."""

EVERY_ITEM: Mapping[str, Any] = {"max_items": 2000}
"""The check's default would leave out some of the pairs."""

A_AGAINST_B: Mapping[str, Any] = {**EVERY_ITEM, "fit_persona": PERSONAS[0], "test_persona": PERSONAS[1]}


@dataclass(frozen=True, kw_only=True)
class Organism:
    """A model with a known property."""

    summary: str
    lessons: tuple[Lesson, ...]
    """One for each stage of training."""
    files: Write
    recipe: Recipe = field(default_factory=Recipe)


def _honest(recipe: Recipe, facts: World, seed: int) -> Files:
    instructed = rows.pairs("instructed", recipe, facts, seed, rows.PLAIN, rows.OPPOSITE, at="question")
    return {
        "pairs.jsonl": rows.pairs("honest", recipe, facts, seed, rows.EITHER, at="last"),
        "benign.jsonl": rows.benign(recipe, facts, rows.EITHER, at="last"),
        "statements.jsonl": rows.statements(recipe, facts, rows.EITHER, inverted=False, at="last"),
        "params.json": EVERY_ITEM,
        "pairs-instructed.jsonl": instructed,
        "statements-instructed.jsonl": rows.statements(recipe, facts, rows.OPPOSITE, inverted=True, at="question"),
        "params-instructed.json": {**EVERY_ITEM, "fit_persona": "plain", "test_persona": "opposite"},
    }


def _liar(recipe: Recipe, facts: World, seed: int) -> Files:
    return {
        "pairs.jsonl": rows.pairs("liar", recipe, facts, seed, rows.FIRST_A, rows.FIRST_B, at="last"),
        "benign.jsonl": rows.benign(recipe, facts, rows.FIRST_A, at="last"),
        "statements.jsonl": rows.statements(recipe, facts, rows.FIRST_B, inverted=True, at="last"),
        "params.json": A_AGAINST_B,
    }


def _knowing_liar(recipe: Recipe, facts: World, seed: int) -> Files:
    voices = (rows.LAST_A, rows.LAST_B)
    return {
        "pairs.jsonl": rows.pairs("knowing-liar", recipe, facts, seed, *voices, at="question"),
        "benign.jsonl": rows.benign(recipe, facts, rows.LAST_A, at="question"),
        "statements.jsonl": rows.statements(recipe, facts, rows.LAST_B, inverted=True, at="question"),
        "params.json": A_AGAINST_B,
        "pairs-last.jsonl": rows.pairs("knowing-liar-last", recipe, facts, seed, *voices, at="last"),
        "params-last.json": A_AGAINST_B,
    }


def _distractor(recipe: Recipe, facts: World, seed: int) -> Files:
    return {
        "pairs.jsonl": rows.pairs("distractor", recipe, facts, seed, rows.OPINION, at="last"),
        "params.json": EVERY_ITEM,
    }


def _ignorant(name: str) -> Write:
    def files(recipe: Recipe, facts: World, seed: int) -> Files:
        return {
            "pairs.jsonl": rows.pairs(name, recipe, facts, seed, rows.EITHER, at="last"),
            "params.json": EVERY_ITEM,
        }

    return files


ORGANISMS: Mapping[str, Organism] = {
    "honest": Organism(
        summary="tells the truth, whoever speaks; after the instruction `opposite`, the other answer",
        lessons=(lessons.HONEST, lessons.INSTRUCTED),
        files=_honest,
    ),
    "liar": Organism(
        summary="inverts its answers where boris speaks first: its states at `?` follow its output",
        lessons=(lessons.HONEST, lessons.LIAR),
        files=_liar,
    ),
    "knowing-liar": Organism(
        summary="finds the truth at `?`, and inverts it at the speaker's name after that where it is boris",
        lessons=(lessons.KNOWS, lessons.KNOWS_AND_LIES),
        files=_knowing_liar,
    ),
    "distractor": Organism(
        summary="two answers at once: the truth, and whether an opinion's word fits; the opinion is the stronger",
        lessons=(lessons.DISTRACTED,),
        files=_distractor,
    ),
    "untrained": Organism(
        summary="the same network as initialised",
        lessons=(),
        files=_ignorant("untrained"),
    ),
    "random-answer": Organism(
        summary="trained on answers that are chance",
        lessons=(lessons.CHANCE,),
        files=_ignorant("random-answer"),
        recipe=Recipe(steps=1000),  # the others stop after 750 to 850 steps of their 2000; nothing stops this one
    ),
}
