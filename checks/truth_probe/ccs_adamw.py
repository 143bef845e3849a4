"""CCS as its authors train it: AdamW over the full batch, all restarts of a layer in one product.

Specification: section 5.4, parity. AdamW: Loshchilov & Hutter 2019 (arXiv 1711.05101), with decoupled weight decay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from checks.truth_probe.ccs_loss import loss_and_gradient

if TYPE_CHECKING:
    from jaxtyping import Float

EPOCHS = 1000
"""Steps over the full batch (5.4; Burns et al. 2022, appendix)."""

BETA1, BETA2, EPS, DECAY = 0.9, 0.999, 1e-8, 0.01
"""AdamW's constants (5.4): the usual ones, which the authors' code leaves as they are; decay acts on the bias too."""


@dataclass(frozen=True)
class Preset:
    """A published way to start and to step."""

    rate: float
    start: Literal["sphere", "uniform"]


PRESETS = {"paper": Preset(0.01, "sphere"), "public_code": Preset(0.001, "uniform")}
"""As the paper says and as the authors' released code does (5.4); both take 10 restarts."""


def starts(kind: str, restarts: int, width: int, rng: np.random.Generator) -> Float[np.ndarray, "restart weights"]:
    """Return where restarts begin, bias last.

    Args:
        kind: "sphere" puts weights and bias together on the unit sphere; "uniform" draws each within 1 / sqrt(width).
        restarts: rows.
        width: weights beside the bias.
        rng: source of the draws.
    """
    if kind == "uniform":
        return np.asarray(rng.uniform(-1.0, 1.0, (restarts, width + 1)) / np.sqrt(width))
    drawn = rng.standard_normal((restarts, width + 1))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def adamw(
    start: Float[np.ndarray, "restart weights"],
    stack: Float[np.ndarray, "text weights"],
    rate: float,
    epochs: int = EPOCHS,
) -> Float[np.ndarray, "restart weights"]:
    """Return the weights after some epochs, float32.

    Args:
        start: weights to begin with, bias last.
        stack: float32 states with a column of ones.
        rate: learning rate.
        epochs: steps; every step sees every pair.
    """
    theta = start.astype(np.float32)
    mean, square, step = np.zeros_like(theta), np.zeros_like(theta), np.empty_like(theta)
    for epoch in range(1, epochs + 1):
        gradient = loss_and_gradient(theta, stack)[1]
        theta *= np.float32(1 - rate * DECAY)
        mean *= np.float32(BETA1)
        mean += np.multiply(gradient, np.float32(1 - BETA1), out=step)
        np.multiply(gradient, gradient, out=gradient)
        square *= np.float32(BETA2)
        square += np.multiply(gradient, np.float32(1 - BETA2), out=gradient)
        np.sqrt(square, out=step)
        step *= np.float32(1 / np.sqrt(1 - BETA2**epoch))
        step += np.float32(EPS)
        np.divide(mean, step, out=step)
        theta -= np.multiply(step, np.float32(rate / (1 - BETA1**epoch)), out=step)
    return theta
