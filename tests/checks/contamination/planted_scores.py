"""Best scores of items and siblings as section 6.6 measured them, with leaks planted at a known share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from checks.contamination.conformal import Scores


@dataclass(frozen=True)
class Planted:
    """Scores, and which items leaked."""

    scores: Scores
    leaked: np.ndarray


def planted(
    items: int, siblings: int, share: float, rng: np.random.Generator, too_low: int = 0, documents: int = 1
) -> Planted:
    """Return scores of one corpus.

    Cosines of 10 000: best stranger .598 (s.d. .05), an item and its siblings sharing half of the variance; 32 % of
    unleaked items and 31 % of siblings have a `same` window; a leaked rewrite is found `same` in .939 at .910 (.045),
    and meets its item's siblings at .867, `same` in .03.

    Args:
        items: how many.
        siblings: of each.
        share: leaked.
        rng: draws all.
        too_low: how much lower the siblings' cosines are made than they should be.
        documents: corpus size: every probe meets the best of so many unrelated corpora.
    """
    shape = (items, siblings + 1)
    domain = rng.normal(0, 350, (items, 1))
    best = np.full(shape, -1.0)
    for _ in range(documents):
        cosine = 5980 + domain + rng.normal(0, 350, shape)
        best = np.maximum(best, np.where(rng.random(shape) < 0.315, 20_000 + cosine, cosine))
    leaked = np.zeros(items, dtype=bool)
    leaked[rng.permutation(items)[: round(share * items)]] = True
    met = np.where(rng.random(shape) < np.where(np.arange(siblings + 1) == 0, 0.939, 0.03), 20_000, 0) + np.where(
        np.arange(siblings + 1) == 0, rng.normal(9100, 450, shape), rng.normal(8670, 450, shape)
    )
    best = np.where(leaked[:, None], np.maximum(best, np.minimum(met, 30_000)), best).astype(np.int64)
    best[:, 1:] -= too_low
    return Planted(
        Scores(best[:, 0], best[:, 1:].reshape(-1), np.repeat(np.arange(items), siblings)),
        leaked,
    )
