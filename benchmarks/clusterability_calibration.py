"""False positives and power of `clusterability`, over noise without clusters and over planted structure.

Run: `OPENBLAS_NUM_THREADS=1 python -m benchmarks.clusterability_calibration`. Prints the table of laws of noise with
Clopper-Pearson intervals and writes it to `clusterability_calibration.json`; writes, beside the check, `measured.json`
(what the catalogue shows) and `power.json` (what findings quote, by shape and by family). What was drawn is kept in
`--kept`, a line a draw, so that a run which was cut off goes on where it ended; draws of another algorithm or null
table are thrown away.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from assay.result import Measured

import checks.clusterability as family
from benchmarks.clusterability_power import graph_powers
from checks.clusterability.check import Clusterability
from checks.clusterability.committed import POWER, kept_nulls, null_table_sha256, shape_name
from checks.clusterability.controls import planted
from checks.clusterability.findings import Numbers, matrices_of, word_of
from checks.clusterability.intervals import clopper_pearson
from checks.clusterability.lesion_findings import DETECTED
from checks.clusterability.masks import mask_stability, mask_structure
from checks.clusterability.noise import DENSE, MASKS, SHAPE
from checks.clusterability.nulls import ALGORITHM, COMMITTED_SHAPES, auto_ks
from checks.clusterability.structure import alive
from checks.memory import InMemoryEvidence, model_facts
from checks.quantise import decimal

PLANT_K, PLANT_RHO = 4, 0.7
MASK_NULLS = 199
"""Replicates of a mask: what an audit of up to five matrices draws."""

TABLE = Path(__file__).with_suffix(".json")
MEASURED = Path(next(iter(family.__path__))) / "measured.json"
KEPT = Path(__file__).resolve().parent.parent / "var" / "clusterability_calibration.jsonl"

KINDS = {
    "iid": ("iid",),
    "heterogeneous": ("lognormal", "laplace-x-lognormal"),
    "sparse": ("zeros-10", "zeros-20", "mask-10"),
}
"""The three kinds of random matrix that any claim must stand against; the other laws are harder or milder cases."""


@dataclass(frozen=True)
class Draw:
    """What one matrix gave."""

    law: str
    """Name of a law of noise, or "planted-" and a shape."""
    draw: int
    p: float
    excess: float
    flagged: bool
    """Whether the whole rule calls it clustered."""


@dataclass(frozen=True)
class Row:
    """What the draws of one law, or of one kind of laws, gave."""

    name: str
    draws: tuple[Draw, ...]

    @property
    def flagged(self) -> int:
        """How many draws the whole rule calls clustered."""
        return sum(one.flagged for one in self.draws)

    def document(self, alpha: float) -> dict[str, Any]:
        """Return the row as numbers, shares with Clopper-Pearson intervals."""
        excess = [one.excess for one in self.draws]
        return {
            "name": self.name,
            "n": len(self.draws),
            "p_alone": _share(sum(one.p <= alpha for one in self.draws), len(self.draws)),
            "full_rule": _share(self.flagged, len(self.draws)),
            "excess_mean": round(float(np.mean(excess)), 5),
            "excess_max": round(float(np.max(excess)), 5),
        }


def measure(weights: np.ndarray, seed: int) -> Measured:
    """Return the check's numbers of one matrix."""
    facts = model_facts(layers=1, mlp_in=("w",))
    check = Clusterability(families=("mlp_in",))
    return check.measure(InMemoryEvidence(facts=facts, check=check.name, seed=seed, weights={"w": weights}))


def of_mask(weights: np.ndarray, seed: int) -> Numbers:
    """Return what the rule reads of one matrix on the mask route, whose only null is its own: it confirms, too."""
    limits, rng = Clusterability().limits(), np.random.default_rng([seed, 1])
    mask = alive(weights)[0] != 0
    found = mask_structure(mask, auto_ks((mask.shape[0], mask.shape[1])), seed, rng, MASK_NULLS)
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
        masked=True,
        null_n=found.n,
        planned=found.planned,
        power=None,
    )


def draw_of(law: str, number: int, draw: int) -> Draw:
    """Return what one draw of a law gave; `number` and `draw` are its seed."""
    rng = np.random.default_rng([number, draw])
    if law in MASKS:
        return _told(law, draw, of_mask(MASKS[law](rng), draw))
    return _told(law, draw, matrices_of(measure(DENSE[law](rng), draw))[0])


def plant_of(shape: tuple[int, int], draw: int) -> Draw:
    """Return what one planted matrix of a shape gave."""
    weights = planted(shape, PLANT_K, PLANT_RHO, np.random.default_rng([*shape, draw]))[0]
    return _told(f"planted-{shape_name(shape)}", draw, matrices_of(measure(weights, draw))[0])


def _told(law: str, draw: int, numbers: Numbers) -> Draw:
    flagged = word_of(numbers, Clusterability().limits())[0] == DETECTED
    return Draw(law, draw, numbers.p_holm, numbers.excess_q, flagged)


def draws_of(law: str, number: int, draws: int) -> Row:
    """Return what so many draws of a law gave, without keeping them."""
    return Row(law, tuple(draw_of(law, number, draw) for draw in range(draws)))


def nulls_sha256() -> str:
    """Return the digest of the committed replicates that the laws are held against; other shapes may come and go."""
    kept = kept_nulls(ALGORITHM)[shape_name(SHAPE)]
    return hashlib.sha256(json.dumps(kept.ks).encode() + kept.q.tobytes()).hexdigest()


