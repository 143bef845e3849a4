"""Bits a token that a dictionary saves over a Gaussian code at the same distortion.

A two-part code: which latents are on and their rounded values, then what is left as Gaussian noise down to a fixed
distortion. The code is fitted on half of the groups and its length measured on the other half. It is the headline
number because EV ranks the wrong dictionary first and this does not. Sources: specification of `sae_features`,
section 6; description length of dictionaries, Ayonrinde et al. 2024 (2410.11179); the Gaussian part is the rate at a
distortion D in every dimension (reverse water-filling; Cover & Thomas, Elements of Information Theory, 10.3.3).

Where the norm is one of each token, decoding takes numbers from the state itself: they are rounded, coded and paid for,
and the residual is what decoding with the rounded ones leaves (norms.py says how finely).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from checks.sae_features.dictionary.grouped import RESAMPLES, Estimate, Groups, mean
from checks.sae_features.dictionary.norms import coded

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from checks.sae_features.dictionary.value import Dictionary

LEVELS = (2, 4, 8, 16, 32)
"""Numbers of cells that are tried; the shortest total counts (specification, section 6)."""

RANGE_QUANTILE = 0.999
"""Values are rounded within [0, this quantile of the positive values]; beyond it they are clipped (section 6)."""

LEAST_ROWS, ROWS_PER_DIMENSION = 20_000, 50
"""Fewer rows leave the eigenvalues of the residual too noisy: max(20,000, 50 d) (specification, section 6)."""

WEIGHT_BITS = 16
"""Bits a weight of the decoder, for the cost that is printed beside the gain and never subtracted (section 6)."""

ROWS_AT_ONCE = 4096
"""Rows encoded at a time; bounds memory, not the result."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CodeGain:
    """Code lengths in bits a token, measured on the second half."""

    epsilon: float
    """Distortion as a share of the variance, in every dimension."""
    gain: Estimate
    """null - total; its interval holds the fitted code fixed and follows the eigenvalues to first order."""
    null: float
    """A Gaussian code of x."""
    switches: float
    """Which latents are on."""
    values: float
    """Rounded values of those that are."""
    residual: float
    """What decoding the rounded values leaves."""
    norm: float = 0.0
    """Rounded scale of each token (LayerNorm: and its mean), where decoding takes them from the state; else 0."""
    levels: int
    """Cells of the rounding that gave the shortest total."""
    ev: float
    """1 - residual variance / variance on the second half, nothing rounded."""
    dictionary_bits: float
    """16 m d / rows: printed beside, not subtracted."""
    rows_fitted: int
    rows_measured: int
    flags: tuple[str, ...] = field(default=())
    """epsilon_above_residual: the code pays for precision that the distortion does not ask.
    too_few_rows: fewer than max(20,000, 50 d)."""

    @property
    def total(self) -> float:
        """Bits a token of the dictionary's code."""
        return self.norm + self.switches + self.values + self.residual


@dataclass(frozen=True, eq=False)
class _Active:
    """Entries that are on, in row order."""

    row: Int[np.ndarray, " entry"]
    latent: Int[np.ndarray, " entry"]
    value: Float[np.ndarray, " entry"]
    rows: int
    latents: int

    def part(self, inside: Bool[np.ndarray, " row"]) -> _Active:
        """Return the entries of some rows, which are numbered anew."""
        here, number = inside[self.row], np.cumsum(inside) - 1
        return _Active(number[self.row[here]], self.latent[here], self.value[here], int(inside.sum()), self.latents)


@dataclass(frozen=True, eq=False)
class _Part:
    """One number of cells, and what it costs."""

    levels: int
    switches: float
    values: float
    residual: float
    per_row: Float[np.ndarray, " row"]
    """Bits of each row; their mean is the total, the residual's share of a row is its influence."""


def first_half(groups: Sequence[str]) -> Bool[np.ndarray, " row"]:
    """Return which rows the code is fitted on: those whose group's SHA-256 is even."""
    half = {name: hashlib.sha256(name.encode()).digest()[-1] % 2 == 0 for name in set(groups)}
    return np.array([half[name] for name in groups])


