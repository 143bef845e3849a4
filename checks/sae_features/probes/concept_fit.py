"""Probes fitted on subsamples of train and chosen on val: out come scores, and no test label is read here.

Specification of `sae_features`, section 7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.sae_features.probes.concept_auroc import auroc
from checks.sae_features.probes.concept_select import separation, strongest
from checks.sae_features.probes.logistic import fit, narrowed, standardise

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

SUBSAMPLE_SHARE = 0.8
"""Share of the train groups in each subsample (specification, section 7)."""

REDRAWS = 100
"""Times that a subsample of one class is drawn again; then all of train stands in for it."""

COMPONENTS = 16
"""Principal components of `pca16` (section 7)."""


@dataclass(frozen=True, eq=False)
class Design:
    """What fitting and choosing may look at: labels of train and val, and which rows each fit takes."""

    train: Bool[np.ndarray, " row"]
    val: Bool[np.ndarray, " row"]
    labels: Int[np.ndarray, " train"]
    """Of the train rows."""
    val_labels: Int[np.ndarray, " val"]
    weights: Float[np.ndarray, "subsample train"]
    """1 where a subsample holds a train row, else 0."""
    penalties: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Scored:
    """A probe's scores of every row, one line a subsample, at the penalty that val chose."""

    scores: Float[np.ndarray, "subsample row"]
    val: float
    """Mean AUROC on val over the subsamples."""
    penalty: float | None = None


def subsamples(
    labels: Int[np.ndarray, " train"], groups: Sequence[str], count: int, rng: np.random.Generator
) -> Float[np.ndarray, "subsample train"]:
    """Return which train rows each subsample holds: 80 % of the groups, both classes."""
    names, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    held = max(1, round(SUBSAMPLE_SHARE * len(names)))
    found = np.ones((count, len(labels)))
    for row in range(count):
        for _ in range(REDRAWS):
            drawn = np.isin(index, rng.permutation(len(names))[:held])
            if len(np.unique(labels[drawn])) == 2:
                found[row] = drawn
                break
    return found


def logistic(design: Design, features: Float[np.ndarray, "shared row p"]) -> Scored:
    """Return the logistic probe of standardised features; ties between penalties go to the larger.

    Args:
        design: rows and penalties.
        features: one array for all subsamples (first axis 1), or one each.
    """
    count, penalties = len(design.weights), np.asarray(sorted(design.penalties, reverse=True), dtype=np.float64)
    each = np.repeat(np.arange(count), len(penalties))
    x = features if len(features) == 1 else features[each]
    labels = np.broadcast_to(design.labels.astype(np.float64), (len(each), len(design.labels)))
    fits = fit(x[:, design.train], labels, design.weights[each], np.tile(penalties, count))
    scores = fits.scores(x).reshape(count, len(penalties), -1)
    areas = auroc(scores[:, :, design.val], design.val_labels).mean(0)
    best = int(np.argmax(areas))
    return Scored(scores[:, best], float(areas[best]), float(penalties[best]))


def dense(design: Design, x: Float[np.ndarray, "row p"]) -> Scored:
    """Return the logistic probe of all features."""
    return logistic(design, narrowed(standardise(x, design.train), design.train)[None])


def sparse(design: Design, latents: Float[np.ndarray, "row m"], ks: Sequence[int]) -> Mapping[int, Scored]:
    """Return the logistic probe of the k best latents, for each k; each subsample chooses its own latents."""
    standard = standardise(latents, design.train)
    chosen = strongest(_separation(design, standard, design.weights), max(ks))
    features = np.stack([standard[:, own] for own in chosen])
    return {k: logistic(design, features[:, :, :k]) for k in ks}


def chosen_latents(design: Design, latents: Float[np.ndarray, "row m"], k: int) -> tuple[int, ...]:
    """Return the k latents that all of train selects, strongest first; those that do not differ at all are left out."""
    d = _separation(design, standardise(latents, design.train), np.ones((1, len(design.labels))))
    return tuple(int(one) for one in strongest(d, k)[0] if d[0, one] != 0)


def diffmean(design: Design, x: Float[np.ndarray, "row p"]) -> Scored:
    """Return the projection of standardised states on the difference of the class means."""
    standard = standardise(x, design.train)
    held, labels = standard[design.train], design.labels
    one, zero = design.weights * labels, design.weights * (1 - labels)
    direction = one @ held / one.sum(1, keepdims=True) - zero @ held / zero.sum(1, keepdims=True)
    scores = direction @ standard.T
    return Scored(scores, float(auroc(scores[:, design.val], design.val_labels).mean()))


def components(design: Design, x: Float[np.ndarray, "row p"]) -> Scored:
    """Return the logistic probe of the first principal components of train."""
    standard = standardise(x, design.train)
    axes = np.linalg.svd(standard[design.train], full_matrices=False)[2][:COMPONENTS]
    return logistic(design, (standard @ axes.T)[None])


def _separation(
    design: Design, standard: Float[np.ndarray, "row m"], weights: Float[np.ndarray, "draw train"]
) -> Float[np.ndarray, "draw m"]:
    labels = np.broadcast_to(design.labels.astype(np.float64), weights.shape)
    return separation(standard[design.train], labels, weights)
