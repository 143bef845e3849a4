"""Power and false positives of `truth_probe`'s first gate, on the synthetic plant of its specification.

Run: `OPENBLAS_NUM_THREADS=1 python -m benchmarks.truth_probe_power`. Writes `measured.json` beside the check, which
the catalogue shows. About three minutes on one core.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import checks.truth_probe as family
from checks.memory import InMemoryEvidence, model_facts
from checks.quantise import decimal
from checks.statistics import proportion_interval
from checks.truth_probe.check import TruthProbe
from checks.truth_probe.findings import layers_of, word_of

FOLDER = Path(next(iter(family.__path__)))

PAIRS, ANCHORS, WIDTH, CONTENT = 400, 32, 256, 16
"""Train pairs, and as many for test; labelled anchors; width; directions of content that both branches share."""

AMPLITUDES = {"0": 0.0, "0.71": 1.0, "1.06": 1.5, "1.41": 2.0, "2.12": 3.0}
"""Planted displacement a; its effect is e = a / sqrt 2, the name."""

QUOTED = "1.41"
"""Effect whose power the catalogue shows."""


def evidence(amplitude: float, seed: int) -> InMemoryEvidence:
    """Return x± = 4 g C ± 2 o ± a t / 2 + noise for train, anchors and test; every pair is its own cluster."""
    rng = np.random.default_rng(seed)
    total = 2 * PAIRS + ANCHORS
    axes = np.linalg.qr(rng.standard_normal((WIDTH, CONTENT + 2)))[0].T
    labels = rng.integers(0, 2, total)
    content = 4 * rng.standard_normal((total, CONTENT)) @ axes[:CONTENT]
    half = 2 * axes[CONTENT] + 0.5 * amplitude * (2 * labels - 1)[:, None] * axes[CONTENT + 1]
    states = np.empty((2 * total, WIDTH))
    states[0::2] = content + half + rng.standard_normal((total, WIDTH))
    states[1::2] = content - half + rng.standard_normal((total, WIDTH))
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
    return InMemoryEvidence(
        facts=facts, check="truth_probe", seed=seed, activations={"resid.0": states}, rows={"pairs": rows}
    )


def words(amplitude: float, draws: int) -> dict[str, int]:
    """Return how often each word was said, controls taken as held."""
    check = TruthProbe()
    said: dict[str, int] = {}
    for draw in range(draws):
        numbers = layers_of(check.measure(evidence(amplitude, draw)))[0]
        word, _ = word_of(numbers, check.limits(), ())
        said[word] = said.get(word, 0) + 1
    return said


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


def main() -> None:
    """Measure every amplitude and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=60, help="planted sets for each effect")
    draws = parser.parse_args().draws
    found = {}
    for effect, amplitude in AMPLITUDES.items():
        said = words(amplitude, draws)
        found[effect] = said.get("PROVISIONAL", 0)
        print(f"effect {effect:>5}: {said}", flush=True)
    at = f"{PAIRS} train pairs, {PAIRS} test items, width {WIDTH}, {ANCHORS} anchors"
    measured = {
        "power": rate(found[QUOTED], draws, f"planted effect {QUOTED}, {at}"),
        "false_positive_rate": rate(found["0"], draws, f"no planted effect, {at}"),
    }
    (FOLDER / "measured.json").write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
