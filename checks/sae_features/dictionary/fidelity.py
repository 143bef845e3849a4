"""How faithfully a dictionary describes its site, by numbers that need no model: one definition each.

Sums in float64, pooled over the whole set, never a mean of batch or token ratios; intervals by drawing groups. What is
centred is centred on the mean of the set: a mean that is large hides shrinkage and makes a constant look good. Source:
specification of `sae_features`, section 6, where the peers' errors that the tests are named after are listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from checks.sae_features.dictionary.grouped import RESAMPLES, Estimate, Groups, mean
from checks.sae_features.dictionary.norms import LayerNorm, Norm, TokenRms, side

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from checks.sae_features.dictionary.value import Dictionary

BANDS: Mapping[str, tuple[int, float]] = {
    "1-7": (1, 8),
    "8-31": (8, 32),
    "32-127": (32, 128),
    "128+": (128, np.inf),
}
"""Positions by name, from and before (specification, section 6); position 0 stands in no band."""

RULE_OF_THREE = 3.0
"""Nothing seen in N tokens bounds a rate at 3 / N with 95 % confidence (Hanley & Lippman-Hand 1983, JAMA 249:1743)."""

DUPLICATE = 0.9
"""Rows above this cosine count as one direction twice (specification, section 6)."""

ROWS_AT_ONCE = 1024
"""Decoder rows compared at a time; bounds memory, not the result."""


@dataclass(frozen=True, eq=False)
class Fidelity:
    """Estimates by name, and how often each latent was on."""

    estimates: Mapping[str, Estimate]
    """ev, ev_<band>, mse (squared units, summed over d), cosine, shrink_gamma, norm_ratio, l0, l0_median, l0_p5,
    l0_p95, dead, dense01, dense01_mass, dense10, dense10_mass; ev_given_norm where the norm is one of each token."""
    rates: Float[np.ndarray, " m"]
    """p_i = P(f_i > 0)."""
    tokens: int
    """N."""

    @property
    def dead_rate_bound(self) -> float:
        """3 / N: a latent without a firing may still fire this often; `dead` is told with it."""
        return RULE_OF_THREE / self.tokens


def fidelity(
    x: Float[torch.Tensor, "row d"],
    xhat: Float[torch.Tensor, "row d"],
    f: Float[torch.Tensor, "row m"],
    groups: Sequence[str],
    *,
    rng: np.random.Generator,
    positions: Int[np.ndarray, " row"] | None = None,
    norm: Norm | None = None,
    resamples: int = RESAMPLES,
) -> Fidelity:
    """Return every metric of reconstruction and of sparsity.

    Args:
        x: held-out states without special positions.
        xhat: what the dictionary makes of them.
        f: latents, dense or CSR; on where strictly positive.
        groups: group of each row.
        rng: draws the resamples; the same label on the same groups pairs two dictionaries.
        positions: position of each row in its text, for `ev` by position.
        norm: the dictionary's; a norm of each token adds `ev_given_norm`.
        resamples: draws.

    Raises:
        ValueError: shapes differ, there is no row, or a number is not finite.
    """
    _agree(x, xhat, f, groups, positions)
    drawn = Groups(groups, rng, resamples)
    exact = x.double().numpy()
    error = exact - xhat.double().numpy()
    centred = exact - exact.mean(0)
    estimates = {"ev": _ev(drawn, centred, error)} | _shape(drawn, centred, error)
    if isinstance(norm, TokenRms | LayerNorm):
        estimates["ev_given_norm"] = _ev_given_norm(drawn, exact, side(norm, x.double()).numpy(), error)
    for band, (first, before) in BANDS.items() if positions is not None else ():
        inside = (np.asarray(positions) >= first) & (np.asarray(positions) < before)
        estimates[f"ev_{band}"] = _ev(drawn, centred, error, inside)
    active, fired = _firings(f)
    rates = fired / len(active)
    return Fidelity(estimates | _sparsity(drawn, active, rates), rates, len(active))


def _agree(
    x: torch.Tensor, xhat: torch.Tensor, f: torch.Tensor, groups: Sequence[str], positions: np.ndarray | None
) -> None:
    lengths = {len(x), len(xhat), len(f), len(groups), len(x if positions is None else positions)}
    if x.shape != xhat.shape or len(lengths) > 1:
        raise ValueError(f"x {tuple(x.shape)}, xhat {tuple(xhat.shape)}, f and groups of lengths {sorted(lengths)}")
    for name, tensor in (("x", x), ("xhat", xhat), ("f", f.values() if f.layout == torch.sparse_csr else f)):
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} holds a number that is not finite")


def _ev(
    drawn: Groups,
    centred: Float[np.ndarray, "row d"],
    error: Float[np.ndarray, "row d"],
    inside: np.ndarray | None = None,
) -> Estimate:
    """Return 1 - E‖e‖² / E‖x - mu‖², where mu is the mean of the rows inside and, in a draw, that of the draw."""
    here = np.ones(len(error)) if inside is None else inside.astype(float)
    found = drawn.estimate(
        lambda n, lost, total, square: 1.0 - lost / (square - (total**2).sum(-1) / n),
        here,
        here * (error**2).sum(1),
        here[:, None] * centred,
        here * (centred**2).sum(1),
    )
    if inside is not None:
        found = replace(found, n=int(here.sum()))
    return found


def _ev_given_norm(
    drawn: Groups,
    exact: Float[np.ndarray, "row d"],
    taken: Float[np.ndarray, "row number"],
    error: Float[np.ndarray, "row d"],
) -> Estimate:
    """Return 1 - E‖e‖² / E‖x - p‖², where p knows of each state what decoding takes from it, and nothing else.

    p is s v under TokenRms and m 1 + s v under LayerNorm, with s the state's scale, m its mean and v the one direction
    that fits best by least squares, refitted in each draw. A dictionary without latents decodes just this with v its
    bias, and reaches 0 at best; `ev`, whose reference is one constant state, calls it good where lengths vary.
    """
    scale, rest = taken[:, :1], exact - taken[:, 1:].sum(1, keepdims=True)
    rest = rest - scale * ((scale * rest).sum(0) / (scale**2).sum())  # what is fitted to a draw is then a small step
    return drawn.estimate(
        lambda lost, along, scales, square: 1.0 - lost / (square - (along**2).sum(-1) / scales),
        (error**2).sum(1),
        scale * rest,
        scale[:, 0] ** 2,
        (rest**2).sum(1),
    )


def _shape(
    drawn: Groups, centred: Float[np.ndarray, "row d"], error: Float[np.ndarray, "row d"]
) -> dict[str, Estimate]:
    """Return mse, cosine, shrink_gamma and norm_ratio; x and x̂ are both centred on the mean of x."""
    guess = centred - error
    along = (guess * centred).sum(1)
    length, reached = np.linalg.norm(centred, axis=1), np.linalg.norm(guess, axis=1)
    ones = np.ones(len(error))
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = np.nan_to_num(along / (length * reached), nan=0.0, posinf=0.0, neginf=0.0)
        ratio = np.where(length > 0, reached / length, 1.0)
    return {
        "mse": drawn.estimate(mean, ones, (error**2).sum(1)),
        "cosine": drawn.estimate(mean, ones, cosine),
        "shrink_gamma": drawn.estimate(mean, along, reached**2),
        "norm_ratio": drawn.estimate(mean, ones, ratio),
    }


def _firings(f: Float[torch.Tensor, "row m"]) -> tuple[Float[np.ndarray, " row"], Float[np.ndarray, " m"]]:
    """Return how many latents are on in each row, and in how many rows each latent is; a stored zero is off."""
    if f.layout == torch.sparse_csr:
        on = (f.values() > 0).numpy()
        row = np.repeat(np.arange(len(f)), np.diff(f.crow_indices().numpy()))
        active = np.bincount(row[on], minlength=f.shape[0])
        return active.astype(float), np.bincount(f.col_indices().numpy()[on], minlength=f.shape[1]).astype(float)
    mask = f > 0
    return mask.sum(1).double().numpy(), mask.sum(0).double().numpy()


def _sparsity(drawn: Groups, active: Float[np.ndarray, " row"], rates: Float[np.ndarray, " m"]) -> dict[str, Estimate]:
    """Return l0 and its spread, and the shares of latents that are never, often and very often on."""
    found = {"l0": drawn.estimate(mean, np.ones(len(active)), active)}
    for name, share in (("l0_median", 0.5), ("l0_p5", 0.05), ("l0_p95", 0.95)):
        found[name] = drawn.plain(float(np.quantile(active, share)))
    found["dead"] = drawn.plain(float((rates == 0).mean()))
    for name, bound in (("dense01", 0.01), ("dense10", 0.10)):
        often = rates > bound
        found[name] = drawn.plain(float(often.mean()))
        found[f"{name}_mass"] = drawn.plain(float(rates[often].sum() / rates.sum()) if rates.any() else 0.0)
    return found


def duplicates(dictionary: Dictionary) -> float:
    """Return the share of decoder rows with a cosine above `DUPLICATE` to another row."""
    rows = torch.nn.functional.normalize(dictionary.w_dec.double(), dim=1)
    found = 0
    for begin in range(0, len(rows), ROWS_AT_ONCE):
        cosines = rows[begin : begin + ROWS_AT_ONCE] @ rows.T
        own = torch.arange(len(cosines))
        cosines[own, own + begin] = 0.0
        found += int((cosines > DUPLICATE).any(1).sum())
    return found / len(rows)


def enc_dec_cosine(dictionary: Dictionary) -> float:
    """Return the median over latents of the cosine between what reads a latent and what it writes."""
    cosines = torch.nn.functional.cosine_similarity(dictionary.w_enc.T.double(), dictionary.w_dec.double(), dim=1)
    return float(np.median(cosines.numpy()))
