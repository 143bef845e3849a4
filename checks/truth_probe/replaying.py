"""Whether the model uses a direction: texts shifted along it, and how far the answer follows.

Normalised indirect effect (NIE) after Marks & Tegmark 2023, arXiv 2310.06824. Specification: section 5.13.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.check import Edit
from checks.truth_probe.scores import Estimate, cluster_weights, interval, spread

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

Replay = Callable[[Sequence[Edit]], Sequence[np.ndarray]]
"""`Evidence.replay`: for each edit, the log-probabilities (nats) of the continuations that it asks."""

OUTPUT_GAP_MIN = 0.10
"""Smallest PD+ - PD- of the unedited model over which a share of it is told (5.13)."""

TEXTS_MIN = 8
"""Texts of each kind below which no effect is told: a bootstrap over fewer claims too much."""

CAUSAL_DOMAIN = b"assay-truth-causal/v1\n"
"""Separates the order of causal texts from every other use of SHA-256."""


@dataclass(frozen=True)
class CausalText:
    """One test text that carries a yes and a no."""

    id: str
    """Id of the swept text, which is the row of an edit."""
    cluster: str
    true: bool
    yes: str
    """Id of the continuation that calls the text true."""
    no: str


@dataclass(frozen=True)
class Shifts:
    """What is added to the state of a false text and subtracted from that of a true one."""

    main: Float[np.ndarray, " width"]
    random: Float[np.ndarray, "direction width"]
    """Isotropic directions, each of the length of `main`."""


@dataclass(frozen=True)
class CausalEffect:
    """How much of the gap between true and false texts a shift moves; 1 is all of it."""

    f2t: Estimate | None
    t2f: Estimate | None
    random_max: float | None
    """Largest |NIE| of the random directions, over both kinds of text; None where none was run."""
    output_gap: Estimate | None
    """PD+ - PD- of the unedited model, a difference of probabilities in -2..2."""
    n: int
    clusters: int
    reason: str = ""
    """Why the effects are undefined; empty where they are told."""


def passes(layers: int, texts: int, random: int) -> int:
    """Return how many edited passes the effects of some layers take, for `Needs.replay`."""
    return layers * texts * (1 + random)


def choose(
    texts: Sequence[CausalText], count: int, log_probabilities: Mapping[str, float] | None = None
) -> tuple[CausalText, ...]:
    """Return at most `count` texts in hash order of their ids, half of them true and half false.

    Args:
        texts: candidates, of the test split.
        count: texts in all; fewer where one kind runs out.
        log_probabilities: nats by continuation; given, texts whose yes or no was not scored are passed over.
    """

    def order(text: CausalText) -> bytes:
        return hashlib.sha256(CAUSAL_DOMAIN + text.id.encode()).digest()

    nats = log_probabilities
    held = [text for text in texts if nats is None or all(_scored(nats, ask) for ask in (text.yes, text.no))]
    ordered = sorted(held, key=order)
    kinds = [[text for text in ordered if text.true is kind] for kind in (True, False)]
    each = min(count // 2, *(len(kind) for kind in kinds))
    return tuple(sorted((text for kind in kinds for text in kind[:each]), key=order))


def _scored(nats: Mapping[str, float], ask: str) -> bool:
    return not math.isnan(nats.get(ask, math.nan))


def plan_shifts(
    direction: Float[np.ndarray, " width"],
    pos: Float[np.ndarray, "pair width"],
    neg: Float[np.ndarray, "pair width"],
    labels: Int[np.ndarray, " pair"],
    random: int,
    rng: np.random.Generator,
) -> Shifts:
    """Return delta = theta (theta . (mean true state - mean false state)) and random shifts as long.

    The sign of theta cancels: the shift always points from false to true as the states have it.

    Args:
        direction: theta; only its axis matters.
        pos: states of the + texts of train, not centred.
        neg: states of the - texts of the same pairs.
        labels: 1 where the + text is true, 0 where the - text is; pairs with another label are passed over.
        random: isotropic directions.
        rng: the generator of those directions.

    Raises:
        ValueError: the direction has no length, or no pair is labelled.
    """
    length = float(np.linalg.norm(direction))
    said = (labels == 0) | (labels == 1)
    if length == 0 or not said.any():
        raise ValueError("a shift wants a direction and labelled pairs")
    theta = np.asarray(direction, dtype=np.float64) / length
    # Every pair gives one true and one false text, so the difference of means is the mean of signed displacements.
    signed = (2 * labels[said] - 1) * ((pos[said].astype(np.float64) - neg[said].astype(np.float64)) @ theta)
    main = theta * signed.mean()
    drawn = rng.standard_normal((random, len(theta)))
    drawn *= np.linalg.norm(main) / np.linalg.norm(drawn, axis=1, keepdims=True)
    return Shifts(main, drawn)


def nie(
    replay: Replay,
    site: str,
    shifts: Shifts,
    texts: Sequence[CausalText],
    log_probabilities: Mapping[str, float],
    level: float,
    draws: int,
    rng: np.random.Generator,
) -> CausalEffect:
    """Return both effects of a shift after one layer, with cluster bootstrap intervals and the random band.

    With PD = P(yes) - P(no) and ed = after the edit: NIE(F->T) = (PD-ed - PD-) / (PD+ - PD-) over false texts and
    NIE(T->F) = (PD+ed - PD+) / (PD- - PD+) over true ones. Intervals are normal, from the ratio linearised (delta
    method) over draws of whole clusters. Nothing is replayed where the effects are undefined.

    Args:
        replay: runs edits; `passes(1, len(texts), len(shifts.random))` of them.
        site: "resid.{l}".
        shifts: what is added to false texts and subtracted from true ones.
        texts: of both kinds, all scored (`choose`).
        log_probabilities: nats of the unedited model by continuation.
        level: coverage level.
        draws: bootstrap draws.
        rng: the generator of this bootstrap.

    Returns:
        Effects, or the reason why there are none: `too_few_texts`, `output_gap`, `non_finite_replay`.
    """
    true = np.array([text.true for text in texts], dtype=bool)
    cluster = np.array([text.cluster for text in texts])
    clusters = len(np.unique(cluster))
    if min(int(true.sum()), int((~true).sum())) < TEXTS_MIN or clusters < 2:
        return CausalEffect(None, None, None, None, len(texts), clusters, "too_few_texts")
    weights = cluster_weights(cluster, draws, rng)
    plain = _preference(np.array([[log_probabilities[text.yes], log_probabilities[text.no]] for text in texts]))
    gap, gap_draws = _gap(plain, true, np.ones((1, len(texts))))[0], _gap(plain, true, weights)
    told = interval(float(gap), spread(gap_draws), level, low=-2.0, high=2.0)
    if gap < OUTPUT_GAP_MIN:
        return CausalEffect(None, None, None, told, len(texts), clusters, "output_gap")
    edited = _edited(replay, site, np.concatenate([shifts.main[None], shifts.random]), texts)
    if not np.isfinite(edited).all():
        return CausalEffect(None, None, None, told, len(texts), clusters, "non_finite_replay")
    # Toward the other kind is up for false texts and down for true ones; both are shares of the same gap.
    moved = np.where(true, plain - edited, edited - plain)
    effects = np.stack([moved[:, ~true].mean(axis=1), moved[:, true].mean(axis=1)]) / gap
    f2t, t2f = (
        _effect(float(effects[row, 0]), _mean(moved[0], kind, weights), gap_draws, float(gap), level)
        for row, kind in enumerate((~true, true))
    )
    band = float(np.abs(effects[:, 1:]).max()) if len(shifts.random) else None
    return CausalEffect(f2t, t2f, band, told, len(texts), clusters)


def _preference(nats: Float[np.ndarray, "... 2"]) -> Float[np.ndarray, " ..."]:
    """Return P(yes) - P(no); one function before and after, so that an edit of nothing moves exactly nothing."""
    chance = np.exp(nats)
    return np.asarray(chance[..., 0] - chance[..., 1])


def _mean(
    values: Float[np.ndarray, " text"], kind: Bool[np.ndarray, " text"], weights: Float[np.ndarray, "draw text"]
) -> Float[np.ndarray, " draw"]:
    """Return the weighted mean over one kind of text; NaN for a draw that holds none."""
    mass = weights[:, kind].sum(axis=1)
    summed = weights[:, kind] @ values[kind]
    return np.asarray(np.divide(summed, mass, out=np.full_like(mass, np.nan), where=mass > 0))


def _gap(
    plain: Float[np.ndarray, " text"], true: Bool[np.ndarray, " text"], weights: Float[np.ndarray, "draw text"]
) -> Float[np.ndarray, " draw"]:
    return np.asarray(_mean(plain, true, weights) - _mean(plain, ~true, weights))


def _effect(
    value: float, moved: Float[np.ndarray, " draw"], gaps: Float[np.ndarray, " draw"], gap: float, level: float
) -> Estimate:
    """Return a ratio of means with its interval; a share of a gap is not confined to [0, 1]."""
    return interval(value, spread((moved - value * gaps) / gap), level, low=-math.inf, high=math.inf)


def _edited(
    replay: Replay, site: str, directions: Float[np.ndarray, "direction width"], texts: Sequence[CausalText]
) -> Float[np.ndarray, "direction text"]:
    """Return P(yes) - P(no) of every text under every shift."""
    signed = [(direction, -direction) for direction in directions]  # texts share the arrays: edits are many
    edits = [
        Edit(site=site, row=text.id, add=both[1] if text.true else both[0], ask=(text.yes, text.no))
        for both in signed
        for text in texts
    ]
    answers = np.array([np.asarray(answer, dtype=np.float64) for answer in replay(edits)])
    return _preference(answers.reshape(len(directions), len(texts), 2))
