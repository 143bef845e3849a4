"""Truth planted in states: in Gaussian ones of the same size, and in the model's own after what it had was taken out.

Specification: section 8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.truth_probe import displacement as md
from checks.truth_probe import nulls
from checks.truth_probe.baselines import tpc
from checks.truth_probe.orientation import orient
from checks.truth_probe.pairs import PairActivations
from checks.truth_probe.probing import SHUFFLES, Seen
from checks.truth_probe.scores import auroc, auroc_intervals, flip_ps
from checks.truth_probe.supervised import fit_logistic, lr, mass_mean, rms, shuffled

if TYPE_CHECKING:
    from jaxtyping import Float, Int

EMPTY = "0"
"""The plant of no effect."""

EFFECTS = (EMPTY, "0.71", "1.06", "1.41", "2.12")
"""Planted effects in units of the displacement's root mean square (section 8)."""

EDGES = (EMPTY, "2.12")
"""Effects planted in sets beside the primary ones: what must not be found, and what must be before "not detected" is
said of a set (section 7)."""

METHODS = ("md", "tpc", "mass_mean", "lr")
"""Methods whose power is measured: a fit of each of the others, for each of hundreds of plants, would cost more than
the whole measurement."""

TOP_REMOVED = 3
"""Leading displacement components that are taken out, beside the ceiling's and the mean difference's directions."""

PLANT_BOOTSTRAP = 200
"""Bootstrap draws behind each planted interval: its standard error is then known to five per cent."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What gate 1 asks of a planted layer."""

    alpha: float
    floor: float
    level: float
    permutations: int
    layers: int
    """Layers over which p-values are corrected: the plant pays what the smallest of them would."""


def surrogate(
    labels: Int[np.ndarray, " pair"], width: int, effect: float, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "pair width"], Float[np.ndarray, "pair width"]]:
    """Return Gaussian states + and - whose displacements are effect * t * axis + noise; unlabelled rows are guessed."""
    axis = rng.standard_normal(width)
    axis /= np.linalg.norm(axis)
    truth = np.where(labels < 0, rng.integers(0, 2, len(labels)), labels)
    u = effect * (2.0 * truth - 1.0)[:, None] * axis + rng.standard_normal((len(labels), width))
    v = rng.standard_normal((len(labels), width))
    return (v + u) / 2, (v - u) / 2


@dataclass(frozen=True, kw_only=True)
class _Emptied:
    """Displacements without what the model had, and midpoints as they are, in train, anchor, test order."""

    u: Float[np.ndarray, "pair width"]
    v: Float[np.ndarray, "pair width"]
    labels: Int[np.ndarray, " pair"]
    cluster: Int[np.ndarray, " pair"]
    bounds: tuple[int, int]
    """Where anchors and where test begin."""


def power(
    seen: Seen, lam: float, bar: Bar, effects: Sequence[str], draws: int, rng: np.random.Generator
) -> dict[tuple[str, str], float]:
    """Return the share of draws in which gate 1 holds, by (method, effect).

    Args:
        seen: normalised rows of the model itself.
        lam: weight of the midpoint, as chosen on them.
        bar: what gate 1 asks.
        effects: what is planted, of `EFFECTS`.
        draws: plants for each effect.
        rng: generator of directions, permutations and bootstraps.
    """
    empty = _emptied(seen, rng)
    size: float = rms(empty.u)
    told: dict[tuple[str, str], float] = {}
    for effect in effects:
        held = dict.fromkeys(METHODS, 0)
        floor = labelled_floor = bar.floor
        penalty = 0.0
        for draw in range(draws):
            u, v = _planted(empty, float(effect) * size, rng)
            if draw == 0:
                # Neither moves with the draw by more than its own noise, and both cost more than all the rest.
                floor = max(bar.floor, _whitened_p95(empty, u, rng))
                penalty = _penalty(empty, u, rng)
                labelled_floor = max(floor, _shuffled_p95(empty, u, penalty, rng))
            for method, passed in _gate(empty, u, v, lam, penalty, (floor, labelled_floor), bar, rng).items():
                held[method] += passed
        told |= {(method, effect): count / draws for method, count in held.items()}
    return told


