"""A model whose states are drawn by a recipe and whose output is one matrix: every number can be computed by hand.

States are sums of a few planted features, a concept's direction among them; the next token is drawn from the softmax
of one matrix. The twin has the same tokens and states of another recipe, so that its output is worth nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from checks.memory import InMemoryEvidence, model_facts
from checks.passages import Change, Gradients, Spliced, States

if TYPE_CHECKING:
    from checks.passages import Which

D, FEATURES, VOCABULARY, LENGTH = 32, 64, 24, 16
TARGET, FOIL = 5, 6
BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How much of everything."""

    passages: int = 9000
    amplitude: float = 1.5
    """Of the concept's direction."""
    rows: int = 320
    contrasts: int = 48
    seed: int = 0


class Drawn:
    """Tokens and states of every passage, by id; made once."""

    def __init__(self, recipe: Recipe) -> None:
        rng = np.random.default_rng(recipe.seed)
        self.features = _unit(rng.standard_normal((FEATURES, D)))
        self.direction = _unit(rng.standard_normal(D))
        self.head = 2.0 * rng.standard_normal((VOCABULARY, D)) / np.sqrt(D)
        self.head[TARGET] += 4.0 * self.direction
        self.recipe = recipe
        self.states: dict[str, np.ndarray] = {}
        self.tokens: dict[str, np.ndarray] = {}
        self.rows: dict[str, list[dict[str, Any]]] = {"corpus": [], "concepts": [], "contrast": []}
        for number in range(recipe.passages):
            on = rng.random(LENGTH) < 0.05
            self._add(rng, f"corpus/c{number}", on)
            tokens = [int(one) for one in self.tokens[f"corpus/c{number}"]]
            self.rows["corpus"].append({"id": f"c{number}", "group": f"g{number // 4}", "tokens": tokens})
        for number in range(recipe.rows):
            label = number % 2
            self._add(rng, f"concepts/k{number}", np.array([False] * (LENGTH - 1) + [bool(label)]))
            row = {"id": f"k{number}", "group": f"h{number}", "concept": "open", "label": label}
            self.rows["concepts"].append({**row, "text": f"row {number}"})
        for number in range(recipe.contrasts):
            self._add(rng, f"contrast/m{number}", np.array([False] * (LENGTH - 1) + [True]))
            row = {"id": f"m{number}", "group": f"q{number}", "concept": "open", "prompt": f"prompt {number}"}
            self.rows["contrast"].append({**row, "target": " yes", "foil": " no"})

    def _add(self, rng: np.random.Generator, name: str, on: np.ndarray) -> None:
        f = (rng.random((LENGTH, FEATURES)) < 0.05) * (1 + 0.25 * np.abs(rng.standard_normal((LENGTH, FEATURES))))
        x = f @ self.features + 0.02 * rng.standard_normal((LENGTH, D))
        x += (
            self.recipe.amplitude * on[:, None] * (1 + 0.25 * np.abs(rng.standard_normal((LENGTH, 1)))) * self.direction
        )
        logits = x @ self.head.T
        drawn = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)
        self.states[name] = x.astype(np.float32)
        self.tokens[name] = np.concatenate([[1], drawn[:-1]])  # the token after a state is drawn from it


