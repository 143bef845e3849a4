"""All numbers of one data set at one layer that need no more than its main rows: scores, stability, nulls.

Specification: sections 5.2 to 5.9. What other rows, answers and edits add is in `beyond`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.truth_probe import displacement as md
from checks.truth_probe import nulls
from checks.truth_probe.areas import Sure, areas
from checks.truth_probe.baselines import split_half, tpc, vinc
from checks.truth_probe.ccs_spread import CcsSpread, dispersion
from checks.truth_probe.fitting import Draw, Fitted, How, Method, Rows, fit
from checks.truth_probe.normaliser import Mode as Centring
from checks.truth_probe.normaliser import Normaliser
from checks.truth_probe.pairs import PairActivations
from checks.truth_probe.scores import Estimate, accuracy_interval, auroc, flip_ps
from checks.truth_probe.splits import Masks
from checks.truth_probe.supervised import control_task_labels, lr, shuffled

if TYPE_CHECKING:
    from jaxtyping import Float

SHUFFLES = 200
"""Shuffled label sets behind the supervised floor (5.9)."""

DEGENERATE = 1e-6
"""A layer whose displacements are this small beside its states is not measured (section 3)."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One method's direction on test pairs."""

    auroc: Estimate
    accuracy: Estimate
    p: float
    """Two-sided, by flips of whole clusters; not corrected."""
    scores: Float[np.ndarray, " row"]
    """Signed score of each test row: what both numbers are made of, item by item."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """States of one set at one layer, normalised with the train statistics of its main rows."""

    normaliser: Normaliser
    train: Rows
    anchor: Rows
    test: Rows
    negated_train: Rows
    negated_test: Rows
    other: Rows
    """Test rows of the second persona."""

    def fit(self, how: How, draw: Draw, at: str) -> Fitted:
        """Return every method's direction; no test row is looked at."""
        return fit(self.train, self.anchor, self.negated_train, self.normaliser.scale, how, draw, at)


@dataclass(frozen=True, kw_only=True)
class LayerNumbers:
    """All numbers of one layer that main rows give."""

    layer: int
    fitted: Fitted
    scored: Mapping[Method, Scored]
    stability: Mapping[Method, Float[np.ndarray, " halvings"]]
    """Of the closed forms."""
    spread: CcsSpread | None
    gap: float
    second_stability: float
    random: Mapping[str, Float[np.ndarray, " draws"]]
    """Best-of-sign AUROC of random directions, by kind."""
    shuffled: Float[np.ndarray, " draws"]
    selectivity: float | None
    kappa: float
    kappa_null: Float[np.ndarray, " draws"]
    share: float
    """Share of displacement along md's direction on test (5.3)."""
    path_on_test: tuple[tuple[float, float], ...]
    """(displacement share, AUROC of the better sign) at each lambda of the path: shown, never used (5.3)."""


def fault(states: PairActivations) -> tuple[str, int, int] | None:
    """Return why a layer cannot be measured, the first pair at fault and how many; None where it can."""
    finite = np.isfinite(states.pos).all(axis=1) & np.isfinite(states.neg).all(axis=1)
    if not finite.all():
        return "non_finite", int(np.argmin(finite)), int((~finite).sum())
    u = md.displacement(states).astype(np.float64)
    size = float(np.sqrt(np.mean(np.square(states.pos, dtype=np.float64))))
    return ("degenerate_layer", 0, 0) if float(np.sqrt(np.mean(u**2))) <= DEGENERATE * size else None


def see(states: PairActivations, masks: Masks, centring: Centring) -> Seen:
    """Return the rows of a set by what they are for, normalised by train's statistics alone."""
    normaliser = Normaliser.fit(states.take(masks.train), mode=centring)

    def rows(mask: np.ndarray) -> Rows:
        raw = states.take(mask)
        return Rows(pairs=normaliser.apply(raw), raw=raw, labels=masks.labels[mask], item=masks.item[mask])

    return Seen(
        normaliser=normaliser,
        train=rows(masks.train),
        anchor=rows(masks.anchor),
        test=rows(masks.test),
        negated_train=rows(masks.negated_train),
        negated_test=rows(masks.negated_test),
        other=rows(masks.other_test),
    )


