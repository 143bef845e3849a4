"""The sparse training step against a dense autograd step: the speed table of section 15 of the specification.

Run: `python -m benchmarks.sae_features.step`, from the environment of peers.py to have the peers in it. Writes
step.json beside itself. Three sizes, the same batches, one thread and two; CPU time of this process (of all its
threads), float32, data in RAM; warm-up, then timed steps in blocks of ten that go round the contestants, so that a busy
spell falls on all; optimiser and row normalisation included. The dense step has the fused Adam, too. Peak memory is
that of a process of its own, above what it holds after a step of a tiny dictionary, one thread.
"""

from __future__ import annotations

import os

# Before numpy is imported: its BLAS counts its threads once.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
# A thread that waits for another would burn CPU time, on a busy machine ten times what it works.
os.environ.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="0")

import argparse
import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.sae_features import toy
from benchmarks.sae_features.bare import Bare
from benchmarks.sae_features.peers import PEERS, PINNED, available
from checks.sae_features.dictionary.step import SparseStep, Weights

BLOCK, RATE = 10, 1e-3

THREADS = (1, 2)
NEVER = 2**62
MEMORY_STEPS = 30


@dataclass(frozen=True)
class Size:
    d: int
    m: int
    k: int
    batch: int
    timed: int
    floors: Mapping[str, float]
    """Least ratio of a contestant's time to ours (section 15); the middle size has none."""

    @property
    def bytes_allowed(self) -> float:
        """Growth of the peak (section 15)."""
        return 1.6 * (32 * self.d * self.m + 12 * self.batch * self.m)


SIZES: Mapping[str, Size] = {
    "small": Size(
        128, 1024, 32, 1024, 200, {"bare": 2.2, "sae_lens": 2.5, "dictionary_learning": 2.2, "sparsify": 1.2}
    ),
    "middle": Size(256, 2048, 32, 1024, 100, {}),
    "large": Size(512, 4096, 32, 1024, 50, {"bare": 3.7, "sae_lens": 4.0, "dictionary_learning": 4.0, "sparsify": 1.3}),
}

TINY = Size(8, 32, 2, 64, 0, {})

KINDS = ("batchtopk", "topk")

Step = Callable[[torch.Tensor, int, float], object]


def rows(size: Size) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((size.m, size.d))


def batches(size: Size) -> list[torch.Tensor]:
    rng = np.random.default_rng(1)
    made = [rng.standard_normal((size.batch, size.d), dtype=np.float32) / size.d**0.5 for _ in range(8)]
    return [torch.from_numpy(one) for one in made]


MAKERS: Mapping[str, Callable[[Size], Step]] = {
    "ours_batchtopk": lambda size: SparseStep(Weights.tied(rows(size)), dead_after=NEVER),
    "ours_topk": lambda size: SparseStep(Weights.tied(rows(size)), sparsifier="topk", dead_after=NEVER),
    "bare_batchtopk": lambda size: Bare(Weights.tied(rows(size)).dec, fused=True),
    "bare_topk": lambda size: Bare(Weights.tied(rows(size)).dec, sparsifier="topk", fused=True),
}


def contestants(size: Size) -> dict[str, Step]:
    """Return every step that can be taken here, by "name/kind"."""
    made = {name.replace("_", "/", 1): make(size) for name, make in MAKERS.items()}
    for kind in KINDS:
        for name, make in available(kind)[0].items():
            made[f"{name}/{kind}"] = make(size.d, size.m, size.k, size.batch)
    return made