class Kept:
    """Draws in a file, a line each, under a first line that says what they are draws of."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._draws: dict[tuple[str, int], Draw] = {}
        head = json.dumps({"algorithm": ALGORITHM, "shape": SHAPE, "nulls": nulls_sha256()})
        lines = path.read_text().splitlines() if path.exists() else []
        if lines[:1] != [head]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(head + "\n")
            lines = []
        for line in lines[1:]:
            one = Draw(**json.loads(line))
            self._draws[one.law, one.draw] = one

    def row(self, law: str, wanted: int) -> Iterator[Draw | int]:
        """Yield for each of the first draws of a law what is kept of it, or its number where nothing is."""
        for draw in range(wanted):
            yield self._draws.get((law, draw), draw)

    def add(self, one: Draw) -> Draw:
        """Keep a draw."""
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(one)) + "\n")
        return one


def law(kept: Kept, name: str, draws: int) -> Row:
    """Draw what is not kept of a law, print and return its row."""
    number = (*DENSE, *MASKS).index(name)
    seen = kept.row(name, draws)
    row = Row(name, tuple(kept.add(draw_of(name, number, one)) if isinstance(one, int) else one for one in seen))
    _print(row.document(Clusterability().limits().alpha))
    return row


def table(rows: Sequence[Row]) -> None:
    """Write the table of laws and of the three kinds."""
    alpha = Clusterability().limits().alpha
    by_kind = {
        kind: tuple(one for row in rows if row.name in laws for one in row.draws) for kind, laws in KINDS.items()
    }
    kinds = [Row(kind, draws).document(alpha) | {"laws": list(KINDS[kind])} for kind, draws in by_kind.items()]
    for kind in kinds:
        _print(kind)
    document = {
        "shape": list(SHAPE),
        "ks": list(auto_ks(SHAPE)),
        "alpha": alpha,
        "interval": "clopper-pearson 0.95",
        "null_table_sha256": null_table_sha256(),
        "kinds": kinds,
        "laws": [row.document(alpha) | {"route": "mask" if row.name in MASKS else "dense"} for row in rows],
    }
    TABLE.write_text(json.dumps(document, indent=1) + "\n")


def powers(kept: Kept, plants: int, most: int) -> dict[str, dict[str, int]]:
    """Draw and print the power at every committed shape; the calibration's shape has `most` plants."""
    told = {}
    for shape in COMMITTED_SHAPES:
        if PLANT_K not in auto_ks(shape):
            continue  # too small for four clusters: nothing is said of its power
        name, wanted = shape_name(shape), most if shape == SHAPE else plants
        seen = kept.row(f"planted-{name}", wanted)
        row = [kept.add(plant_of(shape, one)) if isinstance(one, int) else one for one in seen]
        told[name] = {"found": sum(one.flagged for one in row), "planted": len(row)}
        print(f"{name:>20} {told[name]['found']} of {len(row)} planted found", flush=True)
    return told


def _share(hits: int, n: int) -> dict[str, Any]:
    low, high = clopper_pearson(hits, n)
    return {"count": hits, "share": round(hits / n, 4), "low": round(low, 4), "high": round(high, 4)}


def _print(row: Mapping[str, Any]) -> None:
    shares = "  ".join(
        f"{row[name]['share']:.3f} [{row[name]['low']:.3f}, {row[name]['high']:.3f}]"
        for name in ("p_alone", "full_rule")
    )
    print(f"{row['name']:>20} {row['n']:5d}  {shares}  {row['excess_mean']:7.4f} {row['excess_max']:7.4f}", flush=True)


def rate(successes: int, n: int, at: str) -> dict[str, object]:
    """Return a rate with its Clopper-Pearson interval, as the catalogue holds it."""
    low, high = clopper_pearson(successes, n)
    return {
        "estimate": decimal(successes / n, 4),
        "low": decimal(low, 4),
        "high": decimal(high, 4),
        "n": n,
        "at": at,
    }


def main() -> None:
    """Measure and write all files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dense", type=int, default=400, help="matrices of each law of the dense route")
    parser.add_argument("--masks", type=int, default=200, help="matrices of each law of the mask route")
    parser.add_argument("--plants", type=int, default=20, help="planted for each shape and family; 0: keep")
    parser.add_argument("--plants-at-calibration", type=int, default=40, help="planted matrices at 96x256")
    parser.add_argument("--kept", type=Path, default=KEPT, help="file of draws, to go on with")
    asked = parser.parse_args()
    kept = Kept(asked.kept)
    print(f"{'noise':>20} {'n':>5}  {'p <= alpha':>20}  {'whole rule':>20}  {'excess':>7} {'largest':>7}")
    rows = [law(kept, name, asked.dense) for name in DENSE]
    if asked.plants:
        found = powers(kept, asked.plants, asked.plants_at_calibration)
        POWER.write_text(json.dumps(found | graph_powers(asked.plants), indent=1) + "\n")
    rows += [law(kept, name, asked.masks) for name in MASKS]
    table(rows)
    n, names = sum(len(row.draws) for row in rows), ", ".join(row.name for row in rows)
    at = json.loads(POWER.read_text())[shape_name(SHAPE)]
    measured = {
        "power": rate(at["found"], at["planted"], "96x256 planted k=4, weights outside blocks .7 of those inside"),
        "false_positive_rate": rate(
            sum(row.flagged for row in rows), n, f"{shape_name(SHAPE)}, {len(rows)} laws of noise: {names}"
        ),
    }
    MEASURED.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
