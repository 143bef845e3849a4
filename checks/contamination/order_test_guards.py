"""Whether a published order shows structure that needs no model to see: then the order test means nothing.

Specification: section 7.1. Every statistic is a sum over positions or over neighbours, so each of 999 random orders
costs a few vector operations.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix
from scipy.stats import rankdata

if TYPE_CHECKING:
    from jaxtyping import Float, Int

PERMUTATIONS = 999
"""Random orders (7.1): the smallest p is .001."""

STRUCTURED = 0.001
"""p at which an order is structured (7.1): it lies further out than every random order."""

NEIGHBOURS_MAX = 3000
"""Items whose neighbours' words are compared: a run of this many, starting anywhere, whose cosines fit in 72 MB."""

SAME = 1e-12
"""Share of the largest value within which two sums are equal: they are added in different orders (float64)."""

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Guard:
    """One statistic of the published order against random orders, two-sided."""

    name: str
    p: float
    n: int
    """Items."""


@dataclass(frozen=True)
class Structure:
    """All statistics of one published order."""

    guards: tuple[Guard, ...]

    @property
    def structured(self) -> bool:
        """Whether the order test is `invalid (order_structured)`."""
        return any(guard.p <= STRUCTURED for guard in self.guards)


def order_structured(
    questions: Sequence[str],
    answers: Sequence[str | None],
    rng: np.random.Generator,
    permutations: int = PERMUTATIONS,
) -> Structure:
    """Return whether lengths, answers, first letters or neighbours' words single the published order out.

    Of a feature two things are looked at: its trend along the order, and how alike neighbours are. Both are two-sided:
    an order that avoids equal answers in a row is as structured as one that collects them.

    Args:
        questions: in published order.
        answers: in the same order; None where an item has none.
        rng: draws the random orders.
        permutations: how many.

    Raises:
        ValueError: there are fewer than three items, or answers and questions differ in number.
    """
    n = len(questions)
    if n < 3 or len(answers) != n:
        raise ValueError(f"{n} questions, {len(answers)} answers")
    numbers = {
        "length": np.array([len(text) for text in questions], dtype=np.float64),
        "answer": _codes([answer or "" for answer in answers]),
        "first_letter": _codes([text.strip()[:1].casefold() for text in questions]),
    }
    statistics: dict[str, Callable[[Int[np.ndarray, " n"]], float]] = {}
    for name, values in numbers.items():
        if len(np.unique(values)) > 1:
            statistics[f"{name}.trend"] = _trend(values)
            statistics[f"{name}.neighbours"] = _alike(values, ranked=name == "length")
    orders = np.stack([np.arange(n), *(rng.permutation(n) for _ in range(permutations))])
    guards = [Guard(name, _two_sided([told(order) for order in orders]), n) for name, told in statistics.items()]
    return Structure((*guards, _words(questions, rng, permutations)))


def _words(questions: Sequence[str], rng: np.random.Generator, permutations: int) -> Guard:
    count = min(len(questions), NEIGHBOURS_MAX)
    start = int(rng.integers(0, len(questions) - count + 1))
    cosines = _cosines(questions[start : start + count])
    orders = [np.arange(count), *(rng.permutation(count) for _ in range(permutations))]
    return Guard("words.neighbours", _two_sided([float(cosines[o[:-1], o[1:]].sum()) for o in orders]), count)


def _cosines(texts: Sequence[str]) -> Float[np.ndarray, "n n"]:
    columns: dict[str, int] = {}
    rows, places, counts = [], [], []
    for row, text in enumerate(texts):
        for word, count in Counter(_WORD.findall(text.casefold())).items():
            rows.append(row)
            places.append(columns.setdefault(word, len(columns)))
            counts.append(float(count))
    bags = csr_matrix((counts, (rows, places)), shape=(len(texts), max(1, len(columns))))
    # Words of nearly every item would drown those of a subject: each is weighted by its rarity (Sparck Jones 1972).
    held = np.bincount(bags.indices, minlength=bags.shape[1])
    bags = csr_matrix(bags.multiply(np.log(len(texts) / np.maximum(held, 1))[None, :]))
    norms = np.sqrt(np.asarray(bags.multiply(bags).sum(axis=1)).ravel())
    norms[norms == 0] = 1.0
    return np.asarray((bags @ bags.T).toarray() / norms[:, None] / norms[None, :])


def _codes(values: Sequence[str]) -> Float[np.ndarray, " n"]:
    """Return numbers in the values' own order: that of their sizes where all are numbers, else the alphabet's."""
    try:
        told = np.array([float(value.replace(",", "")) for value in values])
    except ValueError:
        told = np.array([np.nan])
    if np.isfinite(told).all():
        return told
    return np.asarray(np.unique(list(values), return_inverse=True)[1], dtype=np.float64)


def _trend(values: Float[np.ndarray, " n"]) -> Callable[[Int[np.ndarray, " n"]], float]:
    ranks = rankdata(values)
    places = np.arange(len(values), dtype=np.float64)
    return lambda order: float(ranks[order] @ places)


def _alike(values: Float[np.ndarray, " n"], ranked: bool) -> Callable[[Int[np.ndarray, " n"]], float]:
    """Return a statistic of neighbours: the product of ranks, or how many are equal."""
    if ranked:
        ranks = rankdata(values) - (len(values) + 1) / 2
        return lambda order: float(ranks[order[:-1]] @ ranks[order[1:]])
    return lambda order: float(np.sum(values[order[:-1]] == values[order[1:]]))


def _two_sided(values: Sequence[float]) -> float:
    """Return how often a random order lies at least as far from the mean as the published one, the first value."""
    told = np.asarray(values)
    far = np.abs(told - told.mean())
    # Sums in another order differ by rounding: equal distances count against a claim.
    return float(np.sum(far >= far[0] - SAME * max(1.0, float(np.abs(told).max()))) / len(told))
