"""Contrast-consistent search: probes whose answers to the two texts of a pair are opposite and sure, without labels.

Burns et al. 2022 (arXiv 2212.03827). Specification: section 5.4. The objective is not convex, so every number comes
from several restarts, and a low loss says nothing of truth: any binary feature of items reaches it (Farquhar et al.
2023, arXiv 2312.10029).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from scipy.linalg import eigh

from checks.truth_probe.ccs_adamw import PRESETS, adamw, starts
from checks.truth_probe.ccs_lbfgs import minimise
from checks.truth_probe.ccs_loss import loss_and_gradient, loss_of, product, sigmoid, with_ones
from checks.truth_probe.ccs_spread import CcsSpread, dispersion
from checks.truth_probe.direction import Direction
from checks.truth_probe.displacement import components, displacement
from checks.truth_probe.pairs import PairActivations

if TYPE_CHECKING:
    from jaxtyping import Float

__all__ = ["CcsFit", "CcsSpread", "ccs_restarts", "dispersion", "mean_scale", "stack_range"]

Mode = Literal["parity", "lbfgs", "subspace"]

RESTARTS_MIN = 3
"""Fewer restarts show nothing of how the loss's minima differ (section 2)."""

L2 = 0.005
"""Weight of |theta|^2 + b^2 beside the loss in modes lbfgs and subspace (5.4): without it weights grow for ever."""

RANGE_MIN = 1e-4
"""Singular values of the stacked states that are kept, as a share of the first (5.4)."""

COS_SAYS_LITTLE_BELOW = 16
"""In fewer components restarts agree on noise too: mean |cos| .67 at k = 8 (5.4)."""


class NoRestart(ValueError):
    """Not one restart ended finite: the method has no direction here."""


@dataclass(frozen=True)
class CcsFit:
    """All restarts of one layer that ended finite, in the order they were started."""

    direction: Direction
    """The restart of lowest train loss, which is the published rule."""
    vectors: Float[np.ndarray, "restart width"]
    """Unit length, in the space of the states handed in."""
    offsets: Float[np.ndarray, " restart"]
    """Bias in units of the unit vector: a text's score is state @ vector + offset."""
    gains: Float[np.ndarray, " restart"]
    """What a text's score is multiplied by before the sigmoid."""
    train_loss: Float[np.ndarray, " restart"]
    """Without the L2 term; the constant probe has .25."""
    chosen: int
    """Row of `direction`."""
    dropped: tuple[int, ...] = ()
    """Numbers of the restarts that ended non-finite and have no row here."""
    flags: tuple[str, ...] = ()

    def answers(
        self, pairs: PairActivations
    ) -> tuple[Float[np.ndarray, "restart pair"], Float[np.ndarray, "restart pair"]]:
        """Return every restart's p (+ texts) and q (- texts) on states centred like those of the fit."""
        return _answers(self.gains[:, None] * self.vectors, self.gains * self.offsets, pairs)

    def losses(self, pairs: PairActivations) -> Float[np.ndarray, " restart"]:
        """Return every restart's loss on some pairs."""
        return loss_of(*self.answers(pairs))[0]


def _answers(
    theta: Float[np.ndarray, "restart width"], bias: Float[np.ndarray, " restart"], pairs: PairActivations
) -> tuple[Float[np.ndarray, "restart pair"], Float[np.ndarray, "restart pair"]]:
    p, q = (sigmoid(product(theta, states.T) + bias[:, None]) for states in (pairs.pos, pairs.neg))
    return p, q


def ccs_restarts(
    pairs: PairActivations,
    mode: Mode = "subspace",
    *,
    restarts: int = 10,
    subspace_k: int = 32,
    rng: np.random.Generator,
    preset: Literal["paper", "public_code"] | None = None,
    init: tuple[Float[np.ndarray, "restart width"], Float[np.ndarray, " restart"]] | None = None,
) -> CcsFit:
    """Return linear probes fitted from several starts, and the one of lowest train loss.

    Args:
        pairs: normalised train pairs; labels are never seen.
        mode: "parity" trains as published, on the states as handed in (their scaling is the normaliser's);
            "lbfgs" minimises in the range of the states; "subspace" does so in the leading displacement components.
            These two divide the states by their mean norm / sqrt(width) first and fold that back.
        restarts: starts, at least 3; ignored where `init` is given.
        subspace_k: components of mode "subspace"; fewer where the displacements have fewer.
        rng: source of the starts.
        preset: of mode "parity": "paper" (what None means too) or "public_code".
        init: explicit starts, weights and biases, in the space of `pairs`.

    Raises:
        ValueError: an unknown mode, fewer than 3 starts, states that are not pairs x width, a preset outside parity,
            or no restart that ended finite.
    """
    count = restarts if init is None else len(init[0])
    _refuse(pairs, mode, count, preset)
    # A restart that overflows is dropped and named; a warning would name nothing.
    with np.errstate(over="ignore", invalid="ignore"):
        if mode == "parity":
            return _parity(pairs, count, preset or "paper", rng, init)
        return _minimised(pairs, mode, count, subspace_k, rng, init)


