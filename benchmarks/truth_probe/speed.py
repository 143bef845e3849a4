"""CCS and midpoint-displacement against a plain autograd CCS: the speed table of the specification, section 12.

Run: `python -m benchmarks.truth_probe.speed`. Writes speed.json beside itself. One thread, CPU time of this process,
both sides in one run, median of five; the first call of each is not counted. The reference trains 50 epochs of one
restart and is scaled to what it would do for one layer: 10 restarts of 1000 epochs. About a minute on an idle core.
"""

from __future__ import annotations

import os

# Before numpy is imported: its BLAS counts its threads once.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy
import torch

from benchmarks.truth_probe.reference_ccs import train
from checks.truth_probe.ccs import ccs_restarts
from checks.truth_probe.displacement import choose_lambda, lambda_path, solve_md, stability
from checks.truth_probe.normaliser import Normaliser
from checks.truth_probe.pairs import PairActivations

RESTARTS, EPOCHS, RUN_EPOCHS, REPEATS = 10, 1000, 50, 5
SHAPES = ((400, 256), (600, 1024), (300, 4096))
AMPLITUDE, CONTENT, LAM = 4.0, 16, 0.5
FLOORS = {
    "parity, batched restarts": (6.0, 2.2, 1.7),
    "lbfgs": (4.0, 3.5, 7.0),
    "subspace, k = 32": (22.0, 22.0, 28.0),
    "md, one lambda": (200.0, 12.0, 14.0),
    "md, lambda search and stability": (15.0, 2.0, 2.0),
}
"""Least ratio of the reference's time to each path's, by shape (section 12)."""


def planted(n: int, d: int) -> PairActivations:
    """Return normalised pairs of the synthetic plant: shared content, a branch offset, a feature, noise."""
    rng = np.random.default_rng([n, d])
    axes = np.linalg.qr(rng.standard_normal((d, CONTENT + 2)))[0].T
    t = 2 * rng.integers(0, 2, n)[:, None] - 1
    content = 4 * rng.standard_normal((n, CONTENT)) @ axes[:CONTENT]
    half = 2 * axes[CONTENT] + 0.5 * AMPLITUDE * t * axes[CONTENT + 1]
    pos, neg = content + half + rng.standard_normal((n, d)), content - half + rng.standard_normal((n, d))
    pairs = PairActivations(pos, neg, np.zeros(n, dtype=int), np.arange(n))
    return Normaliser.fit(pairs).apply(pairs)


def searched(pairs: PairActivations) -> None:
    """Choose lambda, fit the direction and measure its stability."""
    rng = np.random.default_rng(0)
    lam = choose_lambda(lambda_path(pairs, rng))
    solve_md(pairs, lam)
    stability(pairs, lam, rng)


def paths(pairs: PairActivations) -> dict[str, Callable[[], object]]:
    """Return what is timed, the reference first."""
    pos, neg = torch.tensor(pairs.pos, dtype=torch.float32), torch.tensor(pairs.neg, dtype=torch.float32)
    rng = np.random.default_rng(0)
    return {
        "reference": lambda: train(pos, neg, RUN_EPOCHS, 0),
        "parity, batched restarts": lambda: ccs_restarts(pairs, "parity", restarts=RESTARTS, rng=rng),
        "lbfgs": lambda: ccs_restarts(pairs, "lbfgs", restarts=RESTARTS, rng=rng),
        "subspace, k = 32": lambda: ccs_restarts(pairs, "subspace", restarts=RESTARTS, subspace_k=32, rng=rng),
        "md, one lambda": lambda: solve_md(pairs, LAM),
        "md, lambda search and stability": lambda: searched(pairs),
    }


def medians(pairs: PairActivations, repeats: int) -> dict[str, float]:
    """Return CPU seconds of each path, rounds interleaved so that a busy spell falls on all of them."""
    timed = paths(pairs)
    taken: dict[str, list[float]] = {name: [] for name in timed}
    for turn in range(repeats + 1):
        for name, path in timed.items():
            begun = time.process_time()
            path()
            if turn:
                taken[name].append(time.process_time() - begun)
    found = {name: float(np.median(seconds)) for name, seconds in taken.items()}
    found["reference"] *= RESTARTS * EPOCHS / RUN_EPOCHS
    return found


def main() -> None:
    """Time every path at every shape, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    # Other work on the machine takes cache from all sides, most from the reference: the figure says how much there was.
    load = os.getloadavg()[0]
    columns = [medians(planted(n, d), repeats) for n, d in SHAPES]
    names = [f"n{n}_d{d}" for n, d in SHAPES]
    print(f"{'reference, CPU s':34}" + "".join(f"{column['reference']:>20.2f}" for column in columns))
    rows = {}
    for path, floors in FLOORS.items():
        ratios = [column["reference"] / column[path] for column in columns]
        cells = [f"{ratio:.1f} (floor {floor:g})" for ratio, floor in zip(ratios, floors, strict=True)]
        print(f"{path:34}" + "".join(f"{cell:>20}" for cell in cells))
        rows[path] = {
            name: {"cpu_s": round(column[path], 4), "ratio": round(ratio, 1), "floor": floor, "met": ratio >= floor}
            for name, column, ratio, floor in zip(names, columns, ratios, floors, strict=True)
        }
    written = {
        "reference": {name: round(column["reference"], 2) for name, column in zip(names, columns, strict=True)},
        "paths": rows,
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "load": round(load, 1)},
        "versions": {"torch": torch.__version__, "numpy": np.__version__, "scipy": scipy.__version__},
        "method": f"process CPU seconds, one thread, median of {repeats}, first call dropped",
    }
    (Path(__file__).parent / "speed.json").write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