class LinearSite:
    """Implements `checks.passages.Site` over drawn states."""

    name, width = "resid.0", D

    def __init__(self, drawn: Drawn, states: dict[str, np.ndarray]) -> None:
        self.drawn, self._states = drawn, states

    def states(self, ids: Sequence[str]) -> Iterator[States]:
        for begin in range(0, len(ids), BATCH):
            some = ids[begin : begin + BATCH]
            last = np.tile(np.arange(LENGTH) == LENGTH - 1, len(some))
            yield States(
                vectors=np.concatenate([self._states[one] for one in some]),
                passage=begin + np.repeat(np.arange(len(some)), LENGTH),
                position=np.tile(np.arange(LENGTH), len(some)),
                token=np.concatenate([self.drawn.tokens[one] for one in some]),
                special=np.zeros(len(some) * LENGTH, dtype=bool),
                read=last,
            )

    def splice(self, ids: Sequence[str], changes: Sequence[Change]) -> Iterator[Spliced]:
        for given in self.states(ids):
            ahead = given.position < LENGTH - 1
            following = np.roll(given.token, -1)[ahead]
            every = [_log_softmax(x[ahead] @ self.drawn.head.T) for x in (given.vectors, *(c(given) for c in changes))]
            p = np.exp(every[0])
            at = np.arange(len(following))
            yield Spliced(
                passage=given.passage[ahead],
                position=given.position[ahead],
                scored=np.ones(len(following), dtype=bool),
                cross_entropy=np.stack([-one[at, following] for one in every]),
                divergence=np.stack([(p * (every[0] - one)).sum(axis=1) for one in every]),
                same_top=np.stack([one.argmax(axis=1) == every[0].argmax(axis=1) for one in every]),
                variation=np.stack([np.abs(p - np.exp(one)).sum(axis=1) / 2 for one in every]),
            )

    def margins(self, ids: Sequence[str], changes: Sequence[Change]) -> np.ndarray:
        found: list[np.ndarray] = []
        for given in self.states(ids):
            every = (given.vectors, *(change(given) for change in changes))
            found.append(np.stack([self._margin(x[LENGTH - 1 :: LENGTH]) for x in every]))
        return np.concatenate(found, axis=1)

    def margin_gradients(self, ids: Sequence[str], change: Change | None = None) -> Iterator[Gradients]:
        for given in self.states(ids):
            x = given.vectors if change is None else change(given)
            gradient = np.zeros((len(x), D), dtype=np.float32)
            gradient[LENGTH - 1 :: LENGTH] = self.drawn.head[TARGET] - self.drawn.head[FOIL]
            yield Gradients(states=given, gradient=gradient, value=self._margin(x[LENGTH - 1 :: LENGTH]))

    def divergence_gradients(self, ids: Sequence[str], change: Change) -> Iterator[Gradients]:
        for given in self.states(ids):
            ahead = (given.position < LENGTH - 1)[:, None]
            p = np.exp(_log_softmax(given.vectors @ self.drawn.head.T))
            log_q = _log_softmax(change(given) @ self.drawn.head.T)
            gradient = np.where(ahead, (np.exp(log_q) - p) @ self.drawn.head, 0.0).astype(np.float32)
            sums = np.where(ahead[:, 0], (p * (np.log(p) - log_q)).sum(axis=1), 0.0).reshape(-1, LENGTH).sum(axis=1)
            yield Gradients(states=given, gradient=gradient, value=sums)

    def logit_weights(self) -> np.ndarray:
        centred: np.ndarray = (self.drawn.head - self.drawn.head.mean(axis=0)).astype(np.float32)
        return centred

    def lengths(self, ids: Sequence[str]) -> np.ndarray:
        return np.full(len(ids), LENGTH)

    def cut(self) -> int:
        return 0

    def _margin(self, x: np.ndarray) -> np.ndarray:
        difference: np.ndarray = x.astype(np.float64) @ (self.drawn.head[TARGET] - self.drawn.head[FOIL])
        return difference


def evidence(
    drawn: Drawn,
    *,
    roles: Sequence[str] = ("corpus", "concepts", "contrast"),
    blobs: dict[str, bytes] | None = None,
    twin_works: bool = False,
    base: bool = False,
    seed: int = 0,
    states: dict[str, np.ndarray] | None = None,
) -> InMemoryEvidence:
    """Return the evidence of an audit of this model.

    Args:
        drawn: the model.
        roles: that came.
        blobs: bytes of other roles.
        twin_works: whether the twin is the model itself: a twin that is not broken.
        base: whether a base model is there: one without the concept.
        seed: the audit's.
        states: stand in for the model's.
    """
    shuffled = twin_works or Drawn(replace(drawn.recipe, seed=drawn.recipe.seed + 1, amplitude=0.0))
    without = Drawn(replace(drawn.recipe, amplitude=0.0)) if base else None

    def site(_name: str, which: Which) -> LinearSite:
        if which == "submitted":
            return LinearSite(drawn, states or drawn.states)
        if which == "base" and without is not None:
            return LinearSite(drawn, without.states)
        return LinearSite(drawn, drawn.states if isinstance(shuffled, bool) else shuffled.states)

    return InMemoryEvidence(
        facts=model_facts(layers=1, width=D, vocabulary=VOCABULARY, context=LENGTH),
        check="sae_features",
        seed=seed,
        rows={role: drawn.rows[role] for role in roles},
        sites=site,
        models=("submitted", "shuffled", "base") if base else ("submitted", "shuffled"),
        blobs=blobs,
    )


def _unit(rows: np.ndarray) -> np.ndarray:
    unit: np.ndarray = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return unit


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    exact = logits.astype(np.float64)
    shifted = exact - exact.max(axis=1, keepdims=True)
    logs: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs
