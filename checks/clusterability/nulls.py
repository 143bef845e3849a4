"""What modularity the search finds where there is none: Gaussian matrices through the whole pipeline.

Normal scores make the null depend on the shape alone (specification 4.5), so replicates of common shapes are
committed in `nulls.json` and others are computed during the audit. Regenerate: `python -m checks.clusterability.nulls`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from checks.clusterability.cocluster import assign, embed
from checks.clusterability.scores import scores_of
from checks.clusterability.views import normal_scores

if TYPE_CHECKING:
    from jaxtyping import Float

ALGORITHM = 1
"""Raised when any step from weights to Q changes, which makes every committed replicate stale."""

AUTO_KS = (2, 3, 4, 6, 8)
"""Candidates of `k: auto`, a first short list; those above min(n, m) / 8 are left out."""

COMMITTED_SHAPES = ((64, 256), (96, 256), (384, 1536))
"""The organism's MLPs, the shape that the method was calibrated at, and MiniLM's MLPs."""

COMMITTED_N = 999
"""Replicates committed for each shape; smallest p .001."""

ENTRIES_MAX = 2**22
"""Largest matrix, in entries, whose null is computed during an audit (about a second a replicate at this size)."""

TABLE = Path(__file__).with_name("nulls.json")

POWER = Path(__file__).with_name("power.json")

MICRO = 1e6
"""Q is committed in millionths."""


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
    return tuple(k for k in AUTO_KS if k <= min(shape) // 8)


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
    """Return a shape's null with at least `n` replicates: committed ones if they suffice, else computed ones.

    Args:
        shape: rows and columns, in any order.
        ks: candidates of k.
        n: replicates wanted; the first n of the table are taken.
    """
    key = (min(shape), max(shape))
    kept = _committed().get(key)
    if kept is not None and n <= committed_n(shape, ks):
        columns = [kept.ks.index(k) for k in ks]
        return NullTable(key, tuple(ks), kept.q[:n, columns], committed=True)
    rows = _computed(key, tuple(ks))
    while len(rows) < n:
        rows.append(replicate(key, ks, len(rows)))
    return NullTable(key, tuple(ks), np.stack(rows[:n]), committed=False)


def has_committed(shape: tuple[int, int]) -> bool:
    """Return whether replicates of a shape are committed."""
    return (min(shape), max(shape)) in _committed()


def committed_n(shape: tuple[int, int], ks: Sequence[int]) -> int:
    """Return how many replicates are committed for a shape and these candidates of k; 0 where none are."""
    kept = _committed().get((min(shape), max(shape)))
    return kept.n if kept is not None and set(ks) <= set(kept.ks) else 0


def committed_power(shape: tuple[int, int]) -> tuple[int, int] | None:
    """Return (found, planted): of how many planted matrices of a shape the whole rule detects how many.

    Planted: k = 4, weights outside the blocks .7 of those inside. None where it was not measured;
    `benchmarks/clusterability_calibration.py` measures it.
    """
    entry = _power().get(_name(shape))
    return (entry["found"], entry["planted"]) if entry else None


@lru_cache(maxsize=1)
def _power() -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = json.loads(POWER.read_text()) if POWER.exists() else {}
    return table


@lru_cache(maxsize=64)
def _computed(shape: tuple[int, int], ks: tuple[int, ...]) -> list[np.ndarray]:
    """Return the replicates computed so far in this process; the caller appends, so that controls reuse them."""
    return []


@lru_cache(maxsize=1)
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(TABLE.read_text())
    if document["algorithm"] != ALGORITHM:
        raise ValueError(f"{TABLE.name} is of algorithm {document['algorithm']}, not {ALGORITHM}: regenerate it")
    return document


@lru_cache(maxsize=1)
def _committed() -> dict[tuple[int, int], NullTable]:
    tables = {}
    for entry in _document()["tables"] if TABLE.exists() else ():
        shape = (entry["shape"][0], entry["shape"][1])
        q = np.array(entry["q_micro"], dtype=np.float64) / MICRO
        tables[shape] = NullTable(shape, tuple(entry["ks"]), q, committed=True)
    return tables


def _name(shape: tuple[int, int]) -> str:
    return f"{min(shape)}x{max(shape)}"


def generate(shapes: Sequence[tuple[int, int]], n: int) -> list[dict[str, Any]]:
    """Return the entries of the committed table, replicates 0 to n-1 of every shape."""
    entries = []
    for shape in shapes:
        ks = auto_ks(shape)
        rows = [np.rint(replicate(shape, ks, index) * MICRO).astype(int).tolist() for index in range(n)]
        entries.append({"shape": list(shape), "ks": list(ks), "q_micro": rows})
    return entries


def main() -> None:
    """Write `nulls.json`, all of it or the tables of some shapes."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--shape", action="append", help="only this one, e.g. 64x256")
    parser.add_argument("--n", type=int, default=COMMITTED_N, help="replicates a shape")
    asked = parser.parse_args()
    wanted = asked.shape
    shapes = [shape for shape in COMMITTED_SHAPES if not wanted or _name(shape) in wanted]
    old = json.loads(TABLE.read_text()) if TABLE.exists() else {"tables": []}
    kept = [entry for entry in old["tables"] if tuple(entry["shape"]) not in shapes]
    tables = sorted(kept + generate(shapes, asked.n), key=lambda entry: tuple(entry["shape"]))
    document = {"algorithm": ALGORITHM, "tables": tables}
    TABLE.write_text(json.dumps(document, separators=(",", ":")).replace("]],", "]],\n") + "\n")


if __name__ == "__main__":
    main()
