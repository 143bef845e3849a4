"""Rates of latents in two models: intervals by drawing groups, one p-value for all latents by swapping models.

Where the models do not differ, it is chance which of a group's two sets of states came from which model. A swap turns
the sign of a group's difference; the largest statistic over all latents of each swap is what the observed ones are held
against (max-T: Westfall & Young 1993). Each latent is in units of the root of its groups' summed squared differences,
which no swap changes. Source: specification of `sae_features`, section 8.4.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csc_array, csr_array

from checks.sae_features.dictionary.grouped import LEVEL, Groups
from checks.statistics import proportion_interval

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from checks.sae_features.probes.diffing_codes import Codes

SWAPS = 200
"""Swaps of the two models (section 8.4): p is at least 1 / 201."""

LATENTS_AT_ONCE = 1024
"""Latents whose draws are held at a time; bounds memory, not the result."""

ROUNDING = 1e-9
"""Statistics that are equal but for the order of a sum count as equal."""

POWER_DRAWS, POWER_RAISES = 40, (0.1, 0.25, 0.5, 1.0)
"""Plants a point of the power curve, and shares of the rows of label 1 at which a latent that was off is put on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Intervals:
    """A number a latent, with 95 % percentile intervals of the group bootstrap."""

    value: Float[np.ndarray, " m"]
    low: Float[np.ndarray, " m"]
    high: Float[np.ndarray, " m"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Swapped:
    """Which latents differ by more than swaps of the models explain."""

    t: Float[np.ndarray, " m"]
    """Sum of the groups' differences over the root of the sum of their squares; 0 where nothing differs."""
    largest: Float[np.ndarray, " swap"]
    """Largest |t| over all latents of each swap."""
    by_group: Float[np.ndarray, "group live"]
    """Each group's part of the difference, of live latents; sums to it."""
    off: Int[np.ndarray, "group live"]
    """Rows of label 1 (all rows, in the plain form) at which the submitted model has a live latent off."""
    rows: int
    """Rows of label 1, or all."""

    @property
    def p(self) -> float:
        """Chance of a largest |t| as large as the observed one, at least 1 / (swaps + 1)."""
        return float(self.adjusted(np.abs(self.t).max(keepdims=True))[0])

    @property
    def latent(self) -> int:
        """The latent of the largest |t|; of equal ones the first."""
        return int(np.abs(self.t).argmax())

    def adjusted(self, t: Float[np.ndarray, " any"] | None = None) -> Float[np.ndarray, " any"]:
        """Return p of each statistic (those of all latents where none are given), corrected for all latents."""
        seen = np.abs(self.t if t is None else t) * (1 - ROUNDING)
        above = len(self.largest) - np.searchsorted(np.sort(self.largest), seen, side="left")
        return np.asarray((1 + above) / (1 + len(self.largest)))


def rates(
    submitted: Codes,
    base: Codes,
    live: Bool[np.ndarray, " m"],
    drawn: Groups,
    rng: np.random.Generator,
    swaps: int,
    positive: Bool[np.ndarray, " n"] | None = None,
) -> tuple[Intervals, Swapped]:
    """Return differences of rates, or of P(on | positive) - P(on | not), submitted minus base.

    Args:
        submitted: partnered, row by row, with
        base: the other model.
        live: latents that are looked at; of others the difference is 0.
        drawn: groups of the rows, and draws.
        rng: draws the swaps.
        swaps: how many.
        positive: rows of label 1; None compares plain rates.
    """
    parts = [np.ones(drawn.rows, bool)] if positive is None else [positive, ~positive]
    counts = [np.bincount(drawn.index[part], minlength=drawn.count) for part in parts]
    signs = rng.integers(0, 2, (swaps, drawn.count)) * 2.0 - 1.0
    m, places = len(live), np.flatnonzero(live)
    value, low, high, t = np.zeros(m), np.zeros(m), np.zeros(m), np.zeros(m)
    largest, shares, off = np.zeros(swaps), [], []
    for some in _chunks(places):
        on = _on(submitted.f[:, some])
        changed = on - _on(base.f[:, some])
        sums = [(_by_group(drawn, part) @ changed).toarray() for part in parts]
        share = _contrast([one / count.sum() for one, count in zip(sums, counts, strict=True)])
        value[some] = share.sum(0)
        low[some], high[some] = _bounds(value[some], _draws(drawn, sums, counts))
        root = np.sqrt((share**2).sum(0))
        t[some] = _over(share.sum(0), root)
        largest = np.maximum(largest, np.abs(_over(signs @ share, root)).max(1, initial=0.0))
        shares.append(share)
        off.append(counts[0][:, None] - (_by_group(drawn, parts[0]) @ on).toarray().astype(np.int64))
    told = Swapped(
        t=t,
        largest=largest,
        by_group=np.concatenate(shares, axis=1),
        off=np.concatenate(off, axis=1),
        rows=int(counts[0].sum()),
    )
    return Intervals(value=value, low=low, high=high), told


def mean_on(submitted: Codes, base: Codes, live: Bool[np.ndarray, " m"], drawn: Groups) -> Intervals:
    """Return the difference of E[g_i | on]; NaN where one model never has the latent on, or hardly a draw has."""
    m = len(live)
    value, low, high = np.full(m, np.nan), np.full(m, np.nan), np.full(m, np.nan)
    everywhere = _by_group(drawn, np.ones(drawn.rows, bool))
    for some in _chunks(np.flatnonzero(submitted.live & base.live)):
        means, draws = [], []
        for one in (submitted, base):
            total = (everywhere @ one.f[:, some]).toarray() * one.sizes[some]
            times_on = (everywhere @ _on(one.f[:, some])).toarray()
            means.append(_over(total.sum(0), times_on.sum(0)))
            with np.errstate(divide="ignore", invalid="ignore"):
                draws.append((drawn.times @ total) / (drawn.times @ times_on))
        value[some] = means[0] - means[1]
        low[some], high[some] = _bounds(value[some], draws[0] - draws[1])
    return Intervals(value=value, low=low, high=high)


@dataclass(frozen=True)
class Power:
    """How often a planted change is told."""

    raised: float
    """Share of the rows of label 1 (of all rows, in the plain form) with a live latent off at which it was put on."""
    detected: float
    low: float
    high: float
    """Wilson, 95 %."""
    draws: int


def power(
    swapped: Swapped,
    rng: np.random.Generator,
    *,
    alpha: float = 0.05,
    raises: tuple[float, ...] = POWER_RAISES,
    draws: int = POWER_DRAWS,
) -> tuple[Power, ...]:
    """Return how often this comparison tells a latent whose rate rose on positive rows of the submitted model.

    The plant is added to what the two models show already, so their drift is in it; the null is that of the swaps.

    Args:
        swapped: of the comparison whose power is asked.
        rng: draws latents and rows.
        alpha: level of the max-T test.
        raises: shares of the rows of label 1 with the latent off at which it comes on.
        draws: plants a share.
    """
    told = []
    for raised in raises:
        found = 0
        for _ in range(draws):
            latent = rng.integers(swapped.by_group.shape[1])
            planted = swapped.by_group[:, latent] + rng.binomial(swapped.off[:, latent], raised) / swapped.rows
            t = _over(planted.sum(keepdims=True), np.sqrt((planted**2).sum(keepdims=True)))
            found += int(swapped.adjusted(t)[0] <= alpha)
        told.append(Power(raised, found / draws, *proportion_interval(found, draws), draws))
    return tuple(told)


def _chunks(places: Int[np.ndarray, " live"]) -> Iterator[Int[np.ndarray, " some"]]:
    for begin in range(0, len(places), LATENTS_AT_ONCE):
        yield places[begin : begin + LATENTS_AT_ONCE]


def _on(f: csc_array) -> csc_array:
    """Return 1 where a latent is on; what is stored is positive."""
    return csc_array((np.ones_like(f.data), f.indices, f.indptr), shape=f.shape)


def _by_group(drawn: Groups, part: Bool[np.ndarray, " n"]) -> csr_array:
    """Return the matrix [group, n] that sums the rows of a part by group."""
    rows = np.flatnonzero(part)
    return csr_array((np.ones(len(rows)), (drawn.index[rows], rows)), shape=(drawn.count, drawn.rows))


def _contrast(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else parts[0] - parts[1]


def _draws(drawn: Groups, sums: list[np.ndarray], counts: list[np.ndarray]) -> Float[np.ndarray, "resample some"]:
    """Return the difference in each resample; NaN in one that holds no row of a label."""
    with np.errstate(divide="ignore", invalid="ignore"):
        pairs = zip(sums, counts, strict=True)
        return _contrast([(drawn.times @ one) / (drawn.times @ count)[:, None] for one, count in pairs])


def _bounds(value: np.ndarray, draws: Float[np.ndarray, "resample some"]) -> tuple[np.ndarray, np.ndarray]:
    """Return the percentile interval of each column's finite draws; it holds its own estimate."""
    tails = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    known = np.isfinite(draws)
    if known.all():
        low, high = np.quantile(draws, tails, axis=0)
    else:
        pairs = zip(draws.T, known.T, strict=True)
        kept = [np.quantile(one[ok], tails) if ok.any() else (np.nan, np.nan) for one, ok in pairs]
        low, high = np.array(kept).T
    return np.fmin(value, low), np.fmax(value, high)


def _over(number: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Return a quotient, 0 where the divisor is."""
    return np.asarray(number / np.where(by > 0, by, 1.0) * (by > 0))
