"""Co-clustering against a plain implementation and scikit-learn's: the speed table of the specification, section 10.

Run: `python -m benchmarks.clusterability_speed`. Writes clusterability_speed.json beside itself. One thread, CPU time
of this process, all sides in one run, median of several rounds; the first call of each is not counted. The baseline is
written afresh from what peers do: dense diagonal scaling matrices, explicit inverses, a truncated SVD, two k-means.
About three minutes of CPU. `--workers` adds one line in wall time, which means something on an idle machine only.
`--model DIR` times the tests of every matrix of a model directory instead, in wall time, into the same file.
"""

from __future__ import annotations

import os

# Before numpy is imported: its BLAS counts its threads once.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import json
import platform
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import sklearn
from scipy.sparse.linalg import svds
from sklearn.cluster import KMeans, SpectralCoclustering

from benchmarks.clusterability_matrices import timed
from checks.clusterability.cocluster import Embedding, Partition, assign, cocluster, embed
from checks.clusterability.controls import planted
from checks.clusterability.nulls import auto_ks, null_table, replicate, sweep
from checks.clusterability.scores import adjusted_rand
from checks.clusterability.structure import structure_test
from checks.clusterability.views import balanced_squares, normal_scores

SHAPES = ((512, 2048), (768, 3072))
"""What the specification measured; targets hold at the second."""

K, RHO = 4, 0.5
EIGHT = tuple(range(2, 10))
"""A sweep of eight candidates."""

TABLE = Path(__file__).with_suffix(".json")

REPEATS = 5
CACHE_SHAPE, CACHE_N = (96, 256), 199
"""A shape whose null is committed: the audit of one matrix with and without it."""

GROWTH = ((128, 512), (256, 1024), (512, 2048), (1024, 4096), (2048, 8192), (4096, 16384))
WORKER_SHAPE, WORKER_REPLICATES = (384, 1536), 24

TARGETS: dict[str, tuple[str, float]] = {
    "baseline / balanced co-clustering, k = 4": ("at least", 15.0),
    "data path, eight k / baseline": ("at most", 1.0),
    "null replicate / data path": ("at most", 1.2),
    "null replicate / data path of noise": ("at most", 1.2),
    "matrix without / with a cached null": ("at least", 50.0),
    "peak memory, matrix sizes": ("at most", 6.0),
    "one / two workers": ("at least", 1.7),
}
"""Specification, section 10."""


def baseline(weights: np.ndarray, k: int) -> Partition:
    """Return row and column labels as a plain implementation finds them, each side by its own k-means."""
    squares = weights**2
    rows = np.linalg.inv(np.sqrt(np.diag(squares.sum(axis=1))))
    columns = np.linalg.inv(np.sqrt(np.diag(squares.sum(axis=0))))
    left, _, right = svds(rows @ squares @ columns, k=k, v0=np.ones(min(weights.shape)))
    sides = (rows @ left, columns @ right.T)
    labels = [KMeans(k, n_init=10, random_state=0).fit_predict(side) for side in sides]
    return Partition(labels[0], labels[1])


def balanced_clusters(weights: np.ndarray) -> Partition:
    """Return ours of the same job: squared weights balanced, embedded, clustered at one k."""
    return assign(embed(balanced_squares(weights).mass, K), K, 0)


def data_path(weights: np.ndarray) -> np.ndarray:
    """Return Q at eight k: balance, normal scores, embedding, k-means, scores."""
    return sweep(normal_scores(weights).mass, EIGHT, 0)


def eight_clusterings(points: Embedding) -> int:
    """Run k-means at eight k on an embedding: where noise costs more than a plant, on which it settles at once."""
    return sum(len(assign(points, k, 0).rows) for k in EIGHT)


