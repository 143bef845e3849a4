"""Whether a model does better on a benchmark than its results elsewhere foretell. Specification: section 7.4.

Source of the idea: Dekoninck et al. 2024 (ConStat, arXiv 2405.16281). A line on logits stands for their splines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, logit

from checks.contamination.shares_estimate import DRAWS, Estimate, quantiles

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Real

MODELS_MIN = 6
"""Reference models below which the line is not fitted (7.4)."""

MARGIN = 0.02
"""Gain in accuracy that is not called one (7.4): a line through a handful of models is not better than that."""


NO_SPREAD = 1e-12
"""Weighted squared spread of the reference models' scores (logits) below which a line has no slope: rounding of float64
sums of a few dozen logits of size 1 stays well under it."""


@dataclass(frozen=True)
class Transfer:
    """Accuracy on the audited benchmark beyond what the line foretells."""

    delta: Estimate
    """As a share of items; null 0."""
    p: float
    """(1 + #{delta* <= `MARGIN`}) / (1 + draws)."""
    models: int


@dataclass(frozen=True)
class Answers:
    """Correct answers, the target's and those of reference models on the same items."""

    target: Int[np.ndarray, " item"]
    others: Int[np.ndarray, "model item"]
    chance: float
    """Accuracy of guessing."""


def transfer_test(
    reference: Answers, audited: Answers, paired: bool, rng: np.random.Generator, draws: int = DRAWS
) -> Transfer | None:
    """Return the target's gain, or None with fewer than `MODELS_MIN` reference models.

    Args:
        reference: on the benchmark that foretells.
        audited: on the audited one, by the same reference models in the same order.
        paired: whether item i of both benchmarks is the same problem (a rewritten one): they are then drawn together.
        rng: draws items, then models; the chance point is always kept.
        draws: how many.

    Raises:
        ValueError: models or items differ in number, a set is empty, or a chance is not a probability below 1.
    """
    models = len(audited.others)
    if len(reference.others) != models or not len(reference.target) or not len(audited.target):
        raise ValueError(f"{len(reference.others)} and {models} models")
    if paired and len(reference.target) != len(audited.target):
        raise ValueError(f"{len(reference.target)} and {len(audited.target)} items are no pairs")
    if any(not 0 <= one.chance < 1 or one.others.shape[1] != len(one.target) for one in (reference, audited)):
        raise ValueError("answers of models are not on the target's items, or a chance is none")
    if models < MODELS_MIN:
        return None
    delta = float(_deltas(reference, audited, None, None, np.ones((1, models)))[0])
    told = np.empty(draws)
    items = len(audited.target)
    for draw in range(draws):
        rows = rng.integers(0, items, items)
        other = rows if paired else rng.integers(0, len(reference.target), len(reference.target))
        weights = rng.multinomial(models, np.full(models, 1 / models))[None, :]
        told[draw] = _deltas(reference, audited, other, rows, weights)[0]
    low, high = quantiles(told)
    p = (1 + int((told <= MARGIN).sum())) / (1 + draws)
    estimate = Estimate(delta, min(low, delta), max(high, delta), items, "bootstrap", 0.0)
    return Transfer(estimate, p, models)


def _deltas(
    reference: Answers,
    audited: Answers,
    reference_rows: Int[np.ndarray, " item"] | None,
    audited_rows: Int[np.ndarray, " item"] | None,
    weights: Real[np.ndarray, "draw model"],
) -> Float[np.ndarray, " draw"]:
    x, x_target, x_chance = _logits(reference, reference_rows)
    y, _, y_chance = _logits(audited, audited_rows)
    xs, ys = np.append(x, x_chance), np.append(y, y_chance)
    weight = np.concatenate([weights, np.ones((len(weights), 1))], axis=1)
    slope, intercept = _lines(xs, ys, weight)
    target = audited.target if audited_rows is None else audited.target[audited_rows]
    return np.asarray(target.mean() - expit(intercept + slope * x_target))


def _logits(
    answers: Answers, rows: Int[np.ndarray, " item"] | None
) -> tuple[Float[np.ndarray, " model"], float, float]:
    """Return logit((correct + .5) / (n + 1)) of the models, of the target and of a guess."""
    n = len(answers.target)
    others = answers.others if rows is None else answers.others[:, rows]
    target = answers.target if rows is None else answers.target[rows]
    return (
        np.asarray(logit((others.sum(axis=1) + 0.5) / (n + 1))),
        float(logit((target.sum() + 0.5) / (n + 1))),
        float(logit((answers.chance * n + 0.5) / (n + 1))),
    )


def _lines(
    x: Float[np.ndarray, " point"], y: Float[np.ndarray, " point"], weight: Float[np.ndarray, "draw point"]
) -> tuple[Float[np.ndarray, " draw"], Float[np.ndarray, " draw"]]:
    """Return slopes, never below 0, and intercepts of weighted least squares."""
    total = weight.sum(axis=1)
    mean_x, mean_y = weight @ x / total, weight @ y / total
    spread = weight @ x**2 - total * mean_x**2
    shared = weight @ (x * y) - total * mean_x * mean_y
    slope = np.where(spread > NO_SPREAD, np.maximum(shared, 0) / np.maximum(spread, NO_SPREAD), 0.0)
    return slope, mean_y - slope * mean_x
