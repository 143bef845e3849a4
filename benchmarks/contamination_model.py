"""Power and false-positive rate of the order test, over organisms and clean twins that are each trained anew.

    python -m benchmarks.contamination_model [--runs 40] [--out benchmarks/contamination_model.json]

Each run draws its own items, trains one organism that reads them in published order and one clean twin that reads the
same items shuffled anew in each pass (`checks.organisms.contamination_order.SMALL`), and asks both with 31 shuffles
(contamination, 7.1). No time is told: what is measured is a rate. A run that was cut short goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checks.contamination.order_test import order_test
from checks.contamination.shares_estimate import counted
from checks.organisms.contamination_order import SMALL, order_organism, order_scores

OUT = Path(__file__).with_suffix(".json")
RUNS, SHUFFLES, ALPHA = 40, 31, 0.01
"""Clean twins, at least as many as a rate of .05 needs to be told from .2; shuffles and level are the defaults."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, ask and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contamination_model")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--out", type=Path, default=OUT)
    parsed = parser.parse_args(arguments)
    known = json.loads(parsed.out.read_text()) if parsed.out.exists() else {}
    organisms: list[float] = list(known.get("organism_p", []))
    twins: list[float] = list(known.get("twin_p", []))
    for run in range(len(twins), parsed.runs):
        twins.append(asked(run, shuffled=True))
        organisms.append(asked(run, shuffled=False))
        parsed.out.write_text(json.dumps(summary(organisms, twins), indent=1, sort_keys=True) + "\n")


def asked(seed: int, *, shuffled: bool) -> float:
    """Return the order test's p of one organism or clean twin, trained here."""
    organism = order_organism(SMALL, np.random.default_rng([seed, 11]), shuffled=shuffled)
    told = order_test(*order_scores(organism, SHUFFLES, np.random.default_rng([seed, 12])))
    assert told is not None
    return told.p


def summary(organisms: Sequence[float], twins: Sequence[float]) -> dict[str, Any]:
    """Return the rates with Clopper and Pearson's intervals, and every p that they rest on."""
    recipe = {"items": SMALL.items, "span": SMALL.span, "passes": SMALL.passes, "shuffles": SHUFFLES}
    return {
        "recipe": recipe,
        "alpha": ALPHA,
        "power": _rate(organisms, ALPHA),
        "false_positive_rate": _rate(twins, ALPHA),
        "false_positive_rate_at_.05": _rate(twins, 0.05),
        "organism_p": [float(f"{p:.4g}") for p in organisms],
        "twin_p": [float(f"{p:.4g}") for p in twins],
    }


def _rate(p: Sequence[float], level: float) -> dict[str, float | int]:
    told = counted(sum(one <= level for one in p), len(p))
    return {"share": round(told.value, 4), "low": round(told.low, 4), "high": round(told.high, 4), "n": told.n}


if __name__ == "__main__":
    main()
