"""What the verifier makes of authored texts that ask something else (contamination, 6.6 and 10).

An operator swap keeps every number ("pays in" for "takes out") and is the verifier's known blind spot: the report
prints the share that passes as the same. Hard negatives change numbers, and must not pass. Both come from the test
families, on which nothing was tuned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from checks.contamination.items import Item
from checks.contamination.normaliser import normalise
from checks.contamination.verifier import BOUNDS, compare
from checks.organisms import families
from checks.organisms.families import draws

SEED = 11
"""Stream of the draws, one for each family; that of `benchmarks/contamination_families.py`, so the shares agree."""

OPERATOR = ("operator",)
HARD = ("number", "template", "reworded_numbers")
"""One number changed; the same template with other numbers; reworded with other numbers (section 10)."""


class Embedding(Protocol):
    """What is needed of an encoder."""

    def embed(self, texts: list[str]) -> np.ndarray:
        """Return the unit vectors of texts, one a row."""
        ...


def measured(encoder: Embedding | None = None) -> tuple[int, int]:
    """Return how many operator swaps of the test families pass as the same, and how many there are.

    Args:
        encoder: None counts the verifier's word alone; else a swap below the cosine floor does not pass.
    """
    return operator_swap_pass(_negatives(OPERATOR), encoder)


def hard_negatives(encoder: Embedding | None = None) -> tuple[int, int]:
    """Return how many hard negatives of the test families pass as the same, and how many there are.

    Args:
        encoder: as of `measured`; without one, no cosine refuses anything, so that at least as many pass.
    """
    return operator_swap_pass(_negatives(HARD), encoder)


def operator_swap_pass(pairs: Iterable[tuple[Item, str]], encoder: Embedding | None = None) -> tuple[int, int]:
    """Return how many texts the verifier calls the same as their items, and how many there are.

    Args:
        pairs: an item and a text that asks something else.
        encoder: None counts the verifier's word alone.
    """
    held = list(pairs)
    near = [True] * len(held)
    if encoder is not None and held:
        texts = [normalise(text).window_text for item, text in held for text in (item.question, text)]
        vectors = np.asarray(encoder.embed(texts), dtype=np.float64)
        cosines = (vectors[::2] * vectors[1::2]).sum(axis=1)
        near = [bool(round(10_000 * float(one)) >= BOUNDS.cosine_floor) for one in cosines]
    words = [compare(item, text).verdict for item, text in held]
    return sum(word == "same" and there for word, there in zip(words, near, strict=True)), len(held)


def _negatives(classes: tuple[str, ...]) -> Iterator[tuple[Item, str]]:
    for family in families.test():
        if family.kind != "words":
            continue
        # A stream of its own for each family: adding one changes no other.
        for one in draws(family, np.random.default_rng([SEED, *family.name.encode()])):
            yield from ((one.item, version.text) for version in one.negatives if version.how in classes)