def code_gain(
    dictionary: Dictionary,
    x: Float[torch.Tensor, "row d"],
    groups: Sequence[str],
    epsilon: float,
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> CodeGain:
    """Return how many bits a token the dictionary saves over a Gaussian code of the same distortion.

    Args:
        dictionary: takes raw states.
        x: held-out states without special positions.
        groups: group of each row; groups are halved by their hash.
        epsilon: distortion as a share of the variance.
        rng: draws the resamples; the same label on the same groups pairs two dictionaries.
        resamples: draws.

    Raises:
        ValueError: epsilon is outside (0, 1), lengths differ, a half holds no row, or the states do not vary.
    """
    if not 0 < epsilon < 1 or len(x) != len(groups):
        raise ValueError(f"epsilon {epsilon} must lie in (0, 1); {len(x)} rows have {len(groups)} groups")
    fitted = first_half(groups)
    if fitted.all() or not fitted.any():
        raise ValueError(f"{len(set(groups))} groups cannot be halved: give more groups")
    active = _encode(dictionary, x)
    a, b = active.part(fitted), active.part(~fitted)
    states = x[torch.from_numpy(~fitted)]
    exact = states.double().numpy()
    null, null_rows = _gaussian(exact, exact, epsilon)
    taken = dictionary.side(x).double().numpy()
    norm, rounded = coded(taken[fitted], taken[~fitted], epsilon * float(((exact - exact.mean(0)) ** 2).mean()))
    best = _shortest(dictionary, a, b, torch.from_numpy(rounded), exact, epsilon)
    drawn = Groups([name for name, first in zip(groups, fitted, strict=True) if not first], rng, resamples)
    error = exact - _decode(dictionary, b, dictionary.side(states))
    ev = 1.0 - float((error**2).sum()) / float(((exact - exact.mean(0)) ** 2).sum())
    return CodeGain(
        epsilon=epsilon,
        gain=drawn.estimate(mean, np.ones(b.rows), null_rows - best.per_row - norm),
        null=null,
        switches=best.switches,
        values=best.values,
        residual=best.residual,
        norm=float(norm.mean()),
        levels=best.levels,
        ev=ev,
        dictionary_bits=WEIGHT_BITS * active.latents * exact.shape[1] / len(x),
        rows_fitted=a.rows,
        rows_measured=b.rows,
        flags=_flags(epsilon, ev, *x.shape),
    )


def _shortest(
    dictionary: Dictionary,
    a: _Active,
    b: _Active,
    taken: Float[torch.Tensor, "row number"],
    exact: Float[np.ndarray, "row d"],
    epsilon: float,
) -> _Part:
    """Return the number of cells whose total is shortest, and that total's parts."""
    switches = _switch_bits(a, b)
    parts = []
    for levels in LEVELS:
        values, rounded = _rounded(a, b, levels)
        residual, by_row = _gaussian(exact - _decode(dictionary, rounded, taken), exact, epsilon)
        parts.append(_Part(levels, float(switches.mean()), float(values.mean()), residual, switches + values + by_row))
    return min(parts, key=lambda part: part.switches + part.values + part.residual)


def _flags(epsilon: float, ev: float, rows: int, d: int) -> tuple[str, ...]:
    found = {
        "epsilon_above_residual": epsilon > 1 - ev,
        "too_few_rows": rows < max(LEAST_ROWS, ROWS_PER_DIMENSION * d),
    }
    return tuple(name for name, applies in found.items() if applies)


def _encode(dictionary: Dictionary, x: Float[torch.Tensor, "row d"]) -> _Active:
    rows, latents, values = [], [], []
    for begin in range(0, len(x), ROWS_AT_ONCE):
        f = dictionary.encode(x[begin : begin + ROWS_AT_ONCE]).numpy()
        row, latent = np.nonzero(f > 0)
        rows.append(row + begin)
        latents.append(latent)
        values.append(f[row, latent].astype(np.float64))
    together = (np.concatenate(rows), np.concatenate(latents), np.concatenate(values))
    return _Active(*together, len(x), dictionary.latents)


def _decode(
    dictionary: Dictionary, active: _Active, taken: Float[torch.Tensor, "row number"]
) -> Float[np.ndarray, "row d"]:
    """Return the reconstructions of entries, a few rows of dense latents at a time."""
    found = np.empty((active.rows, dictionary.width))
    for begin in range(0, active.rows, ROWS_AT_ONCE):
        end = min(begin + ROWS_AT_ONCE, active.rows)
        first, last = np.searchsorted(active.row, [begin, end])
        f = torch.zeros(end - begin, active.latents, dtype=dictionary.w_dec.dtype)
        at = (torch.from_numpy(active.row[first:last] - begin), torch.from_numpy(active.latent[first:last]))
        f[at] = torch.from_numpy(active.value[first:last]).to(f.dtype)
        found[begin:end] = dictionary.decode(f, taken=taken[begin:end].to(f.dtype)).double().numpy()
    return found


def _switch_bits(a: _Active, b: _Active) -> Float[np.ndarray, " row"]:
    """Return, for each row of b, the bits that say which latents are on: p = (n_on + 1/2) / (n_a + 1) from a."""
    p = (np.bincount(a.latent, minlength=a.latents) + 0.5) / (a.rows + 1.0)
    on, off = -np.log2(p), -np.log2(1.0 - p)
    return float(off.sum()) + np.bincount(b.row, weights=(on - off)[b.latent], minlength=b.rows)


def _rounded(a: _Active, b: _Active, levels: int) -> tuple[Float[np.ndarray, " row"], _Active]:
    """Return, for each row of b, the bits of its rounded values, and the entries as they decode.

    Cells are uniform on [0, 99.9 % quantile of the latent's positive values in a] and decode at their centre; a cell
    costs -log2 (count + 1/2) / sum, counted in a. A latent that was never on in a has no code for its values: they stay
    in the residual, and its switches were paid.
    """
    top = _tops(a)
    known = top > 0
    width = np.where(known, top, 1.0) / levels
    counts = (
        np.bincount(a.latent * levels + _cell(a, width, levels), minlength=a.latents * levels).reshape(-1, levels) + 0.5
    )
    bits = -np.log2(counts / counts.sum(1, keepdims=True))
    here = _cell(b, width, levels)
    cost = np.where(known[b.latent], bits[b.latent, here], 0.0)
    values = np.where(known[b.latent], (here + 0.5) * width[b.latent], 0.0)
    per_row = np.bincount(b.row, weights=cost, minlength=b.rows)
    return per_row, _Active(b.row, b.latent, values, b.rows, b.latents)


def _cell(part: _Active, width: Float[np.ndarray, " m"], levels: int) -> Int[np.ndarray, " entry"]:
    return np.asarray(np.minimum(part.value / width[part.latent], levels - 1), dtype=np.int64)


def _tops(a: _Active) -> Float[np.ndarray, " m"]:
    """Return the upper end of each latent's range; 0 where it was never on."""
    order = np.argsort(a.latent, kind="stable")
    ends = np.cumsum(np.bincount(a.latent, minlength=a.latents))
    top = np.zeros(a.latents)
    for latent, values in enumerate(np.split(a.value[order], ends[:-1])):
        if len(values):
            top[latent] = np.quantile(values, RANGE_QUANTILE)
    return top


def _gaussian(
    rows: Float[np.ndarray, "row d"], states: Float[np.ndarray, "row d"], epsilon: float
) -> tuple[float, Float[np.ndarray, " row"]]:
    """Return 1/2 sum_j log2 max(1, lambda_j / D) of the rows' covariance, and that sum's value by row, to first order.

    D is a share of the variance of the states. A row moves the sum by (1 / 2 ln 2) (sum_j u_j(row)² / lambda_j - 1 -
    (its share of D - 1)), over the eigenvalues above D; these values have the sum as their mean.
    """
    whole, centred = states - states.mean(0), rows - rows.mean(0)
    distortion = epsilon * float((whole**2).mean())
    if not distortion:
        raise ValueError("the states of the second half do not vary")
    eigenvalues, vectors = np.linalg.eigh(centred.T @ centred / len(rows))
    above = eigenvalues > distortion
    bits = 0.5 * float(np.log2(eigenvalues[above] / distortion).sum())
    brought = (whole**2).mean(1) * (epsilon / distortion)
    scores = ((centred @ vectors[:, above]) ** 2 / eigenvalues[above]).sum(1)
    return bits, bits + (scores - above.sum() * brought) / (2.0 * np.log(2.0))