def timed(size: Size, steps: Mapping[str, Step], count: int) -> dict[str, dict[str, float]]:
    """Return median and quartiles of each step's CPU milliseconds; two blocks of warm-up are dropped."""
    data = batches(size)
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for block in range(2 + count // BLOCK):
        for name, step in steps.items():
            for at in range(BLOCK):
                begun = time.process_time()
                step(data[at % len(data)], size.k, RATE)
                if block >= 2:
                    taken[name].append(1e3 * (time.process_time() - begun))
    shares = ("q1", "median", "q3")
    return {
        name: {
            share: round(float(one), 2) for share, one in zip(shares, np.quantile(ms, (0.25, 0.5, 0.75)), strict=True)
        }
        for name, ms in taken.items()
    }


def peak() -> int:
    """Return this process' peak resident memory in bytes; `ru_maxrss` would begin with that of its parent."""
    told = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert told is not None
    return int(told[1]) * 1024


def remembered(name: str, size: str) -> int:
    """Return the growth of a fresh process' peak memory by a few steps, imports and a tiny step left out."""
    command = [sys.executable, "-m", "benchmarks.sae_features.step", "--memory", name, size]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def remember(name: str, size: Size) -> int:
    # A step of a tiny dictionary loads what libraries load at first use, about 16 MB whatever the size.
    MAKERS[name](TINY)(batches(TINY)[0], TINY.k, RATE)
    before = peak()
    data, step = batches(size)[:1], MAKERS[name](size)
    for _ in range(MEMORY_STEPS):
        step(data[0], size.k, RATE)
    return peak() - before


def ratios(size: Size, ms: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, object]]:
    """Return each contestant's median over ours of the same kind, beside the floor; sparsify has TopK only."""
    found: dict[str, dict[str, object]] = {}
    for name in ms:
        who, kind = name.split("/")
        if who == "ours":
            continue
        ratio = ms[name]["median"] / ms[f"ours/{kind}"]["median"]
        floor = size.floors.get(who) if kind == "batchtopk" or who == "sparsify" else None
        found[name] = {"over_ours": round(ratio, 2), "floor": floor, "met": None if floor is None else ratio >= floor}
    return found


def measured(name: str, share: float) -> dict[str, object]:
    """Return the row of one size; `share` of the timed steps are taken, and of those on two threads half."""
    size = SIZES[name]
    told: dict[str, object] = {"d": size.d, "m": size.m, "k": size.k, "batch": size.batch}
    steps = contestants(size)
    for threads in THREADS:
        torch.set_num_threads(threads)
        count = max(BLOCK, int(size.timed * share / threads) // BLOCK * BLOCK)
        ms = timed(size, steps, count)
        against = ratios(size, ms)
        told[f"threads_{threads}"] = {"timed": count, "cpu_ms": ms, "ratios": against, "load": os.getloadavg()[0]}
        print(name, f"threads {threads}", {one: row["median"] for one, row in ms.items()})
        print(name, {one: (row["over_ours"], row["floor"]) for one, row in against.items()}, flush=True)
    torch.set_num_threads(1)
    memory = {one: remembered(one, name) for one in ("ours_batchtopk", "bare_batchtopk")}
    told["peak_growth_mb"] = {one: round(count / 1e6, 1) for one, count in memory.items()}
    told["peak_allowed_mb"] = round(size.bytes_allowed / 1e6, 1)
    print(f"{name:6} peak growth {told['peak_growth_mb']} MB, allowed {told['peak_allowed_mb']}", flush=True)
    return told


def main() -> None:
    """Time all steps, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="take this share of the timed steps")
    parser.add_argument("--memory", nargs=2, metavar=("STEP", "SIZE"), help="print the peak of one step and end")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.memory:
        print(remember(asked.memory[0], SIZES[asked.memory[1]]))
        return
    written = {
        "sizes": {name: measured(name, asked.share) for name in SIZES},
        "o1_to_mcc": toy.measured(),
        "peers": {"pinned": PINNED, "skipped": {kind: available(kind)[1] for kind in KINDS}, "known": sorted(PEERS)},
        # Other work on the machine takes cache from all, most from dense steps: the loads say how much there was.
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
        "method": "process CPU ms a step, median and quartiles, two blocks of warm-up, blocks of ten go round",
    }
    print(written["o1_to_mcc"], written["peers"])
    (Path(__file__).parent / "step.json").write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
