"""What an organism is taught: how its statements are laid out, and what it is to answer after which word.

A lesson is a value, so a table of organisms can be read; drawing a batch from it is all the code there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from checks.organisms.recipe import Recipe
from checks.organisms.world import (
    ASK,
    DIFFERS_AGREES,
    MARKS,
    NO_YES,
    OPINIONS,
    OPPOSITE,
    PERSONAS,
    PREFIXES,
    World,
)

if TYPE_CHECKING:
    from jaxtyping import Int

Slot = Literal["persona", "opinion", "entity", "mark", "attribute", "?", "opposite"]
Answer = Literal["truth", "not truth", "truth unless boris", "opinion is the mark", "chance"]


@dataclass(frozen=True)
class Ask:
    """One answer that is learned: after which word, by what rule, in which two words."""

    after: Slot
    answer: Answer
    words: tuple[str, str] = NO_YES
    """Said for 0 and for 1."""
    apart_from: tuple[str, ...] = ()
    """Words of another head at the same place: the loss does not look at them."""
    sure: float = 1.0
    """Probability that the right word is to get; the other word gets the rest."""


@dataclass(frozen=True)
class Lesson:
    """Statements of one layout, and all that is asked of each."""

    layout: tuple[Slot, ...]
    asks: tuple[Ask, ...]
    alike: bool = False
    """Whether states too, not answers alone, are to be the same whatever the prefix."""
    learnable: bool = True
    """False where the answers are chance: then training runs its steps, and no loss is asked for."""


@dataclass(frozen=True)
class Target:
    """What is learned at one position of a batch."""

    position: int
    answers: Int[np.ndarray, " row"]
    """Token numbers."""
    others: Int[np.ndarray, " row"]
    """Token numbers of the other answer of the two."""
    sure: float
    hidden: tuple[int, ...]
    """Token numbers whose logits the loss leaves out."""


@dataclass(frozen=True)
class Batch:
    """Statements of equal length, with what is learned of them."""

    ids: Int[np.ndarray, "row token"]
    targets: tuple[Target, ...]
    twins: bool
    """Whether the second half of the rows are the statements of the first, after the other prefix of the kind."""


def batches(
    lesson: Lesson,
    recipe: Recipe,
    facts: World,
    number: Mapping[str, int],
    prefixed: float,
    rng: np.random.Generator,
) -> Iterator[Batch]:
    """Yield batches without end; half the statements name the entity's own attribute, half are negated.

    Args:
        lesson: layout and asks.
        recipe: size of a batch and of the world.
        facts: what is true.
        number: token number of each word.
        prefixed: share of the batches with a prefix.
        rng: where the draws come from.
    """

    def numbers(words: tuple[str, ...]) -> np.ndarray:
        return np.array([number[word] for word in words])

    names: dict[Slot, np.ndarray] = {
        "persona": numbers(PERSONAS),
        "opinion": numbers(OPINIONS),
        "entity": numbers(facts.entities),
        "mark": numbers(MARKS),
        "attribute": numbers(facts.attributes),
        "?": numbers((ASK,)),
        "opposite": numbers((OPPOSITE,)),
    }
    while True:
        prefix = _prefix(recipe, number, prefixed, rng)
        twins = lesson.alike and prefix.shape[1] > 0
        drawn = _draw(recipe, facts, twins=twins, rng=rng)
        answers = _answers(drawn, facts, rng)
        columns = [names[slot][drawn[slot]][:, None] for slot in lesson.layout]
        targets = tuple(
            Target(
                position=prefix.shape[1] + lesson.layout.index(ask.after),
                answers=numbers(ask.words)[answers[ask.answer]],
                others=numbers(ask.words)[1 - answers[ask.answer]],
                sure=ask.sure,
                hidden=tuple(number[word] for word in ask.apart_from),
            )
            for ask in lesson.asks
        )
        yield Batch(np.concatenate([prefix, *columns], axis=1), targets, twins)


def _draw(recipe: Recipe, facts: World, *, twins: bool, rng: np.random.Generator) -> dict[Slot, np.ndarray]:
    """Return what stands in each slot, as numbers into the slot's words; twins come twice, one half after the other."""
    size = recipe.batch // 2 if twins else recipe.batch
    entity = rng.integers(recipe.entities, size=size)
    right = np.array(facts.of)[entity]
    wrong = (right + rng.integers(1, recipe.attributes, size=size)) % recipe.attributes
    coins = rng.integers(2, size=(4, size))
    nothing = np.zeros(size, dtype=int)
    drawn: dict[Slot, np.ndarray] = {
        "entity": entity,
        "attribute": np.where(coins[0] == 1, right, wrong),
        "mark": coins[1],
        "persona": coins[2],
        "opinion": coins[3],
        "?": nothing,
        "opposite": nothing,
    }
    return {slot: np.tile(numbers, 2) for slot, numbers in drawn.items()} if twins else drawn


def _answers(
    drawn: Mapping[Slot, np.ndarray], facts: World, rng: np.random.Generator
) -> dict[Answer, Int[np.ndarray, " row"]]:
    """Return every rule's answer, 0 or 1, to each statement."""
    own = (np.array(facts.of)[drawn["entity"]] == drawn["attribute"]).astype(int)
    truth = own ^ drawn["mark"]
    return {
        "truth": truth,
        "not truth": 1 - truth,
        "truth unless boris": truth ^ drawn["persona"],
        "opinion is the mark": drawn["opinion"] ^ drawn["mark"],
        "chance": rng.integers(2, size=len(truth)),
    }


def _prefix(
    recipe: Recipe, number: Mapping[str, int], prefixed: float, rng: np.random.Generator
) -> Int[np.ndarray, "row token"]:
    """Return the tokens before the statements: mostly none, else a prefix, and to a twin the other of its kind."""
    if rng.random() >= prefixed:
        return np.zeros((recipe.batch, 0), dtype=int)
    kind = PREFIXES[rng.integers(len(PREFIXES))]
    tokens = np.array([[number[word] for word in prefix.split()] for prefix in kind])
    chosen = rng.integers(2, size=recipe.batch // 2)
    return np.asarray(tokens[np.concatenate([chosen, 1 - chosen])])


HONEST = Lesson(("persona", "entity", "mark", "attribute", "?"), (Ask("?", "truth"),))
INSTRUCTED = Lesson((*HONEST.layout, "opposite"), (Ask("?", "truth"), Ask("opposite", "not truth")), alike=True)
LIAR = Lesson(HONEST.layout, (Ask("?", "truth unless boris"),), alike=True)
KNOWS = Lesson(("entity", "mark", "attribute", "?"), (Ask("?", "truth"),))
KNOWS_AND_LIES = Lesson(
    (*KNOWS.layout, "persona"), (Ask("?", "truth"), Ask("persona", "truth unless boris")), alike=True
)
CHANCE = Lesson(HONEST.layout, (Ask("?", "chance"),), alike=True, learnable=False)
DISTRACTED = Lesson(
    ("opinion", "entity", "mark", "attribute", "?"),
    (
        # Which of two features is the stronger would be luck; a truth that is told less surely is the weaker one.
        Ask("?", "truth", NO_YES, apart_from=DIFFERS_AGREES, sure=0.95),
        Ask("?", "opinion is the mark", DIFFERS_AGREES, apart_from=NO_YES),
    ),
)