def probe(layer: int, seen: Seen, how: How, sure: Sure, draw: Draw, at: str) -> LayerNumbers:
    """Return the numbers of a layer. Directions, lambda and restarts see train only; signs see anchors only."""
    fitted = seen.fit(how, draw, at)
    test, known = seen.test, seen.train.take(seen.train.labels >= 0)
    return LayerNumbers(
        layer=layer,
        fitted=fitted,
        scored=score(fitted, test, sure, draw, at),
        stability=_stability(seen.train, fitted, draw, at),
        spread=None if fitted.ccs is None else dispersion(fitted.ccs, test.pairs, test.labels),
        gap=md.gap(seen.train.u),
        second_stability=md.second_stability(seen.train.pairs, draw(f"second/{at}")),
        random={
            kind: nulls.best_of_sign(test.u, test.labels, nulls.directions(kind, seen.train.u, draw(f"{kind}/{at}")))
            for kind in nulls.KINDS
        },
        shuffled=shuffled_areas(known, test, fitted.penalty, draw(f"shuffles/{at}")),
        selectivity=_selectivity(fitted, known, test, draw, at),
        kappa=nulls.kappa(test.u @ tpc(seen.train.pairs).vector),
        kappa_null=nulls.surrogate_kappas(len(test), draw(f"surrogate/{at}")),
        share=md.share(test.pairs, fitted.directions["md"].vector),
        path_on_test=tuple(_on_test(seen, row.vector) for row in fitted.path if row.vector is not None),
    )


def score(fitted: Fitted, test: Rows, sure: Sure, draw: Draw, at: str) -> dict[Method, Scored]:
    """Return every method on the test rows."""
    scores = {method: direction.score(test.u) for method, direction in fitted.directions.items()}
    cluster = test.pairs.cluster
    told = areas(scores, test.labels, cluster, sure, draw(f"bootstrap/{at}"))
    columns = np.stack(list(scores.values()), axis=1)
    flips = flip_ps(columns, test.labels, cluster, sure.permutations, draw(f"flips/{at}"))
    return {
        method: Scored(
            auroc=told[method],
            accuracy=accuracy_interval(
                values, test.labels, cluster, sure.level, sure.bootstrap, draw(f"bootstrap/{at}")
            ),
            p=float(p),
            scores=values,
        )
        for (method, values), p in zip(scores.items(), flips, strict=True)
    }


def shuffled_areas(known: Rows, test: Rows, penalty: float, rng: np.random.Generator) -> Float[np.ndarray, " draws"]:
    """Return the AUROC on test of logistic directions fitted to shuffled train labels."""
    return auroc(test.u @ shuffled(known.u, known.labels, penalty, SHUFFLES, rng), test.labels)


def _stability(train: Rows, fitted: Fitted, draw: Draw, at: str) -> dict[Method, np.ndarray]:
    halvings = f"stability/{at}"
    told: dict[Method, np.ndarray] = {}
    if "md" in fitted.directions:
        told["md"] = md.stability(train.pairs, fitted.lam, draw(halvings))
    if "tpc" in fitted.directions:
        told["tpc"] = split_half(lambda rows: tpc(train.pairs.take(rows)), train.pairs.cluster, draw(halvings))
    if "vinc" in fitted.directions:
        told["vinc"] = split_half(
            lambda rows: vinc(train.pairs.take(rows), train.item[rows]), train.pairs.cluster, draw(halvings)
        )
    return told


def _selectivity(fitted: Fitted, known: Rows, test: Rows, draw: Draw, at: str) -> float | None:
    """Return the ceiling's AUROC on truth less the same on one random label a cluster (5.9).

    None where a split drew one label only, or nobody asked for the ceiling.
    """
    rng = draw(f"control-task/{at}")
    every = control_task_labels(np.concatenate([known.pairs.cluster, test.pairs.cluster]), rng)
    random_train, random_test = every[: len(known)], every[len(known) :]
    if "lr" not in fitted.directions or len(np.unique(random_train)) < 2 or len(np.unique(random_test)) < 2:
        return None
    of_truth = fitted.directions["lr"]
    of_chance = lr(known.u, random_train, known.pairs.cluster, draw(f"folds/{at}"))[0]
    return float(auroc(of_truth.score(test.u), test.labels)) - float(auroc(of_chance.score(test.u), random_test))


def _on_test(seen: Seen, theta: Float[np.ndarray, " width"]) -> tuple[float, float]:
    area = float(auroc(seen.test.u @ theta, seen.test.labels))
    return md.share(seen.test.pairs, theta), max(area, 1.0 - area)
