"""The directions of one data set at one layer: fitted on train, signed by anchors or by train labels.

Nothing here sees a test row. Specification: sections 5.2 to 5.8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from checks.truth_probe import displacement as md
from checks.truth_probe.baselines import tpc, vinc
from checks.truth_probe.ccs import CcsFit, NoRestart, ccs_restarts
from checks.truth_probe.direction import Direction, unit
from checks.truth_probe.orientation import Orientation, orient
from checks.truth_probe.pairs import PairActivations
from checks.truth_probe.supervised import lr, mass_mean
from checks.truth_probe.ttpd import ONE_POLARITY, ttpd

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Method = Literal["md", "tpc", "vinc", "ccs", "lr", "mass_mean", "ttpd"]
PRIMARY: Method = "md"
LABEL_FREE: tuple[Method, ...] = ("md", "tpc", "vinc", "ccs")
GATED: tuple[Method, ...] = ("md", "ccs", "lr")
"""Methods that all gates are measured for: the closed form, the published one, the ceiling. The others get gates 1 and
2: with every gate for each, the result document would hold a third of the layers."""

Draw = Callable[[str], np.random.Generator]


@dataclass(frozen=True, kw_only=True)
class How:
    """How directions are fitted: the check's parameters as plain values."""

    methods: tuple[Method, ...]
    lambda_rule: str
    ccs_mode: Literal["parity", "lbfgs", "subspace"]
    restarts: int
    subspace_k: int


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Normalised states of one split, with what is known of each row."""

    pairs: PairActivations
    raw: PairActivations
    """The same states as they were swept."""
    labels: Int[np.ndarray, " pair"]
    """1, 0, or -1 where nobody said."""
    item: Int[np.ndarray, " pair"]

    def take(self, rows: np.ndarray) -> Rows:
        """Return some rows (indices or a mask)."""
        return Rows(
            pairs=self.pairs.take(rows), raw=self.raw.take(rows), labels=self.labels[rows], item=self.item[rows]
        )

    @property
    def u(self) -> np.ndarray:
        """Displacements, [pair, width]."""
        return md.displacement(self.pairs)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What train and anchors gave; directions are signed and live in the normalised space."""

    directions: Mapping[Method, Direction]
    orientation: Mapping[Method, Orientation]
    """Of the label-free methods."""
    lam: float
    path: tuple[md.PathRow, ...]
    """Empty where no path was searched."""
    ccs: CcsFit | None
    penalty: float
    """L2 of the logistic regression."""
    without: Mapping[Method, str]
    """Methods that have no direction here, with the reason."""


def fit(
    train: Rows, anchor: Rows, negated: Rows, scale: Float[np.ndarray, " width"] | float, how: How, draw: Draw, at: str
) -> Fitted:
    """Return every method's direction.

    Args:
        train: main rows of train.
        anchor: labelled rows that only orient.
        negated: negated rows of train clusters; may be empty.
        scale: what the normaliser divided by.
        how: parameters.
        draw: generator of a label.
        at: which set and layer, for the labels of draws.
    """
    lam, path = weight(train.pairs, how.lambda_rule, draw(f"halves/{at}"))
    restarts = _restarts(train, how, draw(f"ccs/{at}")) if "ccs" in how.methods else None
    free: dict[Method, Callable[[], Direction | None]] = {
        "md": lambda: md.solve_md(train.pairs, lam),
        "tpc": lambda: tpc(train.pairs),
        "vinc": lambda: vinc(train.pairs, train.item),
        "ccs": lambda: restarts.direction if restarts else None,
    }
    known = train.take(train.labels >= 0)
    logistic, penalty = lr(known.u, known.labels, known.pairs.cluster, draw(f"folds/{at}"))
    supervised: dict[Method, Callable[[], Direction | None]] = {
        "lr": lambda: logistic,
        "mass_mean": lambda: mass_mean(known.u, known.labels),
        "ttpd": lambda: _ttpd(known, negated, scale),
    }
    directions: dict[Method, Direction] = {}
    orientation: dict[Method, Orientation] = {}
    without: dict[Method, str] = {}
    for method in how.methods:
        found = (free | supervised)[method]()
        if found is None:
            without[method] = ONE_POLARITY if method == "ttpd" else "non_finite"
        elif method in LABEL_FREE:
            orientation[method] = orient(found.vector, anchor.u, anchor.labels)
            directions[method] = found if orientation[method].sign > 0 else found.flipped()
        else:
            directions[method] = found
    return Fitted(
        directions=directions,
        orientation=orientation,
        lam=lam,
        path=path,
        ccs=restarts,
        penalty=penalty,
        without=without,
    )


def refit(distracted: Rows, anchor: Rows, lam: float, how: How, draw: Draw, at: str) -> Mapping[Method, Direction]:
    """Return the gated methods' directions fitted on distracted train rows, lambda as it was chosen without them."""
    known = distracted.take(distracted.labels >= 0)
    directions: dict[Method, Direction] = {"md": md.solve_md(distracted.pairs, lam)}
    if "ccs" in how.methods:
        restarts = _restarts(distracted, how, draw(f"refit-ccs/{at}"))
        if restarts is not None:
            directions["ccs"] = restarts.direction
    for method, found in directions.items():
        if orient(found.vector, anchor.u, anchor.labels).sign < 0:
            directions[method] = found.flipped()
    if "lr" in how.methods and len(np.unique(known.labels)) == 2:
        directions["lr"] = lr(known.u, known.labels, known.pairs.cluster, draw(f"refit-folds/{at}"))[0]
    return {method: found for method, found in directions.items() if method in how.methods}


def weight(train: PairActivations, rule: str, rng: np.random.Generator) -> tuple[float, tuple[md.PathRow, ...]]:
    """Return the weight of the midpoint that a rule chooses without labels, and the path where it searched one."""
    if rule == "split_half":
        path = md.lambda_path(train, rng)
        return md.choose_lambda(path), path
    return (md.lambda0(train) if rule == "lambda0" else float(rule)), ()


def _restarts(train: Rows, how: How, rng: np.random.Generator) -> CcsFit | None:
    """Return the restarts of CCS; None where not one ended finite."""
    try:
        return ccs_restarts(train.pairs, how.ccs_mode, restarts=how.restarts, subspace_k=how.subspace_k, rng=rng)
    except NoRestart:
        return None


def _ttpd(known: Rows, negated: Rows, scale: Float[np.ndarray, " width"] | float) -> Direction | None:
    """Return the direction in the normalised space; ttpd wants raw states, where polarity is not centred away."""
    found = ttpd(known.raw, known.labels, negated.raw, negated.labels)
    return None if found is None else replace(found, vector=unit(found.vector * scale))
