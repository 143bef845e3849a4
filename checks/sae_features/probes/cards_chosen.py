"""Which latents get a card: those that findings cite, and as many that nobody chose.

Source: specification of `sae_features`, section 9.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Int

BESIDE = 16
"""Latents drawn uniformly, and as many by strata of density (section 9); a third of the cards each where that is less,
so that cited ones never stand alone."""


@dataclass(frozen=True)
class Pick:
    """A latent, and why it has a card."""

    index: int
    source: Literal["cited", "uniform", "stratified"]
    finding: str | None = None
    """Code of the finding that cites it."""


@dataclass(frozen=True)
class Chosen:
    """Latents with a card: cited ones in the caller's order, then the two draws, each by index."""

    cards: tuple[Pick, ...]
    left_out: int
    """Cited latents for which there was no room."""


def chosen(hits: Int[np.ndarray, " m"], cited: Mapping[int, str], count: int, rng: np.random.Generator) -> Chosen:
    """Return the latents that get a card.

    Args:
        hits: states at which each latent is on.
        cited: code of the finding by latent, the most important first.
        count: cards at most.
        rng: draws the others: live latents, uniformly, then one from each stratum of equal size by density.

    Raises:
        ValueError: fewer than 3 cards, or no latent is on.
    """
    if count < 3:
        raise ValueError(f"{count} cards: a cited latent stands beside two others, so at least 3")
    if not (hits > 0).any():
        raise ValueError("no latent is on at any held state: there is nothing to show")
    beside = min(BESIDE, count // 3)
    named = list(cited.items())[: count - 2 * beside]
    live = np.setdiff1d(np.flatnonzero(hits), [index for index, _ in named])
    uniform = np.sort(rng.permutation(live)[:beside])
    rest = np.setdiff1d(live, uniform)
    ranked = rest[np.lexsort((rest, hits[rest]))]
    strata = [part for part in np.array_split(ranked, beside) if len(part)]
    stratified = sorted(int(rng.choice(part)) for part in strata)
    picks = [Pick(index, "cited", code) for index, code in named]
    picks += [Pick(int(index), "uniform", cited.get(int(index))) for index in uniform]
    picks += [Pick(index, "stratified", cited.get(index)) for index in stratified]
    return Chosen(tuple(picks), len(cited) - len(named))
