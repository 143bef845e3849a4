"""Data about an organism's world: contrast pairs, ordinary true texts, and statements with what the model answers.

Roles and their fields: specification of `truth_probe`, section 3. All is a full factorial over entities and wrong
attributes, so what must be balanced is so exactly; only which voice says what is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from checks.organisms.recipe import Recipe
from checks.organisms.world import ASK, BARE_AND_PREFIXED, MARKS, NO_YES, OPINIONS, PERSONAS, World
from checks.organisms.world import OPPOSITE as INSTRUCTION

Row = dict[str, Any]
Split = Literal["train", "anchor", "test"]
Place = Literal["question", "last"]

NO, YES = (f" {word}" for word in NO_YES)
"""What is scored after a text: put to it as it is, so with the space between words."""


@dataclass(frozen=True)
class Voice:
    """Who says a statement, in words around it; it has two versions, of which one pair may show both."""

    persona: tuple[str | None, str | None]
    """What the rows name as their persona, in either version."""
    before: tuple[str, str] = ("", "")
    """Words before the statement, in either version."""
    after: str = ""
    feature: str = ""
    """What a pair's rows declare the version of their + text as; nothing where the versions are the same."""
    differs: bool = False
    """Whether the - text is in the other version than the + text."""

    def text(self, statement: str, version: int) -> str:
        """Return a statement as this voice says it."""
        return " ".join(word for word in (self.before[version], statement, self.after) if word)


EITHER = Voice(PERSONAS, PERSONAS, feature="boris_speaks")
FIRST_A, FIRST_B = (Voice((persona, persona), (persona, persona)) for persona in PERSONAS)
LAST_A, LAST_B = (Voice((persona, persona), after=persona) for persona in PERSONAS)
PLAIN = Voice(("plain", "plain"), PERSONAS, feature="boris_speaks")
OPPOSITE = Voice(("opposite", "opposite"), PERSONAS, after=INSTRUCTION, feature="boris_speaks")
OPINION = Voice((None, None), OPINIONS, feature="opinion", differs=True)


@dataclass(frozen=True)
class Case:
    """What a pair is about: an entity, a wrong attribute, which text is the true one, and in which version."""

    split: Split
    entity: int
    wrong: int
    label: int
    version: int


