"""Speed of `assay compare`: pure Python against numpy computing the same standard errors.

Run: `python -m benchmarks.report_compare`; writes report_compare.json beside itself. 10^4 items, 20 metrics, single
thread, median of 7 rounds, CPU time, both sides interleaved in one run. numpy starts from ready arrays and computes the
standard errors alone; ours starts from parsed items and computes intervals and p-values too. What reading the artefacts
costs is told beside it: numpy would have to read them as well. Target: report specification, section 20.
"""

from __future__ import annotations

import os

# Before numpy is imported: its BLAS counts its threads once.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from assay.compare import words
from assay.compare.differences import paired
from assay.compare.items import Items, Reducer, in_order, read_all, write_all

if TYPE_CHECKING:
    from jaxtyping import Float, Int

TABLE = Path(__file__).with_suffix(".json")
ROUNDS = 7
ITEMS = 10_000
CLUSTER = 8
TARGET = 25.0
"""Most times numpy's time (section 20)."""
KINDS = {"mean": 5, "clustered": 5, "share": 5, "area": 5}
"""Metrics of each kind: 20 in all."""


@dataclass(frozen=True)
class Case:
    """One metric of both reports, as either side of the benchmark wants it."""

    kind: str
    a: Items
    b: Items
    scores: Int[np.ndarray, "2 item"]
    targets: Int[np.ndarray, " item"]
    clusters: Int[np.ndarray, " item"]
    step: float


def made(kind: str, number: int, rng: np.random.Generator) -> Case:
    """Return one planted metric."""
    ids = in_order([str(i) for i in range(ITEMS)])[1]
    targets, clusters = rng.integers(0, 2, ITEMS), rng.permutation(np.arange(ITEMS) // CLUSTER)
    if kind == "share":
        scores, step = (rng.random((2, ITEMS)) < 0.8).astype(np.int64), "1"
    else:
        common = rng.normal(size=ITEMS) + targets
        noise = 0.3 * rng.normal(size=(2, ITEMS))
        scores, step = np.round((common + noise) * 1e4).astype(np.int64), "0.0001"
    reducer: Reducer = "auc" if kind == "area" else "mean"
    a, b = (
        Items(
            check="benchmark",
            metric=f"{kind}.{number}",
            labels=(),
            reducer=reducer,
            ids_sha256=ids,
            step=step,
            scores=tuple(map(int, one)),
            targets=tuple(map(int, targets)) if kind == "area" else None,
            clusters=tuple(map(int, clusters)) if kind == "clustered" else None,
        )
        for one in scores
    )
    return Case(kind, a, b, scores, targets, clusters, float(step))


def numpy_se(case: Case) -> float:
    """Return the same standard error with numpy."""
    n = ITEMS
    if case.kind == "share":
        a, b = case.scores
        p12, p21 = ((a > b).sum() + 1) / (n + 2), ((b > a).sum() + 1) / (n + 2)
        return float(np.sqrt((p12 + p21 - (p21 - p12) ** 2) / (n + 2)))
    if case.kind == "area":
        u = numpy_area(case.scores[1], case.targets) - numpy_area(case.scores[0], case.targets)
    else:
        u = (case.scores[1] - case.scores[0]) * case.step
        u -= u.mean()
    sums = np.bincount(case.clusters, u) if case.kind == "clustered" else u
    g = len(sums)
    return float(np.sqrt(g / (g - 1) * (sums**2).sum()) / n)


def numpy_area(scores: Int[np.ndarray, " item"], targets: Int[np.ndarray, " item"]) -> Float[np.ndarray, " item"]:
    """Return the influence values of an area."""
    n, up = len(scores), targets == 1
    pos, neg = np.sort(scores[up]), np.sort(scores[~up])
    v10 = (np.searchsorted(neg, scores[up], "left") + np.searchsorted(neg, scores[up], "right")) / (2 * len(neg))
    v01 = 1 - (np.searchsorted(pos, scores[~up], "left") + np.searchsorted(pos, scores[~up], "right")) / (2 * len(pos))
    psi = np.empty(n)
    psi[up], psi[~up] = n / len(pos) * (v10 - v10.mean()), n / len(neg) * (v01 - v01.mean())
    return psi


def ours(cases: list[Case]) -> list[float | None]:
    """Return our standard errors, having computed what a comparison says."""
    for case in cases:
        # What a fresh artefact has not cached.
        vars(case.a).pop("groups", None)
    told = [paired(case.a, case.b, 0.0, 0.0) for case in cases]
    corrected = words.holm([one.p or 0.0 for one in told])
    tail = words.tail(len(told))
    for one, p in zip(told, corrected, strict=True):
        words.word(one.interval(tail), p, "higher", None)
    return [one.se for one in told]


def timed(run: Callable[[], object]) -> float:
    """Return CPU seconds of a call."""
    started = time.process_time()
    run()
    return time.process_time() - started


def measured() -> dict[str, Any]:
    """Return times and ratios, by kind and for all 20 metrics."""
    rng = np.random.default_rng(20)
    cases = [made(kind, number, rng) for kind, count in KINDS.items() for number in range(count)]
    for one, case in zip(ours(cases), cases, strict=True):
        assert one is not None
        assert abs(one / numpy_se(case) - 1.0) < 1e-9, case.kind
    groups = {"all": cases, **{kind: [case for case in cases if case.kind == kind] for kind in KINDS}}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in groups}
    for _ in range(ROUNDS):
        for name, group in groups.items():
            times[name].append((timed(lambda g=group: ours(g)), timed(lambda g=group: [*map(numpy_se, g)])))  # type: ignore[misc]
    told: dict[str, Any] = {}
    for name, rounds in times.items():
        mine, theirs = (median(one[side] for one in rounds) for side in (0, 1))
        told[name] = {
            "ours_ms": round(mine * 1e3, 2),
            "numpy_ms": round(theirs * 1e3, 2),
            "ratio": round(mine / theirs, 1),
        }
    data = write_all([case.a for case in cases])
    reading = median(timed(lambda: read_all(data)) for _ in range(3))
    return {
        "items": ITEMS,
        "metrics": len(cases),
        "target_ratio": TARGET,
        "reached": told["all"]["ratio"] <= TARGET,
        "worst_kind_ratio": max(one["ratio"] for one in told.values()),
        "times": told,
        "reading_one_side": {"bytes": len(data), "ms": round(reading * 1e3, 1)},
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }


if __name__ == "__main__":
    found = measured()
    TABLE.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
