"""The sparse training step against a dense autograd step: the speed table of section 15 of the specification.

Run: `python -m benchmarks.sae_features.step [--large]`. Writes step.json beside itself. One thread, CPU time of this
process, float32, data in RAM; 20 steps of warm-up, then 200 timed ones (50 at the large size) in alternating blocks of
ten, so that a busy spell falls on both; optimiser and row normalisation included. The dense step has the fused Adam,
too. Peak memory is that of a process of its own, above what it holds after a step of a tiny dictionary. Peers have no
adapter here, since none can share the environment: the file says that they were skipped.
"""

from __future__ import annotations

import os

# Before numpy is imported: its BLAS counts its threads once.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from benchmarks.sae_features.bare import Bare
from checks.organisms.sae_toy import chance, superposition
from checks.sae_features.dictionary.plan import Plan
from checks.sae_features.dictionary.step import SparseStep, Weights
from checks.sae_features.dictionary.training import normaliser

WARM, BLOCK, RATE = 20, 10, 1e-3
NEVER = 2**62
MEMORY_STEPS = 30


@dataclass(frozen=True)
class Size:
    d: int
    m: int
    k: int
    batch: int
    timed: int
    floor: float
    """Least ratio of the dense step's time to ours (section 15)."""

    @property
    def bytes_allowed(self) -> float:
        """Growth of the peak (section 15)."""
        return 1.6 * (32 * self.d * self.m + 12 * self.batch * self.m)


SIZES: Mapping[str, Size] = {
    "small": Size(128, 1024, 32, 1024, 200, 2.2),
    "large": Size(512, 4096, 32, 1024, 50, 3.7),
}

TINY = Size(8, 32, 2, 64, 0, 0.0)

PEERS: Mapping[str, str] = {"sae_lens": "6.54.12", "dictionary_learning": "0.1.0", "sparsify": "1.3.3"}
"""Peers of section 15's table, by module. They cannot share the environment: SAELens needs transformer-lens < 4."""

MCC, MCC_EVERY = 0.95, 100
"""What must be reached on O1, and how often it is looked at; looking is not counted."""

Step = Callable[[torch.Tensor, int, float], torch.Tensor]


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


def timed(size: Size) -> dict[str, dict[str, float]]:
    """Return median and quartiles of each step's CPU milliseconds."""
    data = batches(size)
    steps = {name: make(size) for name, make in MAKERS.items()}
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for block in range(-(-WARM // BLOCK), 0, -1):
        for step in steps.values():
            for at in range(BLOCK):
                step(data[(block + at) % len(data)], size.k, RATE)
    for _ in range(size.timed // BLOCK):
        for name, step in steps.items():
            for at in range(BLOCK):
                begun = time.process_time()
                step(data[at % len(data)], size.k, RATE)
                taken[name].append(1e3 * (time.process_time() - begun))
    return {
        name: dict(
            zip(
                ("q1", "median", "q3"),
                (round(float(one), 2) for one in np.quantile(ms, (0.25, 0.5, 0.75))),
                strict=True,
            )
        )
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


def to_mcc() -> dict[str, float]:
    """Return CPU seconds of steps until O1's features are matched, and what chance would match."""
    from scipy.optimize import linear_sum_assignment

    world, plan = superposition(), Plan(latents=128, k=4, steps=4000, batch=512)
    rng = np.random.default_rng(7)
    x, _ = world.draw(plan.steps * plan.batch, rng)
    mean, scale = normaliser(x[:20_000])
    weights = Weights.tied(np.random.default_rng(0).standard_normal((plan.latents, 32)))
    step, spent, mcc, at = SparseStep(weights, dead_after=plan.dead_after), 0.0, 0.0, 0
    for at, batch in enumerate(torch.split((x - mean) / scale, plan.batch)):
        begun = time.process_time()
        step(batch, plan.k_at(at), plan.rate_at(at))
        spent += time.process_time() - begun
        if (at + 1) % MCC_EVERY == 0:
            cosines = np.abs(world.directions @ weights.dec.double().numpy().T)
            mcc = float(cosines[linear_sum_assignment(-cosines)].mean())
            if mcc >= MCC:
                break
    return {
        "mcc": round(mcc, 3),
        "steps": at + 1,
        "cpu_s": round(spent, 2),
        "cpu_s_allowed": 8.0,
        "chance_mcc": round(chance(world.directions, plan.latents, rng), 3),
    }


def measured(name: str) -> dict[str, object]:
    """Return the row of one size."""
    size = SIZES[name]
    ms = timed(size)
    told: dict[str, object] = {"d": size.d, "m": size.m, "k": size.k, "batch": size.batch, "ms": ms}
    for kind in ("batchtopk", "topk"):
        ratio = ms[f"bare_{kind}"]["median"] / ms[f"ours_{kind}"]["median"]
        told[f"bare_over_ours_{kind}"] = round(ratio, 2)
        print(f"{name:6} {kind:10} bare / ours {ratio:.2f} (floor {size.floor})  {ms[f'ours_{kind}']}")
    told |= {"floor": size.floor, "met": bool(told["bare_over_ours_batchtopk"] >= size.floor)}  # type: ignore[operator]
    memory = {one: remembered(one, name) for one in ("ours_batchtopk", "bare_batchtopk")}
    told["peak_growth_mb"] = {one: round(count / 1e6, 1) for one, count in memory.items()}
    told["peak_allowed_mb"] = round(size.bytes_allowed / 1e6, 1)
    print(f"{name:6} peak growth {told['peak_growth_mb']} MB, allowed {told['peak_allowed_mb']}")
    return told


def main() -> None:
    """Time both steps, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="the large size, too")
    parser.add_argument("--memory", nargs=2, metavar=("STEP", "SIZE"), help="print the peak of one step and end")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.memory:
        print(remember(asked.memory[0], SIZES[asked.memory[1]]))
        return
    # Other work on the machine takes cache from both sides, most from the dense step: this says how much there was.
    load = os.getloadavg()[0]
    sizes = {name: measured(name) for name in SIZES if name == "small" or asked.large}
    written = {
        "sizes": sizes,
        "o1_to_mcc": to_mcc(),
        "peers": {
            module: f"skipped: {'no adapter' if find_spec(module) else 'not installed'} (specification: {version})"
            for module, version in PEERS.items()
        },
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "load": round(load, 1)},
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
        "method": "process CPU ms a step, one thread, median and quartiles, warm-up dropped, blocks of ten alternate",
    }
    print(written["o1_to_mcc"], written["peers"])
    (Path(__file__).parent / "step.json").write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
