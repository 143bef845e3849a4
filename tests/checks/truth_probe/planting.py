"""Planted states for the truth probe, and plain rows: the synthetic plant of the specification, section 10."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from checks.truth_probe.pairs import PairActivations

CONTENT = 16


def planted_states(
    n: int, d: int, a: float, rng: np.random.Generator, *, b: float = 0.0, labels: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return states + and - (n x d each) and labels: x± = 4 g C ± 2 o ± (a t_i t + b h_i h) / 2 + noise.

    A feature of displacement a along a hidden axis, content that both branches share, and a constant branch offset.
    """
    shared = min(CONTENT, d - 3)
    axes = np.linalg.qr(rng.standard_normal((d, shared + 3)))[0].T
    labels = rng.integers(0, 2, n) if labels is None else labels
    feature = rng.integers(0, 2, n)
    content = 4 * rng.standard_normal((n, shared)) @ axes[:shared]
    half = 2 * axes[shared] + 0.5 * (
        a * (2 * labels - 1)[:, None] * axes[shared + 1] + b * (2 * feature - 1)[:, None] * axes[shared + 2]
    )
    return (
        content + half + rng.standard_normal((n, d)),
        content - half + rng.standard_normal((n, d)),
        labels,
    )


def pairs_of(pos: np.ndarray, neg: np.ndarray, cluster: np.ndarray | None = None) -> PairActivations:
    """Return pairs of one template, each its own cluster unless told."""
    n = len(pos)
    return PairActivations(pos, neg, np.zeros(n, dtype=int), np.arange(n) if cluster is None else cluster)


def rows_of(labels: Sequence[int | None], splits: Sequence[str | None], per_cluster: int = 1) -> list[dict[str, Any]]:
    """Return rows of the role `pairs` with these labels and splits."""
    return [
        {
            "id": f"p{row}",
            "item": f"i{row}",
            "cluster": f"c{row // per_cluster}",
            "set": "planted",
            "template": "t",
            "form": "statement",
            "pos": f"Number {row} is so.",
            "neg": f"Number {row} is not so.",
            "label": label,
            "polarity": "affirmative",
            "split": split,
        }
        for row, (label, split) in enumerate(zip(labels, splits, strict=True))
    ]
