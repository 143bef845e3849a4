"""The blind control: whether text alone, without any model, tells a benchmark from its placebos.

Specification: section 7.3. Sources: Das et al. 2024 (arXiv 2406.16201) and Meeus et al. 2024 (arXiv 2406.17975): public
membership sets are separated by words alone, so scores on them prove nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.special import expit

from checks.contamination.surprise import permuted_area, units

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

BUCKETS = 4096
"""Columns that 1-2-grams are hashed to: a few hundred short texts use fewer, so that collisions are rare."""

FOLDS = 5
"""Parts, by template (7.3)."""

PENALTY = 1.0
"""L2 penalty on a sum of log-losses: the usual default, C = 1; not tuned, since a control must not be."""

SEPARATED = 0.01
"""Permutation p at which text alone separates the sets (7.3)."""

STEPS_MAX = 200
"""L-BFGS steps; a penalised fit of this size takes some 20."""

_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Blind:
    """Out-of-fold area of text features alone."""

    auc: float
    p: float
    n: int

    def invalidates(self, blind_max: float) -> bool:
        """Return whether `surprise` is `invalid (blind_control)`."""
        return self.auc >= blind_max or self.p <= SEPARATED


def blind_control(
    texts: Sequence[str],
    seen: Bool[np.ndarray, " text"],
    template: Int[np.ndarray, " text"],
    rng: np.random.Generator,
) -> Blind:
    """Return how well words, length, token count and digit share tell items from placebos, held out by template.

    Args:
        texts: of items and placebos.
        seen: which of them are items.
        template: each text's, numbers from 0.
        rng: draws folds, then label permutations.

    Raises:
        ValueError: one class is missing, or has fewer templates than folds.
    """
    fold = _folds(template, seen, rng)
    words, shape = _features(texts)
    scores = np.zeros(len(texts))
    for part in range(FOLDS):
        held = fold == part
        centre, spread = shape[~held].mean(axis=0), shape[~held].std(axis=0)
        scaled = (shape - centre) / np.where(spread > 0, spread, 1.0)
        theta = _logistic(words[~held], scaled[~held], seen[~held])
        scores[held] = words[held] @ theta[: words.shape[1]] + scaled[held] @ theta[words.shape[1] : -1] + theta[-1]
    area, p = permuted_area(scores, seen, units(template, seen), rng)
    return Blind(area, p, len(texts))


def _folds(
    template: Int[np.ndarray, " text"], seen: Bool[np.ndarray, " text"], rng: np.random.Generator
) -> Int[np.ndarray, " text"]:
    """Return each text's part: whole templates, dealt so that every part holds both classes."""
    fold = np.empty(len(template), dtype=np.int64)
    dealt = 0
    only_placebos = np.setdiff1d(template[~seen], template[seen])
    for names in (np.unique(template[seen]), only_placebos):
        if 0 < len(names) < FOLDS:
            raise ValueError(f"{len(names)} templates for {FOLDS} parts")
        for name in rng.permutation(names):
            fold[template == name] = dealt % FOLDS
            dealt += 1
    if not seen.any() or seen.all() or any(len(set(seen[fold != part].tolist())) < 2 for part in range(FOLDS)):
        raise ValueError("a part of the texts holds one class only")
    return fold


def _features(texts: Sequence[str]) -> tuple[csr_matrix, Float[np.ndarray, "text 3"]]:
    """Return hashed 1-2-grams at unit length, and letters, tokens and digit share."""
    rows: list[int] = []
    places: list[int] = []
    values: list[float] = []
    shape = np.zeros((len(texts), 3))
    for row, text in enumerate(texts):
        tokens = _WORD.findall(text.casefold())
        grams = Counter(tokens + [f"{one} {two}" for one, two in pairwise(tokens)])
        norm = max(1.0, float(sum(count * count for count in grams.values()))) ** 0.5
        rows += [row] * len(grams)
        places += (_bucket(gram) for gram in grams)
        values += (count / norm for count in grams.values())
        shape[row] = (np.log1p(len(text)), np.log1p(len(tokens)), sum(map(str.isdigit, text)) / max(1, len(text)))
    return csr_matrix((values, (rows, places)), shape=(len(texts), BUCKETS)), shape


def _bucket(gram: str) -> int:
    return int.from_bytes(blake2b(gram.encode("utf-8", "replace"), digest_size=8).digest(), "big") % BUCKETS


def _logistic(
    words: csr_matrix, shape: Float[np.ndarray, "text 3"], seen: Bool[np.ndarray, " text"]
) -> Float[np.ndarray, " weight"]:
    """Return weights of words and shape, then the intercept, which no penalty pulls."""
    sign = np.where(seen, 1.0, -1.0)
    columns = words.shape[1]

    def loss(theta: Float[np.ndarray, " weight"]) -> tuple[float, Float[np.ndarray, " weight"]]:
        margin = sign * (words @ theta[:columns] + shape @ theta[columns:-1] + theta[-1])
        pull = -sign * expit(-margin)
        gradient = np.concatenate([words.T @ pull, shape.T @ pull, [pull.sum()]])
        gradient[:-1] += PENALTY * theta[:-1]
        return float(np.logaddexp(0, -margin).sum() + PENALTY / 2 * theta[:-1] @ theta[:-1]), gradient

    start = np.zeros(columns + shape.shape[1] + 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS_MAX})
    return np.asarray(found.x)
