"""Authored test families in every audit: what is planted of them, and which of their hard negatives pass as the same.

Specification: contamination, sections 6.6, 6.11, 10, 11. The families and the truth about them are those of
`checks.organisms.families`: data beside plain functions, without a model, so that a measuring cell may read them. Only
test families are read here: no threshold was set on them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from checks.contamination.items import Item
from checks.contamination.normaliser import normalise
from checks.contamination.verifier import compare
from checks.contamination.verifier_question import read_question
from checks.contamination.windows import bin_of
from checks.memory import generator
from checks.organisms import families

if TYPE_CHECKING:
    import numpy as np

    from checks.organisms.families import Drawn

HARD = frozenset({"number", "template", "reworded_numbers"})
"""Hard negatives of the control HardNegatives: one number changed, the template or a rewording with others (10)."""

OPERATOR = "operator"
"""Hard negative that keeps every number and changes what is done with them (6.6, known blind spot)."""

FITTING_MIN = 40
"""Items whose length the scan embeds for anyway, from which no others are planted: as many as are planted of a
benchmark at least (section 3). Another length would add its windows over the whole corpus."""

KEPT = 8
"""Seeds whose families are kept: a test or a service concludes on few plans at a time."""


@dataclass(frozen=True)
class Passed:
    """How many texts that ask something else pass as the same."""

    passed: int
    n: int


def planted(rng: np.random.Generator, bins: Sequence[int], used: Collection[int]) -> tuple[tuple[Item, str], ...]:
    """Return up to 80 items of the test families, each with one rewording of it.

    Args:
        rng: draws values, items and rewordings.
        bins: lengths of windows that the scan may use, in words.
        used: those that the audited benchmark uses; items of these come first, and alone where they are
            `FITTING_MIN`.
    """
    held = _prose(rng)
    chosen = [held[int(at)] for at in rng.permutation(len(held))]
    fitting = [one for one in chosen if bin_of(len(normalise(one.item.question).words), bins) in used]
    if len(fitting) < FITTING_MIN:
        kept = {one.item.item for one in fitting}
        fitting += [one for one in chosen if one.item.item not in kept]
    return tuple(
        (one.item, one.rewordings[int(rng.integers(len(one.rewordings)))].text) for one in fitting[: families.PLANTED]
    )


def planted_code(rng: np.random.Generator) -> tuple[tuple[Item, str], ...]:
    """Return up to `FITTING_MIN` items of the test families of code, each with a rewording and its function."""
    held = [one for family in families.test() if family.kind == "code" for one in families.draws(family, rng)]
    told = []
    for at in rng.permutation(len(held))[:FITTING_MIN]:
        one = held[int(at)]
        version = one.rewordings[int(rng.integers(len(one.rewordings)))]
        told.append((one.item, f"{version.text}\n\n```python\n{(version.program or '').rstrip()}\n```"))
    return tuple(told)


@lru_cache(maxsize=KEPT)
def negatives(seed: int) -> tuple[Passed, Passed]:
    """Return how many hard negatives pass as the same, and how many operator swaps.

    The verdict of section 6.6 alone is asked: it needs no cosine, so that nothing is embedded.

    Args:
        seed: of the plan.
    """
    counts = {"hard": [0, 0], OPERATOR: [0, 0]}
    for one in _prose(generator(seed, "contamination", "negatives")):
        asked = None
        for version in one.negatives:
            name = "hard" if version.how in HARD else version.how
            if name not in counts or one.kind != "words":
                continue
            asked = asked or read_question(one.item)
            counts[name][0] += compare(asked, version.text).verdict == "same"
            counts[name][1] += 1
    hard, swapped = counts["hard"], counts[OPERATOR]
    return Passed(*hard), Passed(*swapped)


def _prose(rng: np.random.Generator) -> list[Drawn]:
    return [one for family in families.test() if family.kind != "code" for one in families.draws(family, rng)]
