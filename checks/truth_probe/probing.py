"""All numbers of one layer: directions fitted on train, oriented by anchors, scored on test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.truth_probe import displacement as md
from checks.truth_probe.normaliser import Normaliser
from checks.truth_probe.nulls import best_of_sign, whitened_directions
from checks.truth_probe.orientation import Orientation, orient
from checks.truth_probe.pairs import PairActivations
from checks.truth_probe.scores import Estimate, accuracy_interval, auroc, auroc_interval, flip_p
from checks.truth_probe.supervised import lr, mass_mean, shuffled

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

SHUFFLES = 200
"""Shuffled label sets of the control (5.9)."""

DEGENERATE = 1e-6
"""A layer whose displacements are this small beside its states is not measured (section 3)."""

Draw = Callable[[str], np.random.Generator]


@dataclass(frozen=True)
class Settings:
    """How a layer is measured."""

    lambda_rule: str
    level: float
    """Level of each interval: simultaneous over the layers."""
    bootstrap: int
    permutations: int
    shuffles: bool
    """Whether logistic directions of shuffled labels are fitted too: only under their control."""


@dataclass(frozen=True)
class Split:
    """Which pairs are for what, as masks over the states' rows, and their labels."""

    train: Bool[np.ndarray, " pair"]
    anchor: Bool[np.ndarray, " pair"]
    """Labelled; one pair an item."""
    test: Bool[np.ndarray, " pair"]
    """Labelled."""
    labels: Int[np.ndarray, " pair"]
    """1, 0, or -1 where nobody said."""


@dataclass(frozen=True)
class Scored:
    """One method's direction on test pairs."""

    auroc: Estimate
    accuracy: Estimate
    p: float
    """Two-sided, by flips of whole clusters; not corrected."""


@dataclass(frozen=True)
class LayerNumbers:
    """All numbers of one layer."""

    layer: int
    methods: Mapping[str, Scored]
    lam: float
    path: tuple[md.PathRow, ...]
    """Empty where no path was searched."""
    stability: Float[np.ndarray, " halvings"]
    orientation: Orientation
    random: Float[np.ndarray, " draws"]
    shuffled: Float[np.ndarray, " draws"] | None
    train_pairs: int


def fault(states: PairActivations) -> tuple[str, int] | None:
    """Return why a layer cannot be measured, and the first pair at fault; None where it can."""
    finite = np.isfinite(states.pos).all(axis=1) & np.isfinite(states.neg).all(axis=1)
    if not finite.all():
        return "non_finite", int(np.argmin(finite))
    u = md.displacement(states).astype(np.float64)
    size = float(np.sqrt(np.mean(np.square(states.pos, dtype=np.float64))))
    return ("degenerate_layer", 0) if float(np.sqrt(np.mean(u**2))) <= DEGENERATE * size else None


def probe(layer: int, states: PairActivations, split: Split, how: Settings, draw: Draw) -> LayerNumbers:
    """Return the numbers of a layer. Statistics, lambda and directions see train only; the sign sees anchors only."""
    normaliser = Normaliser.fit(states.take(split.train))
    train, anchor, test = (normaliser.apply(states.take(rows)) for rows in (split.train, split.anchor, split.test))
    lam, path = _lambda(train, how.lambda_rule, draw(f"halves/{layer}"))
    direction = md.solve_md(train, lam)
    sign = orient(direction.vector, md.displacement(anchor), split.labels[split.anchor])
    labelled = split.labels[split.train] >= 0
    u, y = md.displacement(train)[labelled], split.labels[split.train][labelled]
    logistic, penalty = lr(u, y, train.cluster[labelled], draw(f"folds/{layer}"))
    directions = {"md": sign.sign * direction.vector, "lr": logistic.vector, "mass_mean": mass_mean(u, y).vector}
    test_u, test_y = md.displacement(test), split.labels[split.test]
    drawn = None
    if how.shuffles:
        drawn = auroc(test_u @ shuffled(u, y, penalty, SHUFFLES, draw(f"shuffles/{layer}")), test_y)
    whitened = whitened_directions(md.displacement(train), draw(f"directions/{layer}"))
    return LayerNumbers(
        layer=layer,
        methods={
            name: _scored(test_u @ vector, test_y, test.cluster, how, draw, f"{layer}/{name}")
            for name, vector in directions.items()
        },
        lam=lam,
        path=path,
        stability=md.stability(train, lam, draw(f"stability/{layer}")),
        orientation=sign,
        random=best_of_sign(test_u, test_y, whitened),
        shuffled=drawn,
        train_pairs=len(train),
    )


def _lambda(train: PairActivations, rule: str, rng: np.random.Generator) -> tuple[float, tuple[md.PathRow, ...]]:
    if rule == "split_half":
        path = md.lambda_path(train, rng)
        return md.choose_lambda(path), path
    return (md.lambda0(train) if rule == "lambda0" else float(rule)), ()


def _scored(
    scores: Float[np.ndarray, " pair"],
    labels: Int[np.ndarray, " pair"],
    cluster: Int[np.ndarray, " pair"],
    how: Settings,
    draw: Draw,
    label: str,
) -> Scored:
    return Scored(
        auroc_interval(scores, labels, cluster, how.level, how.bootstrap, draw(f"bootstrap/{label}")),
        accuracy_interval(scores, labels, cluster, how.level, how.bootstrap, draw(f"bootstrap/{label}")),
        flip_p(scores, labels, cluster, how.permutations, draw(f"flips/{label}")),
    )
