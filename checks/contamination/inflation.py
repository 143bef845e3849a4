"""By how much found leaks raised a score, at least. Specification: section 8.

A handful of reference models know an item's difficulty badly, and what they miss of the difference between flagged and
unflagged items would be taken for inflation: flagged items that are 1.5 logits easier and did not help at all had a
lower bound above 0 in .88 of runs with 4 models and .60 with 8. So the difficulties are regressed towards their group's
mean by their reliability (regression calibration: Carroll et al. 2006, chapter 4), which leaves .06 and .00 (planted
answers, 80 runs each).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, logit

from checks.contamination.shares_estimate import DRAWS, Estimate, cluster_weights, quantiles

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

MODELS_MIN = 4
"""Reference models below which an item's difficulty is not known (section 8)."""

ITEMS_MIN = 20
"""Flagged, and unflagged, items below which nothing is told (section 8)."""

RIDGE = 1e-3
"""Penalty (section 8) on the sum of log-losses, half its square norm, intercept too: it moves no estimate that the data
fix, and keeps those finite that they do not (all flagged items correct)."""

STEPS_MAX = 60
"""Newton steps; a fit that data fix takes about eight, one that only the ridge fixes about thirty."""

STEP_MAX = 4.0
"""Longest Newton step, in logits: a longer one overshoots where the log-loss is nearly flat."""

CONVERGED = 1e-8
"""Largest step, in logits, of a fit that has come to rest: two digits below what is told."""


@dataclass(frozen=True)
class Inflation:
    """How much better the target does on flagged items, as a share of items; null 0."""

    raw: Estimate
    """Accuracy on all items less that on unflagged ones; confounded by difficulty."""
    adjusted: Estimate
    """Mean over flagged items of P(correct | flagged) - P(correct | not), at equal difficulty."""
    flagged: int
    unflagged: int
    models: int
    dropped: int
    """Bootstrap draws without a flagged or without an unflagged item."""


def inflation(
    correct: Int[np.ndarray, " item"],
    others: Int[np.ndarray, "model item"],
    flags: Bool[np.ndarray, " item"],
    template: Int[np.ndarray, " item"],
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> Inflation | None:
    """Return raw and adjusted inflation, or None with too few models, flagged or unflagged items.

    Args:
        correct: whether the target answers each item correctly, 0 or 1.
        others: the same of reference models.
        flags: items found in the corpus.
        template: each item's, numbers from 0 without gaps; whole templates are drawn.
        rng: generator of the bootstrap.
        draws: how many.

    Raises:
        ValueError: numbers of items differ.
    """
    items, flagged = len(correct), int(flags.sum())
    if others.shape[1:] != (items,) or len(flags) != items or len(template) != items:
        raise ValueError(f"{items} items, {len(flags)} flags, answers of shape {others.shape}")
    if len(others) < MODELS_MIN or min(flagged, items - flagged) < ITEMS_MIN:
        return None
    design = np.stack([np.ones(items), calibrated(others, flags), flags.astype(np.float64)], axis=1)
    weights = np.concatenate([np.ones((1, items)), cluster_weights(template, draws, rng)])
    both = ((weights @ flags) > 0) & ((weights @ ~flags) > 0)
    weights = weights[both]
    raws = weights @ correct / weights.sum(axis=1) - weights @ (correct * ~flags) / (weights @ ~flags)
    adjusted = _gains(design, correct, flags, weights)
    return Inflation(
        raw=_estimate(raws, items),
        adjusted=_estimate(adjusted, items),
        flagged=flagged,
        unflagged=items - flagged,
        models=len(others),
        dropped=int((~both).sum()),
    )


def calibrated(others: Int[np.ndarray, "model item"], flags: Bool[np.ndarray, " item"]) -> Float[np.ndarray, " item"]:
    """Return items' easiness in logits, each drawn towards the mean of its group by how unreliable it is.

    The reliability is that of two halves of the models, stepped up to all of them (Spearman & Brown 1910). Models are
    dealt to the halves in order of their accuracy, so that both are as able.

    Args:
        others: whether each reference model answers each item correctly.
        flags: the groups.
    """
    order = np.argsort(-others.sum(axis=1), kind="stable")
    first, second, whole = (_easiness(others[part], flags) for part in (order[::2], order[1::2], order))
    norm = float(np.sqrt((first[1] @ first[1]) * (second[1] @ second[1])))
    shared = max(0.0, float(first[1] @ second[1]) / norm) if norm > 0 else 0.0
    return whole[0] + 2 * shared / (1 + shared) * whole[1]


def _easiness(
    others: Int[np.ndarray, "model item"], flags: Bool[np.ndarray, " item"]
) -> tuple[Float[np.ndarray, " item"], Float[np.ndarray, " item"]]:
    """Return each item's group mean of logit((correct + .5) / (models + 1)), and its distance from it."""
    told = logit((others.sum(axis=0) + 0.5) / (len(others) + 1))
    centre = np.where(flags, told[flags].mean(), told[~flags].mean())
    return centre, told - centre


def _estimate(values: Float[np.ndarray, " draw"], n: int) -> Estimate:
    """Return the first value with the interval of the others."""
    low, high = quantiles(values[1:]) if len(values) > 1 else (-1.0, 1.0)
    value = float(values[0])
    return Estimate(value, min(low, value), max(high, value), n, "bootstrap", 0.0)


def _gains(
    design: Float[np.ndarray, "item 3"],
    correct: Int[np.ndarray, " item"],
    flags: Bool[np.ndarray, " item"],
    weights: Float[np.ndarray, "draw item"],
) -> Float[np.ndarray, " draw"]:
    told = np.empty(len(weights))
    block = max(1, _BLOCK // len(correct))
    for start in range(0, len(weights), block):
        part = weights[start : start + block]
        theta = fit_ridge(design, correct, part)
        with_flag = theta[:, :1] + theta[:, 1:2] * design[flags, 1] + theta[:, 2:]
        gain = expit(with_flag) - expit(with_flag - theta[:, 2:])
        told[start : start + block] = (part[:, flags] * gain).sum(axis=1) / part[:, flags].sum(axis=1)
    return told


def fit_ridge(
    design: Float[np.ndarray, "item column"],
    correct: Int[np.ndarray, " item"],
    weights: Float[np.ndarray, "draw item"],
) -> Float[np.ndarray, "draw column"]:
    """Return the ridge logistic fit of every draw, all stepped together by Newton's method.

    Args:
        design: columns of every item, the intercept's among them.
        correct: 0 or 1.
        weights: how often each item occurs in each draw.
    """
    columns = design.shape[1]
    theta = np.zeros((len(weights), columns))
    squares = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    for _ in range(STEPS_MAX):
        told = expit(theta @ design.T)
        gradient = (weights * (correct - told)) @ design - RIDGE * theta
        curve = ((weights * told * (1 - told)) @ squares).reshape(-1, columns, columns) + RIDGE * np.eye(columns)
        step = np.linalg.solve(curve, gradient[:, :, None])[:, :, 0]
        size = np.abs(step).max(axis=1, keepdims=True)
        theta += step * np.minimum(1.0, STEP_MAX / np.maximum(size, STEP_MAX))
        if size.max() < CONVERGED:
            break
    return theta


_BLOCK = 500_000
"""Weights stepped at once, 4 MB and some nine times that in work space."""
