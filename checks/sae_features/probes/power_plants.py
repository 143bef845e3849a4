"""One plant: half of the groups get a direction added, and the probes are asked whether they see it.

Specification of `sae_features`, sections 10 and 12.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from scipy.stats import rankdata

from checks.sae_features.dictionary.grouped import Groups
from checks.sae_features.dictionary.value import Dictionary
from checks.sae_features.probes.concept_auroc import auroc, permuted_areas, weighted
from checks.sae_features.probes.concept_fit import Design, Scored, dense, sparse
from checks.sae_features.probes.concept_permute import Dealer
from checks.sae_features.probes.concept_values import TRAIN_SHARE, VAL_SHARE, ProbeSettings

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

LATENTS_READ = 5
"""k of the sparse probe of plants (specification, section 10)."""

SPREAD = 0.25
"""A plant's size is a R (1 + SPREAD |N|) (section 10)."""

LEAST_GROUPS = 20
"""Fewer groups do not fill three splits with both classes."""

RESAMPLES, PERMUTATIONS = 200, 199
"""Draws of the interval and least draws of the p of one plant: the share of detected plants is what is told, and its
own error at 40 plants (.08) is far larger than what fewer draws add."""


@dataclass(frozen=True)
class Verdict:
    """One probe on one plant."""

    auroc: float
    detected: bool
    val: float


@dataclass(frozen=True)
class Seen:
    """Both probes on one plant."""

    dense: Verdict
    sparse: Verdict

    @property
    def better(self) -> Verdict:
        """The probe that val prefers; ties to dense."""
        return self.sparse if self.sparse.val > self.dense.val else self.dense


class Bench:
    """Concept-free states and a dictionary, ready for plants.

    Args:
        x: states.
        groups: group of each.
        dictionary: reads the planted states.
        settings: floor, level and penalties.
        alpha: what p must not exceed.
        density: firing rate of each latent, or None.

    Raises:
        ValueError: as `power_table`.
    """

    def __init__(
        self,
        x: Float[np.ndarray, "row d"],
        groups: Sequence[str],
        dictionary: Dictionary,
        settings: ProbeSettings,
        alpha: float,
        density: Float[np.ndarray, " m"] | None,
    ) -> None:
        if len(x) != len(groups):
            raise ValueError(f"{len(x)} states and {len(groups)} groups")
        names, self._group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        self._names = self._group.astype(str)
        self.rows, self.groups = len(x), len(names)
        if self.groups < LEAST_GROUPS:
            raise ValueError(f"{self.groups} groups do not fill three splits: at least {LEAST_GROUPS}")
        self._x = np.asarray(x, dtype=np.float32)
        exact = self._x.astype(np.float64)
        self._scale = float(np.sqrt(((exact - exact.mean(0)) ** 2).sum(1).mean()))
        if not self._scale:
            raise ValueError("the states do not vary: strength has no unit")
        self._dictionary, self._settings, self._alpha = dictionary, settings, alpha
        self._permutations = max(PERMUTATIONS, int(np.ceil(1 / alpha)) - 1)
        self._latents = self._read(self._x)
        self._middle = _middle((self._latents > 0).mean(0) if density is None else np.asarray(density))
        rows = dictionary.rows.detach().double().numpy()
        self._directions = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)

    def draw(self, place: Literal["in", "out"], amplitude: float, rng: np.random.Generator) -> Seen:
        """Return what the probes see of one plant of strength `amplitude` R."""
        order = rng.permutation(self.groups)
        train, val, test = self._parted(order)
        labels = self._labelled(order, rng)
        if place == "in":
            direction = self._directions[rng.choice(self._middle)]
        else:
            drawn = rng.standard_normal(self._x.shape[1])
            direction = drawn / np.linalg.norm(drawn)
        planted = labels == 1
        x, latents = self._x, self._latents
        if amplitude:
            size = amplitude * self._scale * (1 + SPREAD * np.abs(rng.standard_normal(int(planted.sum()))))
            x, latents = x.copy(), latents.copy()
            x[planted] += (size[:, None] * direction).astype(np.float32)
            latents[planted] = self._read(x[planted])
        one = np.ones((1, int(train.sum())))
        design = Design(train, val, labels[train], labels[val], one, self._settings.penalties)
        k = min(LATENTS_READ, latents.shape[1])
        drawn_groups = Groups(self._names[test].tolist(), rng, RESAMPLES)
        dealt = Dealer(labels[test], self._names[test].tolist()).deal(self._permutations, rng)
        return Seen(
            self._verdict(dense(design, x), test, labels, drawn_groups, dealt),
            self._verdict(sparse(design, latents, (k,))[k], test, labels, drawn_groups, dealt),
        )

    def _verdict(
        self, probe: Scored, test: Bool[np.ndarray, " row"], labels: np.ndarray, groups: Groups, dealt: np.ndarray
    ) -> Verdict:
        """Return the rule of section 12: the lower bound above the floor, and p at most alpha."""
        scores, truth = probe.scores[:, test], labels[test]
        value = float(auroc(scores, truth)[0])
        areas = weighted(scores, truth == 1, groups.times[:, groups.index])[0]
        low = groups.told(value, areas, self._settings.level).low
        ranks = rankdata(scores, axis=1)
        p = (1 + int((permuted_areas(ranks, dealt)[:, 0] >= value - 1e-9).sum())) / (1 + len(dealt))
        detected = low is not None and low > self._settings.detect_floor and p <= self._alpha
        return Verdict(value, detected, probe.val)

    def _parted(self, order: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return train, val and test: 50/20/30 of the groups in this order."""
        place = np.empty(self.groups)
        place[order] = (np.arange(self.groups) + 0.5) / self.groups
        part = np.digitize(place[self._group], (TRAIN_SHARE, TRAIN_SHARE + VAL_SHARE))
        return part == 0, part == 1, part == 2

    def _labelled(self, order: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return labels: every second group of the order, so that each split has half of its groups planted."""
        of_group = np.empty(self.groups, dtype=np.int64)
        of_group[order] = (np.arange(self.groups) + int(rng.integers(2))) % 2
        return np.asarray(of_group[self._group])

    def _read(self, x: Float[np.ndarray, "row d"]) -> Float[np.ndarray, "row m"]:
        with torch.no_grad():
            states = torch.from_numpy(np.ascontiguousarray(x))
            read = self._dictionary.contributions(self._dictionary.encode(states))
        return np.asarray(read.double().numpy())


def _middle(density: Float[np.ndarray, " m"]) -> np.ndarray:
    """Return the live latents in the middle third by density, ties to the lower number.

    Raises:
        ValueError: no latent is live.
    """
    live = np.flatnonzero(density > 0)
    if not len(live):
        raise ValueError("no latent is live: there is no row to plant")
    ranked = live[np.argsort(density[live], kind="stable")]
    return np.asarray(ranked[len(ranked) // 3 : len(ranked) - len(ranked) // 3])
