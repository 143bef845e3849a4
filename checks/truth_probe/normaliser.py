"""Centring of states: fitted on train, frozen, applied to everything. Specification: section 5.1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.truth_probe.pairs import PairActivations

if TYPE_CHECKING:
    from jaxtyping import Float

TEMPLATE_MIN = 8
"""A template with fewer train pairs takes the mean of its branch over all templates (5.1)."""


@dataclass(frozen=True)
class Normaliser:
    """Means of each branch, by template; nothing of test, anchors or labels enters."""

    pos: Mapping[int, Float[np.ndarray, " width"]]
    neg: Mapping[int, Float[np.ndarray, " width"]]
    pos_all: Float[np.ndarray, " width"]
    neg_all: Float[np.ndarray, " width"]

    @classmethod
    def fit(cls, train: PairActivations) -> Normaliser:
        """Return the means of train pairs, float64."""
        pos: dict[int, np.ndarray] = {}
        neg: dict[int, np.ndarray] = {}
        for template, count in zip(*np.unique(train.template, return_counts=True), strict=True):
            if count >= TEMPLATE_MIN:
                rows = train.template == template
                pos[int(template)] = train.pos[rows].mean(axis=0, dtype=np.float64)
                neg[int(template)] = train.neg[rows].mean(axis=0, dtype=np.float64)
        return cls(pos, neg, train.pos.mean(axis=0, dtype=np.float64), train.neg.mean(axis=0, dtype=np.float64))

    def apply(self, pairs: PairActivations) -> PairActivations:
        """Return the pairs less the train means of their branch and template, float64."""
        pos, neg = pairs.pos.astype(np.float64), pairs.neg.astype(np.float64)
        for template in np.unique(pairs.template):
            rows = pairs.template == template
            pos[rows] -= self.pos.get(int(template), self.pos_all)
            neg[rows] -= self.neg.get(int(template), self.neg_all)
        return PairActivations(pos, neg, pairs.template, pairs.cluster)
