"""The whole procedure under labels that mean nothing: permuted by group in train, in val and in test.

Each permutation selects its latents, its k, and dense or sparse again, and is read on permuted test labels; permuting
train alone would leave the truth in test and call chance skill (specification of `sae_features`, section 7). To be
affordable a permutation fits on all of train, once, at the penalty that val chose for the true labels; the truth goes
through the same as draw 0, so the comparison is of like with like.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from checks.sae_features.probes.concept_auroc import auroc
from checks.sae_features.probes.concept_select import separation, strongest
from checks.sae_features.probes.concept_values import Spread
from checks.sae_features.probes.logistic import fit, narrowed, standardise

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

RIDGE_ABOVE = 256
"""Features above which the dense probe of a permutation is a ridge regression: one factorisation for all draws. The
specification says 512 (section 15); 200 logistic fits of 600 rows cost 5 s at 256 features and 23 s at 512."""

RIDGE_TIMES = 4.0
"""Ridge penalty per L2 of the logistic regression, whose curvature is a quarter at most."""

CHUNK_NUMBERS = 8_000_000
"""Numbers of the selected latents that stand in memory at once: 64 MB."""


@dataclass(frozen=True, eq=False)
class Permuted:
    """Rows by split, and labels under each draw; draw 0 is the truth."""

    train: Bool[np.ndarray, " row"]
    val: Bool[np.ndarray, " row"]
    test: Bool[np.ndarray, " row"]
    labels: Int[np.ndarray, "draw row"]

    def areas(
        self, scores: Float[np.ndarray, "draw row"]
    ) -> tuple[Float[np.ndarray, " draw"], Float[np.ndarray, " draw"]]:
        """Return the areas on val and on test, each draw's scores against its own labels."""
        val, test = (auroc(scores[:, rows], self.labels[:, rows]) for rows in (self.val, self.test))
        return val, test


Areas = tuple["Float[np.ndarray, ' draw']", "Float[np.ndarray, ' draw']"]
"""On val and on test."""


@dataclass(frozen=True, eq=False)
class Null:
    """What permuted labels give, and how often it is as good as the truth."""

    p: float
    spreads: Mapping[str, Spread]


def dense_areas(permuted: Permuted, x: Float[np.ndarray, "row p"], penalty: float) -> Areas:
    """Return the areas of the dense probe under each draw."""
    features = narrowed(standardise(x, permuted.train), permuted.train)
    labels = permuted.labels[:, permuted.train].astype(np.float64)
    held = features[permuted.train]
    if features.shape[1] <= RIDGE_ABOVE:
        fits = fit(held[None], labels, np.ones_like(labels), np.full(len(labels), penalty))
        return permuted.areas(fits.scores(features[None]))
    system = held.T @ held
    system[np.diag_indices_from(system)] += RIDGE_TIMES * penalty
    # Standardised features have mean zero in train, so the bias is the mean label and ranks do not see it.
    beta = cho_solve(cho_factor(system), held.T @ (labels - labels.mean(1, keepdims=True)).T)
    return permuted.areas((features @ beta).T)


def sparse_areas(
    permuted: Permuted, latents: Float[np.ndarray, "row m"], penalties: Mapping[int, float]
) -> Mapping[int, Areas]:
    """Return the areas of the sparse probe of each k under each draw, with latents selected again."""
    standard = standardise(latents, permuted.train)
    labels = permuted.labels[:, permuted.train].astype(np.float64)
    weights = np.ones_like(labels)
    most = max(penalties)
    at_once = max(1, CHUNK_NUMBERS // (len(standard) * most))
    found: dict[int, list[np.ndarray]] = {k: [] for k in penalties}
    for start in range(0, len(labels), at_once):
        some = slice(start, start + at_once)
        chosen = strongest(separation(standard[permuted.train], labels[some], weights[some]), most)
        features = standard.T[chosen].transpose(0, 2, 1)
        for k, penalty in penalties.items():
            x = features[:, :, :k]
            fits = fit(x[:, permuted.train], labels[some], weights[some], np.full(len(x), penalty))
            found[k].append(fits.scores(x))
    return {k: permuted.areas(np.concatenate(scores)) for k, scores in found.items()}


def null(dense: Areas, sparse: Mapping[int, Areas]) -> Null:
    """Return p of the better of dense and sparse, k and which of the two chosen on val in every draw."""
    ks = sorted(sparse)
    by_val, by_test = (np.stack([sparse[k][at] for k in ks]) for at in (0, 1))
    draws = np.arange(by_val.shape[1])
    own = np.argmax(by_val, axis=0)
    chosen = by_val[own, draws], by_test[own, draws]
    best = np.where(chosen[0] > dense[0], chosen[1], dense[1])
    told = {"dense": dense[1], "sparse": chosen[1], "best": best}
    told |= {f"sparse_{k}": sparse[k][1] for k in ks}
    p = (1 + int((best[1:] >= best[0]).sum())) / len(best)
    return Null(p, {name: _spread(areas[1:]) for name, areas in told.items()})


def _spread(areas: Float[np.ndarray, " draw"]) -> Spread:
    return Spread(float(areas.mean()), float(areas.std(ddof=1)), float(np.quantile(areas, 0.95)), len(areas))
