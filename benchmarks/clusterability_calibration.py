"""False positives and power of `clusterability`, over noise without clusters and over planted blocks.

Run: `OPENBLAS_NUM_THREADS=1 python -m benchmarks.clusterability_calibration --draws 400`. Prints the table of laws of
noise and writes it to `clusterability_calibration.json`; writes, beside the check, `measured.json` (what the
catalogue shows) and `power.json` (what findings quote, by shape). On one core of an idle machine 200 draws a law take
about ten minutes, most of it the mask route; `--plants 0` keeps the power that was measured before.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from assay.result import Measured

import checks.clusterability as family
from checks.clusterability.check import NULLS_LEAST, Clusterability
from checks.clusterability.controls import planted
from checks.clusterability.findings import DETECTED, Numbers, matrices_of, word_of
from checks.clusterability.masks import mask_stability, mask_structure
from checks.clusterability.noise import DENSE, MASKS, SHAPE
from checks.clusterability.nulls import COMMITTED_SHAPES, auto_ks
from checks.clusterability.structure import alive
from checks.memory import InMemoryEvidence, model_facts
from checks.quantise import decimal
from checks.statistics import proportion_interval

PLANT_K, PLANT_RHO = 4, 0.7
FOLDER = Path(next(iter(family.__path__)))
TABLE = Path(__file__).with_suffix(".json")

KINDS = {
    "iid": ("iid",),
    "heterogeneous": ("lognormal", "laplace-x-lognormal"),
    "sparse": ("zeros-10", "zeros-20", "mask-10"),
}
"""The three kinds of random matrix that any claim must stand against; the other laws are harder or milder cases."""


@dataclass(frozen=True)
class Row:
    """What the draws of one law, or of one kind of laws, gave."""

    name: str
    p: tuple[float, ...]
    excess: tuple[float, ...]
    flagged: tuple[bool, ...]
    """Whether the whole rule calls the draw clustered."""

    def document(self, alpha: float) -> dict[str, Any]:
        """Return the row as numbers, shares with Wilson's intervals."""
        return {
            "name": self.name,
            "n": len(self.p),
            "p_alone": _share([p <= alpha for p in self.p]),
            "full_rule": _share(self.flagged),
            "excess_mean": round(float(np.mean(self.excess)), 5),
            "excess_max": round(float(np.max(self.excess)), 5),
        }


def measure(weights: np.ndarray, seed: int) -> Measured:
    """Return the check's numbers of one matrix."""
    facts = model_facts(layers=1, mlp_in=("w",))
    return Clusterability().measure(
        InMemoryEvidence(facts=facts, check="clusterability", seed=seed, weights={"w": weights})
    )


def of_mask(weights: np.ndarray, seed: int) -> Numbers:
    """Return what the rule reads of one matrix on the mask route, whose only null is its own: it confirms, too."""
    limits, rng = Clusterability().limits(), np.random.default_rng([seed, 1])
    mask = alive(weights)[0] != 0
    shape = (mask.shape[0], mask.shape[1])
    found = mask_structure(mask, auto_ks(shape), seed, rng, NULLS_LEAST)
    passes = found.p <= limits.alpha and found.excess_q >= limits.min_excess_q
    labels = np.concatenate([found.partition.rows, found.partition.columns])
    return Numbers(
        matrix="w",
        p_holm=found.p,
        p_holm_least=1.0 / (found.planned + 1),
        excess_q=found.excess_q,
        k=found.k,
        smallest_share=float(np.bincount(labels, minlength=found.k).min() / len(labels)),
        stability=float(np.median(mask_stability(mask, found.partition, found.k, rng))) if passes else None,
        confirm_excess_q=found.excess_q if passes else None,
        masked=False,
        null_n=found.n,
        power=None,
    )


def flagged(numbers: Numbers) -> bool:
    """Return whether the whole rule calls the matrix clustered."""
    return word_of(numbers, Clusterability().limits())[0] == DETECTED


