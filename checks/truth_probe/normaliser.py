"""Centring of states: fitted on train, frozen, applied to everything. Specification: section 5.1."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from checks.truth_probe.direction import Direction, unit
from checks.truth_probe.pairs import PairActivations

if TYPE_CHECKING:
    from jaxtyping import Float

Mode = Literal["mean", "scale", "zscore"]

TEMPLATE_MIN = 8
"""A template with fewer train pairs takes the mean of its branch over all templates (5.1)."""

CONSTANT = 1e-9
"""A feature with this share of the largest s.d. never varied: what is left is rounding, and dividing would raise it."""

DIGEST_DOMAIN = b"assay-truth-normaliser/v1\n"
"""Separates a normaliser's digest from every other use of SHA-256."""


@dataclass(frozen=True)
class Normaliser:
    """Means of each branch, by template, and what centred states are divided by; nothing of test or labels enters."""

    pos: Mapping[int, Float[np.ndarray, " width"]]
    neg: Mapping[int, Float[np.ndarray, " width"]]
    pos_all: Float[np.ndarray, " width"]
    neg_all: Float[np.ndarray, " width"]
    mode: Mode = "mean"
    scale: Float[np.ndarray, " width"] | float = 1.0
    """`scale`: one number, mean |x~| / sqrt(width). `zscore`: a population s.d. for each feature, pooled over branches
    and templates: with one for each branch a pair's score would not be linear in its displacement."""
    thin: tuple[int, ...] = ()
    """Train templates with fewer than `TEMPLATE_MIN` pairs, which take their branch's mean."""

    @classmethod
    def fit(cls, train: PairActivations, mode: Mode = "mean") -> Normaliser:
        """Return the statistics of train pairs, float64.

        Raises:
            ValueError: the mode is unknown, or there is no pair.
        """
        if mode not in ("mean", "scale", "zscore"):
            raise ValueError(f"normaliser {mode!r} is not mean, scale or zscore")
        if not len(train):
            raise ValueError("a normaliser needs at least one train pair")
        pos: dict[int, np.ndarray] = {}
        neg: dict[int, np.ndarray] = {}
        thin: list[int] = []
        for template, count in zip(*np.unique(train.template, return_counts=True), strict=True):
            if count < TEMPLATE_MIN:
                thin.append(int(template))
                continue
            rows = train.template == template
            pos[int(template)] = train.pos[rows].mean(axis=0, dtype=np.float64)
            neg[int(template)] = train.neg[rows].mean(axis=0, dtype=np.float64)
        whole = [branch.mean(axis=0, dtype=np.float64) for branch in (train.pos, train.neg)]
        centring = cls(pos, neg, whole[0], whole[1], thin=tuple(thin))
        return centring if mode == "mean" else replace(centring, mode=mode, scale=_spread(centring.apply(train), mode))

    def apply(self, pairs: PairActivations) -> PairActivations:
        """Return the pairs less the train means of their branch and template, divided by the scale, float64."""
        pos, neg = pairs.pos.astype(np.float64), pairs.neg.astype(np.float64)
        for template in np.unique(pairs.template):
            rows = pairs.template == template
            pos[rows] -= self.pos.get(int(template), self.pos_all)
            neg[rows] -= self.neg.get(int(template), self.neg_all)
        if self.mode != "mean":
            pos /= self.scale
            neg /= self.scale
        return PairActivations(pos, neg, pairs.template, pairs.cluster)

    def apply_texts(self, states: Float[np.ndarray, "text width"]) -> Float[np.ndarray, "text width"]:
        """Return states of single texts less the train mean of both branches and all templates, scaled (5.14)."""
        return np.asarray((states.astype(np.float64) - (self.pos_all + self.neg_all) / 2) / self.scale)

    def unknown_templates(self, pairs: PairActivations) -> tuple[int, ...]:
        """Return the templates of some pairs that train did not hold: they take their branch's mean."""
        known = {*self.pos, *self.thin}
        return tuple(int(one) for one in np.unique(pairs.template) if int(one) not in known)

    def fold(self, direction: Direction) -> Direction:
        """Return a direction fitted on normalised states as one that acts on raw centred states.

        theta . (x~ / s) + b is (theta / s) . x~ + b; at unit length both shrink by |theta / s|, and every score by the
        same positive number.
        """
        raw = direction.vector / self.scale
        length = max(float(np.linalg.norm(raw)), np.finfo(np.float64).tiny)
        return replace(direction, vector=unit(raw), offset=direction.offset / length, normaliser=self.digest())

    def digest(self) -> str:
        """Return the SHA-256 of every frozen number, hexadecimal."""
        held = hashlib.sha256(DIGEST_DOMAIN + self.mode.encode() + b"\n")
        for branch in (self.pos, self.neg):
            for template in sorted(branch):
                held.update(f"template {template}\n".encode() + branch[template].astype("<f8").tobytes())
            held.update(b"branch\n")
        thin = ",".join(map(str, self.thin))
        held.update(f"thin {thin}\n".encode())
        for array in (self.pos_all, self.neg_all, np.asarray(self.scale)):
            held.update(np.asarray(array, dtype="<f8").tobytes())
        return held.hexdigest()


def _spread(centred: PairActivations, mode: Mode) -> Float[np.ndarray, " width"] | float:
    """Return what centred train states are divided by; a feature or a layer that never varies stays as it is."""
    both = np.concatenate([centred.pos, centred.neg])
    if mode == "scale":
        size = float(np.linalg.norm(both, axis=1).mean() / np.sqrt(both.shape[1]))
        return size if size > 0 else 1.0
    deviation = np.sqrt(np.mean(both**2, axis=0))
    return np.asarray(np.where(deviation > CONSTANT * deviation.max(), deviation, 1.0))
