"""A tensor-only audit of `sae_features` whose concept is planted at a stated amplitude, or is in its labels alone.

States are sparse sums of unit features, one of them the concept's; the next token is drawn from the softmax of one
matrix to which the concept's direction matters. The twin has the same tokens and Gaussian states of equal covariance:
nothing sparse, and an output worth nothing (specification of `sae_features`, section 14, O1 and O2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from checks.memory import InMemoryEvidence, model_facts
from tests.checks.sae_features.linear_model import FOIL, LENGTH, TARGET, VOCABULARY, D, LinearSite

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from checks.passages import Which

FEATURES, RATE, NOISE = 24, 0.05, 0.02
"""Features beside the concept's, how often each is on, and the noise; a feature that is on has length 1 + |N| / 4."""

PASSAGES, ROWS, CONTRASTS = 9000, 320, 48
"""9000 passages of 16 states: 115,200 in the training part, and twice these are what two passes see."""

PULL = 4.0
"""Logits that a unit of the concept's direction gives the target."""


@dataclass(frozen=True, kw_only=True)
class Plant:
    """What is planted.

    Attributes:
        amplitude: of the concept's direction, in lengths of a feature; 0 is a model without it.
        labelled: whether labels say where the concept is; else they are drawn, and it is there at its natural rate.
        seed: draws everything.
    """

    amplitude: float
    labelled: bool
    seed: int


class PlantedSite(LinearSite):
    """Gives states as the linear model of the tests does; only the head and the tokens are read of what is drawn."""

    def __init__(self, model: Model, states: dict[str, np.ndarray]) -> None:
        super().__init__(model, states)  # type: ignore[arg-type]


class Model:
    """A model by its states, with the rows that ask for its concept."""

    def __init__(self, plant: Plant) -> None:
        rng = np.random.default_rng([plant.seed, 6])
        directions = rng.standard_normal((FEATURES + 1, D))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        self.head = 2.0 * rng.standard_normal((VOCABULARY, D)) / np.sqrt(D)
        self.head[TARGET] += PULL * directions[0]
        directions[0] *= plant.amplitude
        names = [f"corpus/c{number}" for number in range(PASSAGES)]
        names += [f"concepts/k{number}" for number in range(ROWS)]
        names += [f"contrast/m{number}" for number in range(CONTRASTS)]
        on = rng.random((len(names), LENGTH, FEATURES + 1)) < RATE
        if plant.labelled:
            on[PASSAGES : PASSAGES + ROWS, -1, 0] = np.arange(ROWS) % 2 == 1
        on[PASSAGES + ROWS :, -1, 0] = True
        x = (on * (1 + 0.25 * np.abs(rng.standard_normal(on.shape)))) @ directions
        x += NOISE * rng.standard_normal(x.shape)
        logits = x @ self.head.T
        tokens = np.argmax(logits + rng.gumbel(size=logits.shape), axis=2)
        tokens = np.concatenate([np.ones((len(names), 1), dtype=np.int64), tokens[:, :-1]], axis=1)
        flat = x.reshape(-1, D)
        gaussian = rng.standard_normal(flat.shape) @ _root(np.cov(flat.T)) + flat.mean(axis=0)
        self.scale = float(np.sqrt(((flat - flat.mean(axis=0)) ** 2).sum(axis=1).mean()))
        """R, the root mean square distance of a state from the mean."""
        self.tokens = dict(zip(names, tokens, strict=True))
        self.states = dict(zip(names, x.astype(np.float32), strict=True))
        self.shuffled = dict(zip(names, gaussian.reshape(x.shape).astype(np.float32), strict=True))
        self.rows = _rows(tokens)


def _root(covariance: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
    root: np.ndarray = np.linalg.cholesky(covariance).T
    return root


def _rows(tokens: Int[np.ndarray, "passage token"]) -> dict[str, list[dict[str, Any]]]:
    return {
        "corpus": [
            {"id": f"c{number}", "group": f"g{number // 4}", "tokens": tokens[number].tolist()}
            for number in range(PASSAGES)
        ],
        "concepts": [
            {"id": f"k{number}", "group": f"h{number}", "concept": "open", "label": number % 2, "text": f"row {number}"}
            for number in range(ROWS)
        ],
        "contrast": [
            {
                "id": f"m{number}",
                "group": f"q{number}",
                "concept": "open",
                "prompt": f"prompt {number}",
                "target": f" {TARGET}",
                "foil": f" {FOIL}",
            }
            for number in range(CONTRASTS)
        ],
    }


def evidence(model: Model, seed: int) -> InMemoryEvidence:
    """Return the evidence of an audit of a model.

    Args:
        model: what is audited.
        seed: the audit's.
    """

    def site(_name: str, which: Which) -> LinearSite:
        return PlantedSite(model, model.states if which == "submitted" else model.shuffled)

    return InMemoryEvidence(
        facts=model_facts(layers=1, width=D, vocabulary=VOCABULARY, context=LENGTH),
        check="sae_features",
        seed=seed,
        rows=model.rows,
        sites=site,
        models=("submitted", "shuffled"),
    )