def _emptied(seen: Seen, rng: np.random.Generator) -> _Emptied:
    parts = (seen.train, seen.anchor, seen.test)
    u, v = (np.concatenate(rows) for rows in ([p.u for p in parts], [p.pairs.pos + p.pairs.neg for p in parts]))
    labels = np.concatenate([part.labels for part in parts])
    labels = np.where(labels < 0, rng.integers(0, 2, len(labels)), labels)
    known = seen.train.take(seen.train.labels >= 0)
    taken = np.column_stack(
        [
            md.components(seen.train.u, TOP_REMOVED),
            lr(known.u, known.labels, known.pairs.cluster, rng)[0].vector,
            mass_mean(known.u, known.labels).vector,
        ]
    )
    basis = np.linalg.qr(taken)[0]
    return _Emptied(
        u=u - (u @ basis) @ basis.T,
        v=v,
        labels=labels,
        cluster=np.concatenate([part.pairs.cluster for part in parts]),
        bounds=(len(seen.train), len(seen.train) + len(seen.anchor)),
    )


def _planted(empty: _Emptied, size: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return displacements and midpoints: rows permuted within their split, truth added along a random direction."""
    first, second = empty.bounds
    order = np.concatenate(
        [rng.permutation(np.arange(a, b)) for a, b in ((0, first), (first, second), (second, len(empty.u)))]
    )
    axis = rng.standard_normal(empty.u.shape[1])
    axis /= float(np.linalg.norm(axis))
    return empty.u[order] + size * (2.0 * empty.labels - 1.0)[:, None] * axis, empty.v[order]


def _gate(
    empty: _Emptied,
    u: np.ndarray,
    v: np.ndarray,
    lam: float,
    penalty: float,
    floors: tuple[float, float],
    bar: Bar,
    rng: np.random.Generator,
) -> Mapping[str, bool]:
    """Return whether gate 1 holds for each method, by the rule that the judge applies."""
    first, second = empty.bounds
    labels, cluster = empty.labels, empty.cluster
    u_train, y_train = u[:first], labels[:first]
    train = PairActivations((v[:first] + u_train) / 2, (v[:first] - u_train) / 2, cluster[:first], cluster[:first])
    free = [md.solve_md(train, lam).vector, tpc(train).vector]
    signs = [orient(vector, u[first:second], labels[first:second]) for vector in free]
    labelled = [mass_mean(u_train, y_train).vector, fit_logistic(u_train / rms(u_train), y_train, penalty)]
    axes = [sign.sign * vector for sign, vector in zip(signs, free, strict=True)] + labelled
    columns = u[second:] @ np.column_stack(axes)
    told = auroc_intervals(columns, labels[second:], cluster[second:], bar.level, PLANT_BOOTSTRAP, rng)
    ps = bar.layers * flip_ps(columns, labels[second:], cluster[second:], bar.permutations, rng)
    resolved = [*(sign.resolved for sign in signs), True, True]
    asked = (floors[0], floors[0], floors[1], floors[1])
    return {
        method: bool(one.low > floor and p <= bar.alpha and sure)
        for method, one, p, sure, floor in zip(METHODS, told, ps, resolved, asked, strict=True)
    }


def _whitened_p95(empty: _Emptied, u: np.ndarray, rng: np.random.Generator) -> float:
    first, second = empty.bounds
    directions = nulls.directions("whitened", u[:first], rng)
    return float(np.quantile(nulls.best_of_sign(u[second:], empty.labels[second:], directions), 0.95))


def _shuffled_p95(empty: _Emptied, u: np.ndarray, penalty: float, rng: np.random.Generator) -> float:
    """Return the floor that gate 1 sets for methods with labels besides that of random directions (5.9)."""
    first, second = empty.bounds
    directions = shuffled(u[:first], empty.labels[:first], penalty, SHUFFLES, rng)
    return float(np.quantile(auroc(u[second:] @ directions, empty.labels[second:]), 0.95))


def _penalty(empty: _Emptied, u: np.ndarray, rng: np.random.Generator) -> float:
    first = empty.bounds[0]
    return lr(u[:first], empty.labels[:first], empty.cluster[:first], rng)[1]
