"""False positives and power of `clusterability`, over noise that is not Gaussian and over planted blocks.

Run: `OPENBLAS_NUM_THREADS=1 python -m benchmarks.clusterability_calibration`. Writes, beside the check,
`measured.json` (what the catalogue shows), `power.json` (what findings quote, by shape) and prints the table of
noise families. About two minutes on one core.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from assay.result import Measured

import checks.clusterability as family
from checks.clusterability.check import Clusterability
from checks.clusterability.controls import planted
from checks.clusterability.findings import DETECTED, matrices_of, word_of
from checks.clusterability.nulls import COMMITTED_SHAPES
from checks.memory import InMemoryEvidence, model_facts
from checks.quantise import decimal
from checks.statistics import proportion_interval

SHAPE = (96, 256)
"""The specification's calibration shape."""

PLANT_K, PLANT_RHO = 4, 0.7
FOLDER = Path(next(iter(family.__path__)))

Draw = Callable[[np.random.Generator], np.ndarray]


def lognormal(rng: np.random.Generator) -> np.ndarray:
    """Return row and column scales of a lognormal law."""
    rows, columns = (np.exp(rng.standard_normal(side)) for side in SHAPE)
    return rows[:, None] * columns


def sparse(share: float) -> Draw:
    """Return Gaussian noise of which a share is exactly zero."""
    return lambda rng: rng.standard_normal(SHAPE) * (rng.random(SHAPE) >= share)


def rounded(rng: np.random.Generator) -> np.ndarray:
    """Return Gaussian noise rounded to fifteen levels, as four-bit weights are; a sixth becomes zero."""
    return np.asarray(np.clip(np.rint(rng.standard_normal(SHAPE) / 0.403), -7, 7))


NOISE: dict[str, Draw] = {
    "iid": lambda rng: rng.standard_normal(SHAPE),
    "lognormal": lambda rng: rng.standard_normal(SHAPE) * lognormal(rng),
    "laplace": lambda rng: rng.laplace(size=SHAPE),
    "laplace-x-lognormal": lambda rng: rng.laplace(size=SHAPE) * lognormal(rng),
    "t4-x-lognormal": lambda rng: rng.standard_t(4, size=SHAPE) * lognormal(rng),
    "t3": lambda rng: rng.standard_t(3, size=SHAPE),
    "uniform": lambda rng: rng.uniform(-1, 1, size=SHAPE),
    "zeros-10": sparse(0.10),
    "rounded": rounded,
}


def measure(weights: np.ndarray, seed: int) -> Measured:
    """Return the check's numbers of one matrix."""
    facts = model_facts(layers=1, mlp_in=("w",))
    return Clusterability().measure(
        InMemoryEvidence(facts=facts, check="clusterability", seed=seed, weights={"w": weights})
    )


def flagged(measured: Measured) -> bool:
    """Return whether the whole rule calls the matrix clustered."""
    return word_of(matrices_of(measured)[0], Clusterability().limits())[0] == DETECTED


def rate(successes: int, n: int, at: str) -> dict[str, object]:
    """Return a rate with Wilson's interval, as the catalogue holds it."""
    low, high = proportion_interval(successes, n)
    return {
        "estimate": decimal(successes / n, 4),
        "low": decimal(low, 4),
        "high": decimal(high, 4),
        "n": n,
        "at": at,
    }


def false_positives(runs: int) -> int:
    """Print the table of noise families and return how many matrices the whole rule flagged."""
    total = 0
    print(f"{'noise':>22} {'p<=.05':>8} {'excess':>8} {'largest':>8} {'flagged':>8}")
    for number, (name, draw) in enumerate(NOISE.items()):
        p, excess, found = [], [], 0
        for run in range(runs):
            measured = measure(draw(np.random.default_rng([number, run])), run)
            told = matrices_of(measured)[0]
            p.append(told.p_holm)
            excess.append(told.excess_q)
            found += flagged(measured)
        total += found
        share = np.mean(np.array(p) <= 0.05)
        print(f"{name:>22} {share:8.3f} {np.mean(excess):8.4f} {np.max(excess):8.4f} {found:8d}", flush=True)
    return total


def power(shape: tuple[int, int], draws: int) -> int:
    """Return how many planted matrices of a shape the whole rule detects."""
    found = 0
    for draw in range(draws):
        weights = planted(shape, PLANT_K, PLANT_RHO, np.random.default_rng([shape[0], shape[1], draw]))[0]
        found += flagged(measure(weights, draw))
    return found


def main() -> None:
    """Measure and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=400, help="matrices for each noise family")
    parser.add_argument("--plants", type=int, default=40, help="planted matrices for each committed shape")
    asked = parser.parse_args()
    found = {shape: power(shape, asked.plants) for shape in COMMITTED_SHAPES}
    print({f"{n}x{m}": f"{count}/{asked.plants}" for (n, m), count in found.items()}, flush=True)
    by_shape = {f"{n}x{m}": {"found": count, "planted": asked.plants} for (n, m), count in found.items()}
    (FOLDER / "power.json").write_text(json.dumps(by_shape, indent=1) + "\n")
    false = false_positives(asked.runs)
    measured = {
        "power": rate(found[SHAPE], asked.plants, "96x256 planted k=4, weights outside blocks .7 of those inside"),
        "false_positive_rate": rate(
            false, asked.runs * len(NOISE), f"96x256, {len(NOISE)} laws of noise: {', '.join(NOISE)}"
        ),
    }
    (FOLDER / "measured.json").write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