def _refuse(pairs: PairActivations, mode: str, count: int, preset: str | None) -> None:
    if mode not in get_args(Mode):
        raise ValueError(f"mode {mode} is none of {', '.join(get_args(Mode))}")
    if count < RESTARTS_MIN:
        raise ValueError(f"{count} restarts: {RESTARTS_MIN} are the least that show their spread")
    if pairs.pos.ndim != 2 or pairs.pos.shape != pairs.neg.shape or not len(pairs):
        raise ValueError(f"states {pairs.pos.shape} and {pairs.neg.shape} are not the two branches of pairs")
    if preset is not None and mode != "parity":
        raise ValueError(f"preset {preset} belongs to mode parity")


def _parity(
    pairs: PairActivations,
    restarts: int,
    preset: str,
    rng: np.random.Generator,
    init: tuple[np.ndarray, np.ndarray] | None,
) -> CcsFit:
    of = PRESETS[preset]
    start = starts(of.start, restarts, pairs.pos.shape[1], rng) if init is None else np.column_stack(init)
    weights = adamw(start, with_ones(pairs.pos, pairs.neg, np.float32), of.rate)
    return _fit(pairs, weights[:, :-1].astype(np.float64), weights[:, -1].astype(np.float64), ())


def _minimised(
    pairs: PairActivations,
    mode: Mode,
    restarts: int,
    subspace_k: int,
    rng: np.random.Generator,
    init: tuple[np.ndarray, np.ndarray] | None,
) -> CcsFit:
    scale = mean_scale(pairs)
    basis = components(displacement(pairs), subspace_k) if mode == "subspace" else stack_range(pairs)
    stack = with_ones(pairs.pos @ basis / scale, pairs.neg @ basis / scale)
    if init is None:
        start = starts("sphere", restarts, basis.shape[1], rng)
    else:
        start = np.column_stack([init[0] @ basis * scale, init[1]])

    def objective(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        loss, gradient = loss_and_gradient(weights, stack)
        loss += L2 * np.einsum("ri,ri->r", weights, weights)
        gradient += 2 * L2 * weights
        return loss, gradient

    weights = minimise(objective, start)
    few = mode == "subspace" and basis.shape[1] < COS_SAYS_LITTLE_BELOW
    return _fit(pairs, weights[:, :-1] @ basis.T / scale, weights[:, -1], ("cos_says_little",) if few else ())


def mean_scale(pairs: PairActivations) -> float:
    """Return the mean norm of the states of both branches / sqrt(width), the one divisor of `scale` (5.1)."""
    total = sum(float(np.linalg.norm(states, axis=1).sum()) for states in (pairs.pos, pairs.neg))
    return max(total / (2 * len(pairs)) / float(np.sqrt(pairs.pos.shape[1])), float(np.finfo(np.float64).tiny))


def stack_range(pairs: PairActivations) -> Float[np.ndarray, "width r"]:
    """Return orthonormal axes of the space in which the states of both branches vary, the widest first."""
    width = pairs.pos.shape[1]
    # The smaller Gram matrix of the two; where texts are many they are not copied into one stack.
    if 2 * len(pairs) >= width:
        squares, vectors = eigh(pairs.pos.T @ pairs.pos + pairs.neg.T @ pairs.neg)
        held = np.flatnonzero(squares > RANGE_MIN**2 * squares[-1])[::-1]
        return np.asarray(vectors[:, held])
    stack = np.concatenate([pairs.pos, pairs.neg])
    squares, vectors = eigh(stack @ stack.T)
    held = np.flatnonzero(squares > RANGE_MIN**2 * squares[-1])[::-1]
    return np.asarray(stack.T @ vectors[:, held] / np.sqrt(squares[held]))


def _fit(
    pairs: PairActivations,
    theta: Float[np.ndarray, "restart width"],
    bias: Float[np.ndarray, " restart"],
    flags: tuple[str, ...],
) -> CcsFit:
    """Return the restarts that ended finite, at unit length, and the best of them."""
    loss = loss_of(*_answers(theta, bias, pairs))[0]
    finite = np.isfinite(theta).all(axis=1) & np.isfinite(bias) & np.isfinite(loss)
    if not finite.any():
        raise NoRestart(f"none of {len(theta)} restarts ended finite")
    dropped = tuple(int(row) for row in np.flatnonzero(~finite))
    theta, bias, loss = theta[finite], bias[finite], loss[finite]
    gains = np.maximum(np.linalg.norm(theta, axis=1), np.finfo(np.float64).tiny)
    vectors, offsets = theta / gains[:, None], bias / gains
    chosen = int(np.argmin(loss))
    flags = (*flags, "restart_dropped") if dropped else flags
    direction = Direction(vectors[chosen], "ccs", flags, float(offsets[chosen]))
    return CcsFit(direction, vectors, offsets, gains, loss, chosen, dropped, flags)