def jobs(shape: tuple[int, int]) -> dict[str, Callable[[], object]]:
    """Return what is timed at a shape."""
    rng = np.random.default_rng(shape)
    weights, noise = planted(shape, K, RHO, rng)[0], rng.standard_normal(shape)
    squares, mass = weights**2, normal_scores(weights).mass
    points, vague = embed(mass, 16), embed(normal_scores(noise).mass, 16)
    return {
        "baseline, k = 4": lambda: baseline(weights, K),
        "scikit-learn co-clustering, k = 4": lambda: SpectralCoclustering(K, random_state=0).fit(squares),
        "balanced co-clustering, k = 4": lambda: balanced_clusters(weights),
        "normal-scores co-clustering, k = 4": lambda: cocluster(weights, K, 0),
        "balance": lambda: balanced_squares(weights),
        "normal scores": lambda: normal_scores(weights),
        "embedding, 16 directions": lambda: embed(mass, 16),
        "k-means, k = 4": lambda: assign(points, K, 0),
        "k-means, eight k": lambda: eight_clusterings(points),
        "k-means of noise, eight k": lambda: eight_clusterings(vague),
        "drawing noise": lambda: np.random.default_rng(0).standard_normal(shape),
        "data path, eight k": lambda: data_path(weights),
        "data path of noise, eight k": lambda: data_path(noise),
        "null replicate, eight k": lambda: replicate(shape, EIGHT, 0),
    }