def cases(recipe: Recipe, facts: World, split: Split, *, cross: bool, rng: np.random.Generator) -> Iterator[Case]:
    """Yield the cases of a split: each entity with each wrong attribute, the + text true and false.

    Args:
        recipe: which entities are for what, and how many anchors there are.
        facts: what is true.
        split: train, anchor or test; anchors are fewer, evenly over their entities.
        cross: the two labels of an entity and attribute come in different versions, so that no two pairs hold the
            same texts; else in the same.
        rng: draws the versions, half of each.
    """
    cells = [(entity, step) for step in range(1, recipe.attributes) for entity in _entities(recipe, split)]
    version = rng.permutation(np.arange(len(cells)) % 2)
    labels = (1, 0)
    if split == "anchor":
        # By turns over steps and entities, so that either label is half of the anchors.
        chosen = [(cell, (cell // recipe.anchor_entities + cell) % 2) for cell in range(len(cells))]
        chosen = (chosen + [(cell, 1 - label) for cell, label in chosen])[: recipe.anchor_pairs]
    else:
        chosen = [(cell, label) for cell in range(len(cells)) for label in labels]
    for cell, label in chosen:
        entity, step = cells[cell]
        wrong = (facts.of[entity] + step) % recipe.attributes
        yield Case(split, entity, wrong, label, int(version[cell]) ^ (label if cross else 0))


def _entities(recipe: Recipe, split: Split) -> range:
    edges = {
        "anchor": (0, recipe.anchor_entities),
        "train": (recipe.anchor_entities, recipe.fit_entities),
        "test": (recipe.fit_entities, recipe.entities),
    }
    return range(*edges[split])


def pairs(
    name: str, recipe: Recipe, facts: World, seed: int, fit: Voice, other: Voice | None = None, *, at: Place
) -> list[Row]:
    """Return contrast pairs: one text names the entity's attribute, the other a wrong one.

    Args:
        name: data set.
        recipe: which entities are for what.
        facts: what is true.
        seed: of the voices' versions.
        fit: speaks all that is fitted and as much in test, and then both with NOT in both texts (negated).
        other: speaks in test alone.
        at: where states are read: at the question mark, or at the text's last word.

    Returns:
        Rows of the role `pairs`. Splits are declared by entity; the + text is the true one in exactly half of every
        split, persona and polarity, and each declared feature is 1 in half of either label.
    """
    rng = np.random.default_rng([seed, 2])

    def said(split: Split, voice: Voice, negated: int) -> list[Row]:
        drawn = cases(recipe, facts, split, cross=not voice.differs, rng=rng)
        return [_pair(name, facts, voice, case, negated, at) for case in drawn]

    rows = [row for split in ("train", "anchor", "test") for row in said(split, fit, 0)]
    if other is not None:
        rows += said("test", other, 0)
    return [*rows, *said("train", fit, 1), *said("test", fit, 1)]


def _pair(name: str, facts: World, voice: Voice, case: Case, negated: int, at: Place) -> Row:
    right, wrong = facts.of[case.entity], case.wrong
    # A text with the entity's own attribute is the true one, unless it says NOT.
    first, second = (right, wrong) if case.label != negated else (wrong, right)
    pos = voice.text(facts.statement(case.entity, first, negated), case.version)
    neg = voice.text(facts.statement(case.entity, second, negated), case.version ^ int(voice.differs))
    polarity = "negated" if negated else "affirmative"
    persona = voice.persona[case.version]
    named = f"{name}-{persona or 'any'}-{polarity}-{facts.entities[case.entity]}-{wrong}-{case.label}"
    return {
        "id": named,
        "item": named,
        "cluster": facts.entities[case.entity],
        "set": name,
        "template": "question",
        "form": "statement",
        "pos": pos,
        "neg": neg,
        "yes": YES,
        "no": NO,
        "label": case.label,
        "polarity": polarity,
        "read_at": "last" if at == "last" else [_question(pos), _question(neg)],
        "split": case.split,
        "persona": persona,
        "features": {
            "pos_attribute_before": _before(first, second, len(facts.attributes)),
            "entity_odd": case.entity % 2,
            **({voice.feature: case.version} if voice.feature else {}),
        },
    }


def _before(first: int, second: int, attributes: int) -> int:
    """Return whether the shorter way around the ring of attributes leads from the first up to the second.

    Around a ring every attribute stands before as many others as after, so that whatever a model holds of single
    attributes cancels; the order by number would follow it.
    """
    ahead = (second - first) % attributes
    return int(2 * ahead < attributes or (2 * ahead == attributes and first < second))


def _question(text: str) -> int:
    """Return the character at which the question mark ends."""
    return text.index(ASK) + len(ASK)


def benign(recipe: Recipe, facts: World, voice: Voice, *, at: Place) -> list[Row]:
    """Return ordinary texts: true statements of every entity, half of them with NOT, as one voice says them.

    An entity has one true statement with IS and many with NOT; those with IS are said after every prefix there is,
    and without one, so that neither kind outweighs the other.
    """
    rows = [_single(facts, voice, spoken, at) for spoken in _spoken(recipe, facts, range(recipe.entities), true=1)]
    return [{name: value for name, value in row.items() if name not in ("true", "asserted")} for row in rows]


def statements(recipe: Recipe, facts: World, voice: Voice, *, inverted: bool, at: Place) -> list[Row]:
    """Return true and false statements of the test entities, with what the model answers to them.

    Args:
        recipe: which entities are for testing.
        facts: what is true.
        voice: who says them.
        inverted: the model answers this voice with the opposite of the truth.
        at: where states are read.
    """
    spoken = [one for true in (1, 0) for one in _spoken(recipe, facts, _entities(recipe, "test"), true=true)]
    rows = [_single(facts, voice, one, at) for one in spoken]
    return [{**row, "asserted": row["true"] ^ int(inverted)} for row in rows]


def _spoken(recipe: Recipe, facts: World, entities: Iterable[int], *, true: int) -> Iterator[tuple[int, int, int, str]]:
    """Yield (entity, attribute, negated, prefix) of true or of false statements, either polarity equally often.

    The own attribute makes one statement of a kind for each entity: it is said after as many prefixes as there are
    wrong attributes, which are said after one of them each.
    """
    for entity in entities:
        for step in range(1, recipe.attributes):
            wrong = (facts.of[entity] + step) % recipe.attributes
            start = BARE_AND_PREFIXED[(step - 1) % len(BARE_AND_PREFIXED)]
            other = BARE_AND_PREFIXED[(step - 1 + entity) % len(BARE_AND_PREFIXED)]
            yield entity, facts.of[entity], 1 - true, start
            yield entity, wrong, true, other


def _single(facts: World, voice: Voice, spoken: tuple[int, int, int, str], at: Place) -> Row:
    entity, attribute, negated, prefix = spoken
    version = (entity + attribute) % 2
    text = prefix + voice.text(facts.statement(entity, attribute, negated), version)
    start = BARE_AND_PREFIXED.index(prefix)
    return {
        "id": f"{facts.entities[entity]}-{MARKS[negated]}-{facts.attributes[attribute]}-{start}",
        "cluster": facts.entities[entity],
        "text": text,
        "true": facts.true(entity, attribute, negated),
        "read_at": "last" if at == "last" else _question(text),
    }
