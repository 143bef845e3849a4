"""Where a latent is on: its strongest places, and places drawn from five bands of its values.

The strongest alone make any latent look like one thing. Bands hold equal shares of the latent's summed value, so that
weak places are seen as often as they matter. Source: specification of `sae_features`, section 9.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from checks.sae_features.held import Held

BANDS = 5
"""Bands of equal mass (section 9)."""

BEFORE = 2 / 3
"""Share of the shown tokens that stand before the latent's own: a causal model has read those."""

MILLE = 1000
"""Values are told in thousandths of the largest."""


@dataclass(frozen=True)
class Level:
    """How much of each card is told."""

    top: int
    """Strongest contexts."""
    sampled: int
    """Contexts from bands: a multiple of five takes as many from each, 3 takes one of bands 0, 2 and 4."""
    window: int
    """Tokens a context."""
    lifts: int
    promoted: int
    """Tokens raised, and as many lowered."""


LEVELS = (
    Level(10, 10, 24, 10, 8),
    Level(10, 5, 24, 10, 8),
    Level(10, 5, 16, 10, 8),
    Level(5, 5, 16, 10, 8),
    Level(5, 5, 12, 5, 4),
    Level(3, 3, 12, 5, 4),
    Level(2, 3, 8, 5, 4),
    Level(1, 3, 8, 3, 3),
    Level(0, 0, 0, 3, 3),
)
"""What is dropped first: the second context of each band, then length, then half of the strongest, then tokens beyond
the first ones; contexts drawn at random outlast the strongest; all contexts go last. The first is section 9 in full."""


@dataclass(frozen=True, eq=False)
class Column:
    """Where one latent is on."""

    at: Int[np.ndarray, " hit"]
    """Numbers of states in the corpus, ascending."""
    values: Float[np.ndarray, " hit"]
    """Contributions, positive."""


class Corpus:
    """Held states in the order of row id and position, which breaks every tie.

    Args:
        held: states of whole passages, less those that are not usable.
    """

    def __init__(self, held: Held) -> None:
        names, rows = np.unique(np.asarray(held.passages, dtype=str), return_inverse=True)
        order = np.lexsort((held.positions, rows))
        self.row_ids = names.tolist()
        self.x = held.x[order]
        self.tokens = np.asarray(held.tokens, np.int64)[order]
        self.positions = np.asarray(held.positions, np.int64)[order]
        self._row = rows[order]
        self._group = np.unique(np.asarray(held.groups, dtype=str), return_inverse=True)[1][order]
        self._begins = np.searchsorted(self._row, np.arange(len(names) + 1))
        self.size, self.passages, self.groups = len(order), len(names), int(self._group.max()) + 1
        exact = self.x.astype(np.float64)
        self.scale = float(np.sqrt(((exact - exact.mean(0)) ** 2).sum(1).mean()))
        """R: root mean square distance of a state from their mean."""

    @property
    def sha256(self) -> str:
        """Digest of the rows used: each one's id, length, positions and tokens, in the order of ids."""
        seen = hashlib.sha256(b"assay-card-rows/v1\n")
        for row, name in enumerate(self.row_ids):
            own = slice(self._begins[row], self._begins[row + 1])
            told = name.encode()
            numbers = np.concatenate([self.positions[own], self.tokens[own]])
            seen.update(len(told).to_bytes(8, "little") + told + len(numbers).to_bytes(8, "little"))
            seen.update(numbers.astype("<i8").tobytes())
        return seen.hexdigest()

    def contexts(self, column: Column, rng: np.random.Generator) -> Contexts:
        """Return where a latent is shown, in full; a level takes from it, and draws nothing again."""
        ranked = np.lexsort((column.at, -column.values))
        groups = self._group[column.at[ranked]]
        first = np.sort(np.unique(groups, return_index=True)[1])  # the strongest of each group, strongest first
        sampled = [
            (band, int(hit)) for band, hits in enumerate(_bands(column)) for hit in rng.permutation(hits)[:2].tolist()
        ]
        return Contexts(self, column, tuple(ranked[first[: LEVELS[0].top]].tolist()), tuple(sampled))

    def window(self, column: Column, hit: int, width: int) -> list[Any]:
        """Return one context: row, position, first position, tokens, and flat pairs of offset and value."""
        at = int(column.at[hit])
        row, position = int(self._row[at]), int(self.positions[at])
        begin, end = int(self._begins[row]), int(self._begins[row + 1])
        own = self.positions[begin:end]
        first = max(int(own[0]), min(position - int(width * BEFORE), int(own[-1]) - width + 1))
        size = min(width, int(own[-1]) - first + 1)
        inside = begin + np.flatnonzero((own >= first) & (own < first + size))
        tokens = np.full(size, -1, np.int64)
        tokens[self.positions[inside] - first] = self.tokens[inside]
        on = slice(*np.searchsorted(column.at, [inside[0], inside[-1] + 1]))
        shares = np.maximum(1, np.rint(MILLE * column.values[on] / column.values.max())).astype(int)
        pairs = np.stack([self.positions[column.at[on]] - first, shares], axis=1)
        return [row, position, first, tokens.tolist(), pairs.ravel().tolist()]


@dataclass(frozen=True, eq=False)
class Contexts:
    """Where one latent is shown."""

    corpus: Corpus
    column: Column
    top: tuple[int, ...]
    """Hits, strongest first, at most one a group."""
    sampled: tuple[tuple[int, int], ...]
    """Band and hit, at most two a band."""

    def shown(self, level: Level) -> dict[str, list[list[Any]]]:
        """Return the contexts of a level."""
        top = [self.corpus.window(self.column, hit, level.window) for hit in self.top[: level.top]]
        kept: list[tuple[int, int]] = []
        for band, hit in self.sampled:
            each = max(1, level.sampled // BANDS)
            skipped = level.sampled < BANDS and band % 2
            if not skipped and sum(one == band for one, _ in kept) < each:
                kept.append((band, hit))
        return {"top": top, "sampled": [[*self.corpus.window(self.column, hit, level.window), b] for b, hit in kept]}


def hashed(name: str) -> str:
    """Return the SHA-256 of a name."""
    return hashlib.sha256(name.encode()).hexdigest()


def _bands(column: Column) -> list[Int[np.ndarray, " hit"]]:
    """Return the hits of each band, lowest values first; a hit stands where the middle of its own mass stands."""
    ranked = np.lexsort((column.at, column.values))
    mass = column.values[ranked]
    if not len(mass):
        return []
    middle = (np.cumsum(mass) - mass / 2) / mass.sum()
    band = np.minimum(BANDS - 1, (BANDS * middle).astype(int))
    return [ranked[band == one] for one in range(BANDS)]
