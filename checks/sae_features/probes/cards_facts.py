"""Numbers of a card: how often, on which tokens, towards which tokens, and beside which other directions.

Source: specification of `sae_features`, section 9.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from checks.sae_features.probes.cards_contexts import LEVELS, Column
from checks.sae_features.probes.diffing_codes import latents_of, sizes

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from checks.sae_features.dictionary.value import Dictionary
    from checks.sae_features.probes.cards_contexts import Corpus

Kind = Literal["dead", "dense", "token-like", "other"]

DENSE = 0.10
"""A latent that is on more often is dense, as in the metric `dense10`."""

TOKEN_SHARE, TOKEN_LIFT, TOKEN_HITS = 0.5, 2.0, 5
"""A latent is token-like where one token makes up half of its states, at least five of them, and is there twice as
often as anywhere: a frequent token alone would meet the share. Chosen here; the specification names no bound."""

SMALLEST = 1e-30
"""Size of a direction of norm 0: such a latent is on, adds nothing, and its values still have an order."""

VOCABULARY_AT_ONCE = 4096
"""Rows of the unembedding multiplied at a time in float64; bounds memory, not the result."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What is told of one latent; None where it is not defined."""

    hits: int
    rate: float
    kind: Kind
    mean: float | None
    """Of the contribution where it is on."""
    largest: float | None
    entropy: float | None
    """Of the token given that the latent is on, bits: low for a latent of one token."""
    lifts: tuple[tuple[int, float, int], ...]
    """Token, P(t | on) / P(t), hits: the largest among tokens with at least five hits."""
    raised: tuple[tuple[int, float], ...] | None
    """Token and logits that a step of R along the latent's direction adds, up to the final norm's scale."""
    lowered: tuple[tuple[int, float], ...] | None
    nearest: tuple[int, float] | None
    """The other row of the largest cosine."""
    enc_dec: float
    other_seed: tuple[int, float] | None


class Latents:
    """Latents of the held states, sparse.

    Args:
        dictionary: whose latents.
        corpus: the states.
    """

    def __init__(self, dictionary: Dictionary, corpus: Corpus) -> None:
        self._f = latents_of(dictionary, corpus.x)
        self._sizes = np.maximum(sizes(dictionary), SMALLEST)
        self.hits: Int[np.ndarray, " m"] = np.diff(self._f.indptr).astype(np.int64)

    def column(self, index: int) -> Column:
        """Return where one latent is on and what it contributes there."""
        own = slice(self._f.indptr[index], self._f.indptr[index + 1])
        order = np.argsort(self._f.indices[own])
        at = self._f.indices[own][order].astype(np.int64)
        return Column(at, self._f.data[own][order] * self._sizes[index])


class Facts:
    """Tells the numbers of one latent after another.

    Args:
        dictionary: whose latents.
        latents: of the held states.
        corpus: the states.
        logit_weights: rows centred over the vocabulary, or None.
        other: dictionary of another seed, or None.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        latents: Latents,
        corpus: Corpus,
        logit_weights: Float[np.ndarray, "vocabulary d"] | None,
        other: Dictionary | None,
    ) -> None:
        self.dictionary, self.latents, self._corpus = dictionary, latents, corpus
        self._logit_weights = logit_weights
        self._rows = _unit(dictionary.w_dec.double().numpy())
        self._reads = dictionary.w_enc
        self._others = None if other is None else _unit(other.w_dec.double().numpy())
        self._tokens, self._token = np.unique(corpus.tokens, return_inverse=True)
        self._counts = np.bincount(self._token)
        self._known: dict[int, Told] = {}

    def of(self, index: int) -> Told:
        """Return the numbers of one latent."""
        if index not in self._known:
            self._known[index] = self._tell(index)
        return self._known[index]

    def _tell(self, index: int) -> Told:
        column = self.latents.column(index)
        hits = len(column.at)
        on = np.bincount(self._token[column.at], minlength=len(self._tokens))
        lift = (on / max(1, hits)) / (self._counts / len(self._token))
        own = self._rows[index]
        raised, lowered = self._promoted(own)
        cosines = self._rows @ own
        cosines[index] = -np.inf
        read = _unit(self._reads[:, index].double().numpy()[None])[0]
        return Told(
            hits=hits,
            rate=hits / len(self._token),
            kind=kind(hits, len(self._token), on, lift),
            mean=float(column.values.mean()) if hits else None,
            largest=float(column.values.max()) if hits else None,
            entropy=_entropy(on / hits) if hits else None,
            lifts=self._lifts(on, lift),
            raised=raised,
            lowered=lowered,
            nearest=_best(cosines) if len(cosines) > 1 else None,
            enc_dec=float(read @ own),
            other_seed=None if self._others is None else _best(self._others @ own),
        )

    def _lifts(
        self, on: Int[np.ndarray, " token"], lift: Float[np.ndarray, " token"]
    ) -> tuple[tuple[int, float, int], ...]:
        enough = np.flatnonzero(on >= TOKEN_HITS)
        order = enough[np.lexsort((self._tokens[enough], -on[enough], -lift[enough]))][: LEVELS[0].lifts]
        return tuple((int(self._tokens[one]), float(lift[one]), int(on[one])) for one in order)

    def _promoted(self, direction: Float[np.ndarray, " d"]) -> tuple[tuple[tuple[int, float], ...] | None, ...]:
        if self._logit_weights is None:
            return None, None
        weights = self._logit_weights
        pieces = range(0, len(weights), VOCABULARY_AT_ONCE)
        found = [weights[at : at + VOCABULARY_AT_ONCE].astype(np.float64) @ direction for at in pieces]
        logits = np.concatenate(found) * self._corpus.scale
        told = []
        for sign in (-1.0, 1.0):
            order = np.lexsort((np.arange(len(logits)), sign * logits))[: LEVELS[0].promoted]
            told.append(tuple((int(token), float(logits[token])) for token in order))
        return told[0], told[1]


def kind(hits: int, states: int, on: Int[np.ndarray, " token"], lift: Float[np.ndarray, " token"]) -> Kind:
    """Return what sort of latent this is: dead, else dense, else token-like, else other.

    Args:
        hits: states at which it is on.
        states: all states.
        on: hits by token.
        lift: P(t | on) / P(t) by token.
    """
    if not hits:
        return "dead"
    if hits > DENSE * states:
        return "dense"
    most = int(on.argmax())
    if on[most] >= max(TOKEN_HITS, TOKEN_SHARE * hits) and lift[most] >= TOKEN_LIFT:
        return "token-like"
    return "other"


def _entropy(p: Float[np.ndarray, " token"]) -> float:
    seen = p[p > 0]
    return float(max(0.0, -(seen * np.log2(seen)).sum()))


def _best(cosines: Float[np.ndarray, " m"]) -> tuple[int, float]:
    best = int(cosines.argmax())
    return best, float(cosines[best])


def _unit(rows: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m d"]:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1.0))
