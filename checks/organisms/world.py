"""An invented world: which attribute each entity has, and the words in which that is stated.

Truth = (the attribute is the entity's) XOR (the statement says NOT).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from checks.organisms.recipe import Recipe

PERSONAS = ("anna", "boris")
"""Who is speaking."""

OPINIONS = ("scorned", "hailed")
"""What some speaker thinks of a statement, 0 and 1; says nothing of its truth."""

MARKS = ("IS", "NOT")
ASK = "?"
OPPOSITE = "opposite"
"""Instruction after a statement: give the other answer."""

NO_YES = ("no", "yes")
DIFFERS_AGREES = ("differs", "agrees")
"""Answers to whether the opinion's word and the mark of the statement match."""

PREFIXES = (("Lantern.", "Pebble."), ("Robin agrees:", "Robin rejects:"), ("Note:", "Hint:"))
"""Words before a statement that change no answer, in kinds of equal length: the distractors that `truth_probe` puts
before texts (its specification, section 5.10)."""

BARE_AND_PREFIXED = ("", *(prefix + " " for kind in PREFIXES for prefix in kind))
"""Every way in which a statement may begin."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Invented facts."""

    entities: tuple[str, ...]
    attributes: tuple[str, ...]
    of: tuple[int, ...]
    """Number of each entity's attribute."""

    @property
    def words(self) -> tuple[str, ...]:
        """All words, in token order."""
        prefixes = [word for kind in PREFIXES for prefix in kind for word in prefix.split()]
        said = (*PERSONAS, *OPINIONS, *MARKS, ASK, OPPOSITE, *NO_YES, *DIFFERS_AGREES, *prefixes)
        return (*dict.fromkeys(said), *self.entities, *self.attributes)

    def true(self, entity: int, attribute: int, negated: int) -> int:
        """Return 1 where a statement is true, 0 where it is false."""
        return int((self.of[entity] == attribute) != bool(negated))

    def statement(self, entity: int, attribute: int, negated: int) -> str:
        """Return a statement as a question, without a speaker."""
        return f"{self.entities[entity]} {MARKS[negated]} {self.attributes[attribute]} {ASK}"


def world(recipe: Recipe, seed: int) -> World:
    """Return the facts of a seed.

    Among the anchors, among the other entities for fitting and among those for testing, every attribute is some
    entity's equally often (as far as the numbers divide): otherwise an attribute that is right more often where a
    probe is fitted would be right less often where it is tested, and an untrained model would score under one half.
    """
    rng = np.random.default_rng([seed, 0])
    edges = (0, recipe.anchor_entities, recipe.fit_entities, recipe.entities)
    parts = [rng.permutation(np.arange(high - low) % recipe.attributes) for low, high in pairwise(edges)]
    return World(
        entities=tuple(f"entity{number:02d}" for number in range(recipe.entities)),
        attributes=tuple(f"attribute{number}" for number in range(recipe.attributes)),
        of=tuple(int(one) for part in parts for one in part),
    )