def draws_of(name: str, number: int, draws: int) -> Row:
    """Return what so many draws of a law gave."""
    told = []
    for draw in range(draws):
        rng = np.random.default_rng([number, draw])
        if name in MASKS:
            told.append(of_mask(MASKS[name](rng), draw))
        else:
            told.append(matrices_of(measure(DENSE[name](rng), draw))[0])
    return Row(
        name,
        tuple(one.p_holm for one in told),
        tuple(one.excess_q for one in told),
        tuple(flagged(one) for one in told),
    )


def pooled(name: str, rows: Sequence[Row]) -> Row:
    """Return the draws of several laws as one row."""
    return Row(
        name,
        tuple(p for row in rows for p in row.p),
        tuple(excess for row in rows for excess in row.excess),
        tuple(one for row in rows for one in row.flagged),
    )


def false_positives(draws: int) -> list[Row]:
    """Print the table of laws, then of kinds, write it, and return the rows of the laws."""
    alpha = Clusterability().limits().alpha
    print(f"{'noise':>20} {'n':>5}  {'p <= alpha':>20}  {'whole rule':>20}  {'excess':>7} {'largest':>7}")
    rows = []
    for number, name in enumerate((*DENSE, *MASKS)):
        rows.append(draws_of(name, number, draws))
        _print(rows[-1].document(alpha))
    kinds = [pooled(kind, [row for row in rows if row.name in laws]) for kind, laws in KINDS.items()]
    for kind in kinds:
        _print(kind.document(alpha))
    document = {
        "shape": list(SHAPE),
        "alpha": alpha,
        "draws": draws,
        "interval": "wilson 0.95",
        "kinds": [kind.document(alpha) | {"laws": list(KINDS[kind.name])} for kind in kinds],
        "laws": [row.document(alpha) | {"route": "mask" if row.name in MASKS else "dense"} for row in rows],
    }
    TABLE.write_text(json.dumps(document, indent=1) + "\n")
    return rows


def _share(hits: Sequence[bool]) -> dict[str, Any]:
    low, high = proportion_interval(sum(hits), len(hits))
    return {"count": sum(hits), "share": round(sum(hits) / len(hits), 4), "low": round(low, 4), "high": round(high, 4)}


def _print(row: dict[str, Any]) -> None:
    shares = "  ".join(
        f"{row[name]['share']:.3f} [{row[name]['low']:.3f}, {row[name]['high']:.3f}]"
        for name in ("p_alone", "full_rule")
    )
    print(f"{row['name']:>20} {row['n']:5d}  {shares}  {row['excess_mean']:7.4f} {row['excess_max']:7.4f}", flush=True)


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


def power(shape: tuple[int, int], draws: int) -> int:
    """Return how many planted matrices of a shape the whole rule detects."""
    found = 0
    for draw in range(draws):
        weights = planted(shape, PLANT_K, PLANT_RHO, np.random.default_rng([shape[0], shape[1], draw]))[0]
        found += flagged(matrices_of(measure(weights, draw))[0])
    return found


def powers(plants: int) -> dict[str, object]:
    """Measure, print and write the power at every committed shape, and return the catalogue's entry."""
    found = {shape: power(shape, plants) for shape in COMMITTED_SHAPES}
    print({f"{n}x{m}": f"{count}/{plants}" for (n, m), count in found.items()}, flush=True)
    by_shape = {f"{n}x{m}": {"found": count, "planted": plants} for (n, m), count in found.items()}
    (FOLDER / "power.json").write_text(json.dumps(by_shape, indent=1) + "\n")
    return rate(found[SHAPE], plants, "96x256 planted k=4, weights outside blocks .7 of those inside")


def main() -> None:
    """Measure and write all files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=400, help="matrices of each law of noise")
    parser.add_argument("--plants", type=int, default=40, help="planted matrices for each committed shape; 0: keep")
    asked = parser.parse_args()
    path = FOLDER / "measured.json"
    measured = {"power": powers(asked.plants) if asked.plants else json.loads(path.read_text())["power"]}
    rows = false_positives(asked.draws)
    everything = pooled("all", rows)
    names = ", ".join(row.name for row in rows)
    measured["false_positive_rate"] = rate(
        sum(everything.flagged), len(everything.flagged), f"{SHAPE[0]}x{SHAPE[1]}, {len(rows)} laws of noise: {names}"
    )
    path.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
