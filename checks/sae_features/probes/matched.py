"""Sets of latents that are as large as a given set: what its ablation is compared with.

Specification of `sae_features`, section 8.1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

WIDTHS = (0.3, 0.6, 1.2)
"""|log mass ratio| within which a replacement is looked for, the next where none is left (section 8.1)."""

NEAREST = "nearest"
"""Replacements farther away than the last width."""

TRIES = 50
"""Draws that find no new set before the width grows. A set that is drawn again is no second control: where one latent
alone is near, 99 draws of it would let p reach .01 on a single comparison."""

WELL_MATCHED, WELL_SHARE = ("0.3", "0.6"), 0.90
"""Less than this share of members within .6 is told as `poorly_matched` (specification, section 10)."""


@dataclass(frozen=True, eq=False)
class Matched:
    """Control sets, no two of the same members, and how well they match."""

    sets: Int[np.ndarray, "set member"]
    """Column j stands for member j of the set that is matched."""
    widenings: Counter[str]
    """Members by the least width that holds them: "0.3", "0.6", "1.2" or "nearest"."""

    @property
    def well(self) -> float:
        """Share of members within .6."""
        return sum(self.widenings[name] for name in WELL_MATCHED) / self.widenings.total()


def matched_sets(
    latents: Sequence[int],
    masses: Float[np.ndarray, " m"],
    live: Bool[np.ndarray, " m"],
    count: int,
    rng: np.random.Generator,
) -> Matched | None:
    """Return control sets: each member replaced by a live latent of about its mass from outside, none twice in a set.

    Args:
        latents: the set that is matched.
        masses: E g_i of every latent, g = f times the norm of its row.
        live: latents that may stand in.
        count: most sets; there are fewer where the live latents make no more.
        rng: draws the replacements, uniformly among those within the width.

    Returns:
        None where fewer live latents are left than the set has members.

    Raises:
        ValueError: the set is empty or names a latent twice or out of range.
    """
    own = np.asarray(latents, dtype=np.int64)
    if not len(own) or len(set(own.tolist())) != len(own) or own.min() < 0 or own.max() >= len(masses):
        raise ValueError(f"not a set of latents of 0..{len(masses) - 1}: {own.tolist()}")
    pool = np.setdiff1d(np.flatnonzero(live), own)
    if len(pool) < len(own):
        return None
    # A latent that never fired has no logarithm; the least float keeps it far from all that did.
    log_mass = np.log(np.maximum(np.asarray(masses, dtype=np.float64), np.finfo(np.float64).tiny))
    apart = np.abs(log_mass[pool] - log_mass[own][:, None])
    widths = [*WIDTHS]
    while widths[-1] < apart.max():
        widths.append(2 * widths[-1])
    sets: dict[frozenset[int], list[int]] = {}
    failed = 0
    while widths and len(sets) < count:
        places = _drawn(apart, widths, rng)
        failed = failed + 1 if frozenset(places) in sets else 0
        sets.setdefault(frozenset(places), places)
        if failed == TRIES:
            widths, failed = widths[1:], 0
    found = np.array(list(sets.values()))
    distances = np.take_along_axis(apart, found.T, axis=1)
    return Matched(pool[found], Counter(_least_width(one) for one in distances.ravel()))


def _drawn(apart: Float[np.ndarray, "member pool"], widths: Sequence[float], rng: np.random.Generator) -> list[int]:
    """Return places in the pool, one a member and none twice: within the first width that holds any, or the nearest."""
    free, places = np.ones(apart.shape[1], dtype=bool), []
    for own in apart:
        for width in widths:
            near = np.flatnonzero(free & (own <= width))
            if len(near):
                break
        if width > WIDTHS[-1] and widths[0] <= WIDTHS[-1]:
            near = near[[int(np.argmin(own[near]))]]
        places.append(int(rng.choice(near)))
        free[places[-1]] = False
    return places


def _least_width(distance: float) -> str:
    return next((str(width) for width in WIDTHS if distance <= width), NEAREST)