def medians(todo: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return CPU seconds of each job, rounds interleaved so that a busy spell falls on all of them."""
    spent: dict[str, list[float]] = {name: [] for name in todo}
    for turn in range(repeats + 1):
        for name, job in todo.items():
            start = time.process_time()
            job()
            if turn:
                spent[name].append(time.process_time() - start)
    return {name: round(float(np.median(values)), 4) for name, values in spent.items()}


def peaks(shape: tuple[int, int]) -> dict[str, float]:
    """Return the memory that each side holds at most above the matrix, in sizes of the matrix."""
    weights = planted(shape, K, RHO, np.random.default_rng(shape))[0]
    todo: dict[str, Callable[[], object]] = {
        "baseline, k = 4": lambda: baseline(weights, K),
        "balanced co-clustering, k = 4": lambda: balanced_clusters(weights),
        "normal-scores co-clustering, k = 4": lambda: cocluster(weights, K, 0),
        "data path, eight k": lambda: data_path(weights),
    }
    told = {}
    for name, job in todo.items():
        tracemalloc.start()
        job()
        told[name] = round(tracemalloc.get_traced_memory()[1] / weights.nbytes, 2)
        tracemalloc.stop()
    return told


def agreement(shape: tuple[int, int]) -> dict[str, float]:
    """Return the ARI of rows with the plant: speed says nothing of a partition that is wrong."""
    weights, truth = planted(shape, K, RHO, np.random.default_rng(shape))
    other = SpectralCoclustering(K, random_state=0).fit(weights**2)
    labels = {
        "baseline": baseline(weights, K).rows,
        "scikit-learn": other.row_labels_,
        "balanced co-clustering": balanced_clusters(weights).rows,
        "normal-scores co-clustering": cocluster(weights, K, 0).rows,
    }
    return {name: round(adjusted_rand(rows, truth.rows), 3) for name, rows in labels.items()}


def cached_against_computed() -> dict[str, float]:
    """Return CPU seconds of one matrix's test with the committed null, and of its 199 replicates computed first."""
    weights, ks = planted(CACHE_SHAPE, K, RHO, np.random.default_rng(1))[0], auto_ks(CACHE_SHAPE)
    null_table(CACHE_SHAPE, ks, CACHE_N)  # reads the committed file once, as a process does
    with_cache = medians({"cached": lambda: structure_test(weights, null_table(CACHE_SHAPE, ks, CACHE_N), 0)}, 9)
    start = time.process_time()
    for index in range(CACHE_N):
        replicate(CACHE_SHAPE, ks, index)
    return {**with_cache, "computed": round(time.process_time() - start + with_cache["cached"], 4)}


def growth(largest: int) -> list[tuple[int, int, float]]:
    """Return (rows, columns, CPU seconds) of the embedding and one k-means at k = 4, on noise."""
    curve = []
    for n, m in (shape for shape in GROWTH if shape[0] <= largest):
        mass = balanced_squares(np.random.default_rng([n, m]).standard_normal((n, m))).mass
        seconds = []
        for _ in range(REPEATS if n <= 1024 else 1):
            start = time.process_time()
            assign(embed(mass, K), K, 0)
            seconds.append(time.process_time() - start)
        curve.append((n, m, round(float(np.median(seconds)), 4)))
        print(f"{n:>6} x {m:<6} embedding and one k: {curve[-1][2]:9.4f} s", flush=True)
    return curve


def share_of_replicates(indices: range) -> int:
    """Compute null replicates in a worker process."""
    for index in indices:
        replicate(WORKER_SHAPE, auto_ks(WORKER_SHAPE), index)
    return len(indices)


def workers() -> dict[str, float]:
    """Return wall seconds of the same replicates on one and on two worker processes, which were started before."""
    told = {}
    for count in (1, 2):
        with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
            list(pool.map(share_of_replicates, [range(1)] * count))
            parts = [range(first, WORKER_REPLICATES, 2) for first in range(2)]
            start = time.perf_counter()
            list(pool.map(share_of_replicates, parts))
            told[f"{count} workers"] = round(time.perf_counter() - start, 3)
    return told


def ratios(at: dict[str, float], memory: dict[str, float], cache: dict[str, float]) -> dict[str, float]:
    """Return what the targets speak of, from the figures of one shape."""
    replicated, data = at["null replicate, eight k"], at["data path, eight k"]
    return {
        "baseline / balanced co-clustering, k = 4": at["baseline, k = 4"] / at["balanced co-clustering, k = 4"],
        "data path, eight k / baseline": data / at["baseline, k = 4"],
        "null replicate / data path": replicated / data,
        "null replicate / data path of noise": replicated / at["data path of noise, eight k"],
        "matrix without / with a cached null": cache["computed"] / cache["cached"],
        "peak memory, matrix sizes": max(value for name, value in memory.items() if "baseline" not in name),
    }


def table(found: dict[str, float]) -> dict[str, dict[str, Any]]:
    """Return and print each ratio beside its target."""
    told = {}
    for name, value in found.items():
        sense, target = TARGETS[name]
        met = value >= target if sense == "at least" else value <= target
        told[name] = {"measured": round(value, 2), "target": f"{sense} {target}", "met": met}
        print(f"{name:<44} {value:8.2f}   {sense} {target}: {'met' if met else 'MISSED'}", flush=True)
    return told


def main() -> None:
    """Measure, print the tables, write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--largest", type=int, default=GROWTH[-1][0], help="rows of the largest matrix of the curve")
    parser.add_argument("--workers", action="store_true", help="time one and two worker processes, in wall time")
    parser.add_argument("--model", type=Path, help="a model directory: time the tests of its matrices, nothing else")
    asked = parser.parse_args()
    written: dict[str, Any]
    if asked.model:
        written = json.loads(TABLE.read_text()) if TABLE.exists() else {}
        written["model"] = {"directory": asked.model.resolve().parts[-2:], **timed(asked.model)}
        TABLE.write_text(json.dumps(written, indent=1) + "\n")
        return
    seconds = {}
    for shape in SHAPES:
        at = seconds[f"{shape[0]}x{shape[1]}"] = medians(jobs(shape), asked.repeats)
        for name, value in at.items():
            print(f"{shape[0]:>5}x{shape[1]:<5} {name:<36} {value:8.4f} s", flush=True)
    last = SHAPES[-1]
    memory, cache = peaks(last), cached_against_computed()
    found = ratios(seconds[f"{last[0]}x{last[1]}"], memory, cache)
    written = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "scikit_learn": sklearn.__version__,
        "cpu_s": seconds,
        "ari_of_rows": agreement(last),
        "peak_memory_in_matrices": memory,
        "null_96x256_cpu_s": cache,
    }
    if asked.workers:
        written["workers_wall_s"] = workers()
        written["workers_load"] = round(os.getloadavg()[0], 1)
        found["one / two workers"] = written["workers_wall_s"]["1 workers"] / written["workers_wall_s"]["2 workers"]
    written["targets"] = table(found)
    written["growth_n_m_cpu_s"] = growth(asked.largest)
    if TABLE.exists():
        # The model's table comes from a run of its own.
        written |= {"model": json.loads(TABLE.read_text()).get("model")}
    TABLE.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
