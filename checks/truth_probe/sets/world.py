"""The set `world`: three invented facts, then a statement on one of them. It needs no knowledge of the world.

The three facts give three names one property each, all of one kind ("Balun lives in a mill. Fivik lives in a barn.
Kudar lives in a tent."), so that a value which occurs above is not enough: it must be that name's.

A cluster is a story, that is, its three facts. Facts are drawn anew for each story: in one Balun lives in a mill, in
another in a barn, so a name carries nothing from one story to the next, and no text leaves its story. Each story gives
four items, on two of its three names: a question and a statement each, with the same two values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from checks.truth_probe.sets.rows import IS_THAT_RIGHT, TRUE_OR_FALSE, Head, Row, answered, stated, verified

SEED = 20_261_103
"""The set is one fixed list; another seed would be another set under the same name."""

STORIES = 200

NAMES = tuple(
    start + end
    for start in ("Ba", "De", "Fi", "Go", "Ku", "Lo", "Mi", "Ta")
    for end in ("lun", "mor", "vik", "nex", "sol", "dar", "pim", "rud")
)
"""64 invented names; they share their syllables, so none is odd."""

PROPERTIES = (
    ("wears a", ("cloak", "scarf", "crown", "belt", "mask", "ring", "hat", "glove")),
    ("keeps a", ("goat", "dog", "horse", "cat", "duck", "pig", "snake", "parrot")),
    ("likes", ("bread", "cheese", "soup", "honey", "rice", "fish", "beans", "cake")),
    ("lives in a", ("mill", "barn", "tent", "castle", "cave", "tower", "hut", "boat")),
    ("works as a", ("baker", "tailor", "miner", "teacher", "sailor", "painter", "guard", "farmer")),
    ("plays the", ("flute", "drum", "harp", "piano", "violin", "horn", "organ", "guitar")),
)
"""Six properties with eight values each; the last three, of place and trade, have the feature `place_or_trade`."""

ASKED = ((0, 1), (0, 2), (1, 2))
"""Which two of the three facts a story's items are about."""


@dataclass(frozen=True)
class Story:
    """Three facts of one property."""

    number: int
    about: int
    """Number of the property."""
    names: tuple[str, str, str]
    values: tuple[str, str, str]
    asked: tuple[int, int]

    @property
    def text(self) -> str:
        """The three facts as sentences."""
        verb = PROPERTIES[self.about][0]
        return " ".join(f"{name} {verb} {value}." for name, value in zip(self.names, self.values, strict=True))


def world() -> list[Row]:
    """Return 800 rows: 200 stories by two forms and two names."""
    rows = []
    for story in _stories():
        later = story.number // 4 % 2
        for template in (("ask", "verify")[story.number % 2], ("story", "follows")[story.number // 2 % 2]):
            rows += [_row(story, template, later, at) for at in range(2)]
    return rows


def _stories() -> list[Story]:
    """Return the stories: names dealt from shuffled decks, so that all are used alike."""
    rng = np.random.default_rng(SEED)
    deck: list[str] = []
    stories = []
    for number in range(STORIES):
        if len(deck) < 3:
            deck = [NAMES[int(at)] for at in rng.permutation(len(NAMES))]
        names = (deck.pop(), deck.pop(), deck.pop())
        about = int(rng.integers(len(PROPERTIES)))
        drawn = [PROPERTIES[about][1][int(at)] for at in rng.permutation(8)[:3]]
        asked = ASKED[int(rng.integers(len(ASKED)))]
        stories.append(Story(number, about, names, (drawn[0], drawn[1], drawn[2]), asked))
    return stories


def _row(story: Story, template: str, later: int, at: int) -> Row:
    """Return the row on one of the two names; `later` says whether the + text names the value told later."""
    name = story.names[story.asked[at]]
    verb = PROPERTIES[story.about][0]
    pos, neg = (story.values[story.asked[which]] for which in (later, 1 - later))
    head = Head(
        item=f"{story.number:03d}-{name.lower()}-{template}",
        cluster=f"story-{story.number:03d}",
        set="world",
        template=template,
        label=at == later,
        features={
            "place_or_trade": story.about >= 3,
            "asked_earlier": at == 0,
            "pos_later": later == 1,
        },
    )
    if template == "ask":
        return answered(head, f"{story.text} As told above, {name} {verb}", pos, neg)
    if template == "verify":
        return verified(head, f"{name} {verb} {pos}", before=f"{story.text} ")
    claims = [f"{name} {verb} {value}" for value in (pos, neg)]
    if template == "story":
        return stated(head, claims, tail=TRUE_OR_FALSE, before=f"Story: {story.text} Statement: ")
    return stated(head, claims, tail=IS_THAT_RIGHT, before=f"{story.text} It follows that ")
