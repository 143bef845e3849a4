"""What modularity the search finds where there is none: Gaussian matrices through the whole pipeline.

Normal scores make the null depend on the shape alone (specification 4.5), so replicates of common shapes are
committed in `nulls.safetensors` and others are computed during the audit. Regenerate: `make nulls`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from checks.clusterability.cocluster import assign, embed
from checks.clusterability.committed import (
    PIN,
    Kept,
    committed_graph_power,
    committed_power,
    kept_nulls,
    null_table_sha256,
    shape_name,
    write_nulls,
)
from checks.clusterability.scores import scores_of
from checks.clusterability.views import normal_scores

if TYPE_CHECKING:
    from jaxtyping import Float

__all__ = [
    "NullTable",
    "auto_ks",
    "committed_graph_power",
    "committed_n",
    "committed_power",
    "has_committed",
    "null_table",
    "null_table_sha256",
    "replicate",
    "sweep",
]

ALGORITHM = 1
"""Raised when any step from weights to Q changes, which makes every committed replicate stale."""

K_MAX, NODES_PER_CLUSTER = 16, 8
"""Candidates of `k: auto` are 2 to 16, and to an eighth of the smaller side (section 2)."""

COMMITTED_SHAPES = (
    (20, 64),
    (32, 32),
    (64, 64),
    (64, 128),
    (64, 256),
    (96, 256),
    (128, 128),
    (128, 512),
    (384, 1536),
)
"""The organisms' and the controls' layers, the shapes that the specification tables, and MiniLM's MLPs (4.5)."""

COMMITTED_N = 999
"""Replicates committed for each shape; smallest p .001."""

ENTRIES_MAX = 2**22
"""Largest matrix, in entries, whose null is computed during an audit: a replicate of fifteen k takes 1.5 s of one core
at this size and .9 s at 768x3072, and 199 are drawn at least."""


@dataclass(frozen=True)
class NullTable:
    """Replicates of Q over the candidates of k, for one shape."""

    shape: tuple[int, int]
    """Sorted (smaller, larger)."""
    ks: tuple[int, ...]
    q: Float[np.ndarray, "replicates ks"]
    """Modularity in the test view, one row a replicate, one column a k."""
    committed: bool
    """True where the replicates come from the committed table."""

    @property
    def n(self) -> int:
        """Number of replicates."""
        return len(self.q)

    @cached_property
    def mean(self) -> Float[np.ndarray, " ks"]:
        """Mean Q for each k."""
        return np.asarray(self.q.mean(axis=0))

    @cached_property
    def sd(self) -> Float[np.ndarray, " ks"]:
        """Standard deviation of Q for each k."""
        return np.asarray(self.q.std(axis=0, ddof=1))

    @cached_property
    def statistics(self) -> Float[np.ndarray, " replicates"]:
        """Sorted T = max over k of (Q - mean) / sd of every replicate: the search over k is paid for here."""
        return np.sort(((self.q - self.mean) / self.sd).max(axis=1))

    def statistic(self, q: Float[np.ndarray, " ks"]) -> float:
        """Return T of an observed row of Q."""
        return float(((q - self.mean) / self.sd).max())

    def exceedances(self, statistic: float) -> int:
        """Return how many replicates reach a statistic; p = (1 + this) / (n + 1) and is never 0."""
        return self.n - int(np.searchsorted(self.statistics, statistic, side="left"))


def auto_ks(shape: tuple[int, int]) -> tuple[int, ...]:
    """Return the candidates of k for a shape when the caller names none."""
    return tuple(range(2, min(K_MAX, min(shape) // NODES_PER_CLUSTER) + 1))


def sweep(mass: Float[np.ndarray, "n m"], ks: Sequence[int], seed: int) -> Float[np.ndarray, " ks"]:
    """Return Q of the partition found at every k in a balanced normal-scores view."""
    points = embed(mass, max(ks))
    found = (assign(points, k, seed) for k in ks)
    return np.array([scores_of(mass, part.rows, part.columns).q_b for part in found])


def replicate(shape: tuple[int, int], ks: Sequence[int], index: int) -> Float[np.ndarray, " ks"]:
    """Return Q over `ks` of Gaussian replicate `index` of a shape: a fixed number, whoever computes it."""
    n, m = sorted(shape)
    noise = np.random.default_rng([ALGORITHM, n, m, index]).standard_normal((n, m))
    return sweep(normal_scores(noise).mass, ks, index)


def null_table(shape: tuple[int, int], ks: Sequence[int], n: int) -> NullTable:
    """Return a shape's null with n replicates: committed ones, as far as they go, and computed ones beyond.

    Columns of a committed table serve any part of its candidates: the embedding of fewer directions is the first
    columns of the larger one, and every k has a k-means of its own, so Q at one k does not know of the others. The
    statistic is formed anew from the columns that are taken.

    Args:
        shape: rows and columns, in any order.
        ks: candidates of k.
        n: replicates wanted; the first n of the table are taken.
    """
    key = (min(shape), max(shape))
    kept = _kept(key, ks)
    if kept is not None and n <= len(kept.q):
        return NullTable(key, tuple(ks), _columns(kept, ks)[:n], committed=True)
    rows = _computed(key, tuple(ks))
    while len(rows) < n:
        rows.append(replicate(key, ks, len(rows)))
    return NullTable(key, tuple(ks), np.stack(rows[:n]), committed=False)


def has_committed(shape: tuple[int, int]) -> bool:
    """Return whether replicates of a shape are committed."""
    return shape_name(shape) in kept_nulls(ALGORITHM)


def committed_n(shape: tuple[int, int], ks: Sequence[int]) -> int:
    """Return how many replicates are committed for a shape and these candidates of k; 0 where none are."""
    kept = _kept(shape, ks)
    return 0 if kept is None else len(kept.q)


def _kept(shape: tuple[int, int], ks: Sequence[int]) -> Kept | None:
    """Return the committed replicates of a shape where they have every one of these candidates."""
    kept = kept_nulls(ALGORITHM).get(shape_name(shape))
    return kept if kept is not None and set(ks) <= set(kept.ks) else None


def _columns(kept: Kept, ks: Sequence[int]) -> Float[np.ndarray, "replicates ks"]:
    return np.asarray(kept.q[:, [kept.ks.index(k) for k in ks]])


@lru_cache(maxsize=64)
def _computed(shape: tuple[int, int], ks: tuple[int, ...]) -> list[np.ndarray]:
    """Return the replicates known so far in this process; the caller appends, so that controls reuse them."""
    kept = _kept(shape, ks)
    return [] if kept is None else list(_columns(kept, ks))


def generate(shape: tuple[int, int], n: int) -> Kept:
    """Return what is committed of a shape: replicates 0 to n-1 over every candidate of `k: auto`."""
    ks = auto_ks(shape)
    return Kept(ks, np.stack([replicate(shape, ks, index) for index in range(n)]))


def main() -> None:
    """Write the committed table and its pin, all of it or the replicates of some shapes."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--shape", action="append", help="only this one, e.g. 64x256; may be given several times")
    parser.add_argument("--n", type=int, default=COMMITTED_N, help="replicates a shape")
    asked = parser.parse_args()
    names = {shape_name(shape): shape for shape in COMMITTED_SHAPES}
    tables = dict(kept_nulls(ALGORITHM)) if asked.shape and PIN.exists() else {}
    for name in asked.shape or names:
        tables[name] = generate(names[name], asked.n)
        # Written after every shape: the largest take minutes.
        write_nulls({name: tables[name] for name in names if name in tables}, ALGORITHM)


if __name__ == "__main__":
    main()
