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

WELL_MATCHED, WELL_SHARE = ("0.3", "0.6"), 0.90
"""Less than this share of members within .6 is told as `poorly_matched` (specification, section 10)."""


@dataclass(frozen=True, eq=False)
class Matched:
    """Control sets and how well they match."""

    sets: Int[np.ndarray, "set member"]
    """Column j stands for member j of the set that is matched."""
    widenings: Counter[str]
    """Members by the width that found them: "0.3", "0.6", "1.2" or "nearest"."""

    @property
    def well(self) -> float:
        """Share of members within .6."""
        return sum(self.widenings[name] for name in WELL_MATCHED) / self.widenings.total()

    @property
    def distinct(self) -> int:
        """Number of sets that differ from each other, whatever the order of their members."""
        return len({tuple(sorted(one)) for one in self.sets.tolist()})


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
        count: sets.
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
    widenings: Counter[str] = Counter()
    sets = np.empty((count, len(own)), dtype=np.int64)
    for one in sets:
        free = np.ones(len(pool), dtype=bool)
        for member in range(len(own)):
            place, width = _replacement(apart[member], free, rng)
            one[member], free[place] = pool[place], False
            widenings[width] += 1
    return Matched(sets, widenings)


def _replacement(
    apart: Float[np.ndarray, " pool"], free: Bool[np.ndarray, " pool"], rng: np.random.Generator
) -> tuple[int, str]:
    """Return the place of a replacement in the pool, and the width that found it."""
    for width in WIDTHS:
        near = np.flatnonzero(free & (apart <= width))
        if len(near):
            return int(rng.choice(near)), str(width)
    return int(np.argmin(np.where(free, apart, np.inf))), NEAREST
