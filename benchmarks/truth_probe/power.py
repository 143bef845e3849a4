"""Power and false positives of `truth_probe`'s first gate, on the synthetic plant of its specification (section 10).

Run: `OPENBLAS_NUM_THREADS=1 python -m benchmarks.truth_probe.power`. Writes every rate to `power.json` beside this
script and the two that the catalogue shows to `measured.json` beside the check. Some ten minutes on one core.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

import checks.truth_probe as family
from checks.memory import InMemoryEvidence, model_facts
from checks.quantise import decimal
from checks.statistics import proportion_interval
from checks.truth_probe.check import TruthProbe
from checks.truth_probe.fitting import Method
from checks.truth_probe.gates import gates

FOLDER = Path(next(iter(family.__path__)))

PAIRS, ANCHORS, WIDTH, CONTENT = 400, 32, 256, 16
"""Train pairs, and as many for test; labelled anchors; width; directions of content that both branches share."""

AMPLITUDES = {"0": 0.0, "0.71": 1.0, "1.06": 1.5, "1.41": 2.0, "2.12": 3.0}
"""Planted displacement a; its effect is e = a / sqrt 2, the name."""

METHODS: tuple[Method, ...] = ("md", "tpc", "ccs", "lr")

QUOTED = "1.41"
"""Effect whose power the catalogue shows, for the primary method."""


def evidence(amplitude: float, seed: int) -> InMemoryEvidence:
    """Return x± = 4 g C ± 2 o ± a t / 2 + noise for train, anchors and test; every pair is its own cluster."""
    rng = np.random.default_rng(seed)
    total = 2 * PAIRS + ANCHORS
    axes = np.linalg.qr(rng.standard_normal((WIDTH, CONTENT + 2)))[0].T
    labels = rng.integers(0, 2, total)
    content = 4 * rng.standard_normal((total, CONTENT)) @ axes[:CONTENT]
    half = 2 * axes[CONTENT] + 0.5 * amplitude * (2 * labels - 1)[:, None] * axes[CONTENT + 1]
    splits = ["train"] * PAIRS + ["anchor"] * ANCHORS + ["test"] * PAIRS
    rows = [
        {
            "id": f"p{row}",
            "item": f"i{row}",
            "cluster": f"c{row}",
            "set": "planted",
            "template": "t",
            "form": "statement",
            "pos": f"Number {row} is so.",
            "neg": f"Number {row} is not so.",
            "label": int(label),
            "polarity": "affirmative",
            "split": split,
        }
        for row, (label, split) in enumerate(zip(labels, splits, strict=True))
    ]
    facts = model_facts(layers=1, width=WIDTH)
    # Without the texts of the battery nothing is known of them: their states are lost, and their gate stays open.
    texts = probe().needs(facts, {"pairs": rows}).texts
    states = np.full((len(texts), WIDTH), np.nan)
    # Texts come in the order of their ids, not of the rows.
    at = {text.id: place for place, text in enumerate(texts)}
    states[[at[f"planted/p{row}/pos"] for row in range(total)]] = content + half + rng.standard_normal((total, WIDTH))
    states[[at[f"planted/p{row}/neg"] for row in range(total)]] = content - half + rng.standard_normal((total, WIDTH))
    lost = {text.id: "unswept" for text in texts[2 * total :]}
    return InMemoryEvidence(
        facts=facts, check="truth_probe", seed=seed, activations={"resid.0": states}, rows={"pairs": rows}, lost=lost
    )


def probe() -> TruthProbe:
    """Return the check as it is asked here."""
    return TruthProbe(datasets=(), methods=METHODS)


def held(amplitude: float, draws: int) -> Mapping[Method, int]:
    """Return in how many draws gate 1 held, by method."""
    check, counts = probe(), dict.fromkeys(METHODS, 0)
    for draw in range(draws):
        measured = check.measure(evidence(amplitude, draw))
        for method in METHODS:
            counts[method] += gates(measured, "planted", "0", method, check.limits())["detected"] == "holds"
    return counts


def rate(successes: int, n: int, at: str) -> dict[str, object]:
    """Return a rate with Wilson's 95 % interval, as the catalogue holds it."""
    low, high = proportion_interval(successes, n)
    return {
        "estimate": decimal(successes / n, 4),
        "low": decimal(low, 4),
        "high": decimal(high, 4),
        "n": n,
        "at": at,
    }


def main() -> None:
    """Measure every amplitude and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=60, help="planted sets for each effect")
    draws = parser.parse_args().draws
    found: dict[str, Mapping[Method, int]] = {}
    for effect, amplitude in AMPLITUDES.items():
        found[effect] = held(amplitude, draws)
        print(f"effect {effect:>5}: {dict(found[effect])} of {draws}", flush=True)
    at = f"{PAIRS} train pairs, {PAIRS} test items, width {WIDTH}, {ANCHORS} anchors"
    told = {
        effect: {method: rate(count, draws, f"planted effect {effect}, {at}") for method, count in by.items()}
        for effect, by in found.items()
    }
    (Path(__file__).parent / "power.json").write_text(json.dumps(told, indent=1) + "\n")
    measured = {
        "power": rate(found[QUOTED]["md"], draws, f"gate 1 of md, planted effect {QUOTED}, {at}"),
        "false_positive_rate": rate(found["0"]["md"], draws, f"gate 1 of md, no planted effect, {at}"),
    }
    (FOLDER / "measured.json").write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
