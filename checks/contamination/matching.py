"""Which windows lie near which probes: an exact search, then exact numbers for what it finds (contamination, 6.5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from checks.contamination.encoder import SCALE, integer_cosine

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64

COSINE_FLOOR = 0.50
"""Default of `cosine_floor` (section 3): real rewrites lie at .829 and above in 95 of 100, heavy ones at .46."""

MARGIN = 0.02
"""Below the floor by this much, a coarse cosine still goes on: its largest error in bf16 was .0072 (section 6.5)."""

BLOCK = 2**20
"""Cosines held at once, 4 MB of float32: the table of all windows and probes never exists."""


class Vectors(Protocol):
    """What is needed of an encoder."""

    def embed_alone(self, text: str) -> Float32[np.ndarray, " d"]:
        """Return the vector of one text, which depends on nothing else."""
        ...


class Pairs(NamedTuple):
    """Candidates, ordered by window, then by probe."""

    windows: Int64[np.ndarray, " n"]
    probes: Int64[np.ndarray, " n"]
    cosines: Float32[np.ndarray, " n"]
    """Coarse: they select and are never kept."""


@dataclass(frozen=True)
class Match:
    """A window and a probe whose exact cosine reaches the floor."""

    window: int
    probe: int
    cosine: int
    """round(10 000 cos), from texts that were run alone."""


def candidates(
    window_vectors: Float32[np.ndarray, "n d"], probe_vectors: Float32[np.ndarray, "m d"], floor: float = COSINE_FLOOR
) -> Pairs:
    """Return every pair whose coarse cosine is at least the floor less the margin.

    Args:
        window_vectors: unit vectors.
        probe_vectors: unit vectors.
        floor: `cosine_floor`.

    Raises:
        ValueError: widths differ, or a vector is not finite (it would compare below every floor).
    """
    if window_vectors.ndim != 2 or probe_vectors.ndim != 2 or window_vectors.shape[1] != probe_vectors.shape[1]:
        raise ValueError(f"vectors of shapes {window_vectors.shape} and {probe_vectors.shape} do not meet")
    if not (np.isfinite(window_vectors).all() and np.isfinite(probe_vectors).all()):
        raise ValueError("a vector is not finite")
    rows = max(1, BLOCK // max(len(probe_vectors), 1))
    across = np.ascontiguousarray(probe_vectors, dtype=np.float32).T
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for first in range(0, len(window_vectors), rows):
        table = np.asarray(window_vectors[first : first + rows], dtype=np.float32) @ across
        window, probe = np.nonzero(table >= np.float32(floor - MARGIN))
        found.append((window + first, probe, table[window, probe]))
    if not found:
        none = np.empty(0, dtype=np.int64)
        return Pairs(none, none, np.empty(0, dtype=np.float32))
    windows, probes, cosines = (np.concatenate(part) for part in zip(*found, strict=True))
    return Pairs(windows, probes, cosines)


class Exact:
    """Exact cosines of pairs: each text is run alone, once.

    Args:
        encoder: as `Encoder`.
        probes: `embed_alone` vectors of probes by place, where they are known already; the rest is run when met.
    """

    def __init__(self, encoder: Vectors, probes: Mapping[int, Float32[np.ndarray, " d"]] | None = None) -> None:
        self._encoder = encoder
        self._probes = dict(probes or {})

    def matches(
        self, pairs: Pairs, window_texts: Sequence[str], probe_texts: Sequence[str], floor: float = COSINE_FLOOR
    ) -> tuple[Match, ...]:
        """Return the pairs whose exact cosine reaches the floor, ordered by window, then by probe."""
        least = round(SCALE * floor)
        alone: dict[str, Float32[np.ndarray, " d"]] = {}
        found = []
        for window, probe in _places(pairs):
            text = window_texts[window]
            if text not in alone:
                alone = {text: self._encoder.embed_alone(text)}  # pairs are ordered by window: one is enough
            cosine = integer_cosine(alone[text], self._probe(probe, probe_texts[probe]))
            if cosine >= least:
                found.append(Match(window, probe, cosine))
        return tuple(found)

    def _probe(self, probe: int, text: str) -> Float32[np.ndarray, " d"]:
        if probe not in self._probes:
            self._probes[probe] = self._encoder.embed_alone(text)
        return self._probes[probe]


def _places(pairs: Pairs) -> Iterable[tuple[int, int]]:
    return zip(pairs.windows.tolist(), pairs.probes.tolist(), strict=True)
