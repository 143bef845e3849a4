"""The set `conjunction`: two statements of geography joined by "and" or "or".

**Strata.** The + and - text differ in the first statement, in the second, or in both (`first_differs`,
`second_differs`); the joining word is the feature `or`. Where only one differs, the other is true under "and" and
false under "or": otherwise both texts, or neither, would be true.

**Clusters.** An item touches two couples of cities. The 60 couples are put together in 30 twos, and every item stays
inside its two: no couple occurs in two clusters, so no city is on both sides of a split of this set. Against a
direction fitted on `geography` that is not enough, because one couple of the two may be in its train split: a
cluster's name is the names of both couples joined by "&" (`load.parts` takes it apart), and only rows all of whose
couples are test there are unseen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from checks.truth_probe.sets.cities import COUPLES, City
from checks.truth_probe.sets.geography import cluster_of, object_of
from checks.truth_probe.sets.load import JOIN
from checks.truth_probe.sets.rows import IS_THAT_RIGHT, TRUE_OR_FALSE, Head, Row, answered, stated, verified

SEED = 20_261_102
"""The set is one fixed list; another seed would be another set under the same name."""

TEMPLATES = ("is_in", "verify", "lies", "claim")

STRATA = ((True, True), (True, False), (False, True))
"""Whether the first and the second statement differ between the + and the - text."""

LONG = 10
"""Clusters of sixteen items; the other twenty have twelve, which makes 400."""


@dataclass(frozen=True)
class Twin:
    """What two rows share."""

    two: tuple[tuple[City, City], tuple[City, City]]
    place: int
    """Its number within the cluster."""
    either: bool
    """Joined by "or"."""
    stratum: int
    template: str
    sides: Sequence[int]
    """Of each couple, the city whose object the + text names."""
    relations: Sequence[int]
    """Of each couple, country (0) or continent (1)."""


def conjunction() -> list[Row]:
    """Return 400 rows: 30 clusters by two joining words and three strata; ten clusters have two twins more."""
    rng = np.random.default_rng(SEED)
    order = [COUPLES[int(at)] for at in rng.permutation(len(COUPLES))]
    rows = []
    for number in range(len(order) // 2):
        two = (order[2 * number], order[2 * number + 1])
        plan = [(joined, stratum) for joined in range(2) for stratum in range(3)]
        if number < LONG:
            plan += [(number % 2, 0), (1 - number % 2, 1 + number // 2 % 2)]
        for at, (joined, stratum) in enumerate(plan):
            template = TEMPLATES[(number + at) % 4]
            sides, relations = rng.integers(2, size=(2, 2)).tolist()
            rows += [
                _row(Twin(two, at, bool(joined), stratum, template, sides, relations), label) for label in (True, False)
            ]
    return rows


def _row(twin: Twin, label: bool) -> Row:
    """Return one of a twin's rows: the same objects, and the cities that make the + text true or false."""
    halves: list[tuple[str, str, str]] = []
    for couple, differs, side, relation in zip(twin.two, STRATA[twin.stratum], twin.sides, twin.relations, strict=True):
        # A half that differs is true in the + text as the label says. One that does not is true under "and" and false
        # under "or", in both rows of the twin alike.
        owner = side if (label if differs else not twin.either) else 1 - side
        objects = [object_of(couple[which], relation) for which in (side, 1 - side if differs else side)]
        halves.append((couple[owner].name, objects[0], objects[1]))
    word = "or" if twin.either else "and"
    first, second = STRATA[twin.stratum]
    head = Head(
        item=f"{'.'.join(couple[0].slug for couple in twin.two)}-{word}-{twin.place}-{'true' if label else 'false'}",
        cluster=JOIN.join(cluster_of(couple) for couple in twin.two),
        set="conjunction",
        template=twin.template,
        label=label,
        features={"or": twin.either, "first_differs": first, "second_differs": second},
    )
    return _worded(head, twin.template, word, halves)


def _worded(head: Head, template: str, word: str, halves: list[tuple[str, str, str]]) -> Row:
    (first, *one), (second, *two) = halves
    plain = [f"{first} is in {a} {word} {second} is in {b}" for a, b in zip(one, two, strict=True)]
    if template == "is_in":
        return stated(head, plain, tail=TRUE_OR_FALSE)
    if template == "verify":
        return verified(head, plain[0])
    if template == "claim":
        return answered(head, f"Claim: {plain[0]}. The claim is", "true", "false")
    long = [
        f"The city of {first} lies in {a} {word} the city of {second} lies in {b}"
        for a, b in zip(one, two, strict=True)
    ]
    return stated(head, long, tail=IS_THAT_RIGHT)
