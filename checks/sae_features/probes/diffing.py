"""What one dictionary says changed between a model and its base: how often latents are on, how strongly, how well.

Both models ran over the same held-out passages, so every state has a partner, and groups of passages are what is drawn
again and what is swapped between the models. Fine-tuning moves many latents a little: a plain ranking shows that drift
first. The conditional form asks instead whether a latent's answer to a concept changed, and is what a finding may rest
on. Source: specification of `sae_features`, section 8.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.sae_features.dictionary.grouped import RESAMPLES, Estimate, Groups, difference
from checks.sae_features.probes.diffing_codes import Codes, codes
from checks.sae_features.probes.diffing_scaling import Scaling, scaling
from checks.sae_features.probes.diffing_swaps import SWAPS, Intervals, Swapped, mean_on, rates

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from checks.sae_features.dictionary.value import Dictionary
    from checks.sae_features.held import Held

GROUPS_LEAST = 8
"""Groups that hold a label at least: 8 groups have 256 swaps, the least number above the 200 that are drawn."""


@dataclass(frozen=True)
class DiffRefused:
    """Why two models were not compared; nothing is known then."""

    reason: str
    """too_few_groups, no_live_latents, nothing_held or tokens_differ."""
    items: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Diff:
    """The same dictionary on both models; differences are submitted minus base, arrays have a number a latent."""

    rate_submitted: Float[np.ndarray, " m"]
    """p_i = P(f_i > 0)."""
    rate_base: Float[np.ndarray, " m"]
    delta_rate: Intervals
    delta_mean_on: Intervals
    """Of E[g_i | on] (contributions, activation units); NaN where a model never has the latent on."""
    swapped: Swapped
    """Of `delta_rate`: max-T over all latents."""
    ev_submitted: Estimate
    ev_base: Estimate
    delta_ev: Estimate
    scaling: Scaling
    live: Bool[np.ndarray, " m"]
    """On at least once in either model."""
    tokens: int
    groups: int
    unpaired: tuple[int, int]
    """States of submitted and of base whose partner is not usable; left out."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Conditional:
    """Whether latents answer a concept differently: difference of differences of rates, a number a latent."""

    concept: str
    delta: Intervals
    """(P(on | 1) - P(on | 0)) of submitted minus the same of base."""
    swapped: Swapped
    live: Bool[np.ndarray, " m"]
    rows: int
    groups: int


def diff(
    dictionary: Dictionary,
    submitted: Held,
    base: Held,
    rng: np.random.Generator,
    *,
    swaps: int = SWAPS,
    resamples: int = RESAMPLES,
) -> Diff | DiffRefused:
    """Return how the dictionary's latents differ between two models on the same passages.

    Args:
        dictionary: one for both.
        submitted: states of the model.
        base: states of its base at the same passages; a state without a partner is left out and counted.
        rng: draws resamples and swaps.
        swaps: group swaps of the two models.
        resamples: draws of the bootstrap.

    Raises:
        ValueError: a model's states do not have the dictionary's width.
    """
    _fits(dictionary, submitted.x, base.x)
    here, there = _pairs(submitted, base)
    refused = _unfit_pairs(submitted, base, here, there)
    if refused is not None:
        return refused
    groups = [submitted.groups[at] for at in here]
    raw = dictionary.fold_scale()
    one, other = codes(raw, submitted.x[here]), codes(raw, base.x[there])
    live = one.live | other.live
    if not live.any():
        return DiffRefused("no_live_latents", (f"tokens:{len(here)}",))
    drawn = Groups(groups, rng, resamples)
    changed, swapped = rates(one, other, live, drawn, rng, swaps)
    evs = [_ev(drawn, each) for each in (one, other)]
    return Diff(
        rate_submitted=one.rates,
        rate_base=other.rates,
        delta_rate=changed,
        delta_mean_on=mean_on(one, other, live, drawn),
        swapped=swapped,
        ev_submitted=evs[0],
        ev_base=evs[1],
        delta_ev=difference(evs[0], evs[1]),
        scaling=scaling(raw, one, other, live),
        live=live,
        tokens=len(here),
        groups=drawn.count,
        unpaired=(len(submitted.x) - len(here), len(base.x) - len(there)),
    )


def conditional(
    dictionary: Dictionary,
    concept: str,
    labels: Int[np.ndarray, " n"],
    groups: Sequence[str],
    submitted: Float[np.ndarray, "n d"],
    base: Float[np.ndarray, "n d"],
    rng: np.random.Generator,
    *,
    swaps: int = SWAPS,
    resamples: int = RESAMPLES,
) -> Conditional | DiffRefused:
    """Return whether each latent separates a concept's labels differently in the two models.

    A drift that meets both labels alike cancels. Nothing is chosen on these rows, so all of a concept's may be given.

    Args:
        dictionary: one for both.
        concept: name of the concept.
        labels: 1 where it is there.
        groups: group of each row.
        submitted: the model's states at the rows' read positions.
        base: those of the base model at the same.
        rng: draws resamples and swaps.
        swaps: group swaps of the two models.
        resamples: draws of the bootstrap.

    Raises:
        ValueError: shapes do not fit, or a label is neither 0 nor 1.
    """
    _fits(dictionary, submitted, base)
    chosen = _labels(labels, groups, submitted, base)
    by_label = [{group for group, on in zip(groups, chosen, strict=True) if on == label} for label in (False, True)]
    if min(map(len, by_label)) < GROUPS_LEAST:
        counts = (f"negative_groups:{len(by_label[0])}", f"positive_groups:{len(by_label[1])}")
        return DiffRefused("too_few_groups", counts)
    raw = dictionary.fold_scale()
    one, other = codes(raw, submitted), codes(raw, base)
    live = one.live | other.live
    if not live.any():
        return DiffRefused("no_live_latents", (f"rows:{len(chosen)}",))
    drawn = Groups(groups, rng, resamples)
    changed, swapped = rates(one, other, live, drawn, rng, swaps, chosen)
    return Conditional(concept=concept, delta=changed, swapped=swapped, live=live, rows=len(chosen), groups=drawn.count)


def _fits(dictionary: Dictionary, *states: Float[np.ndarray, "n d"]) -> None:
    for x in states:
        if x.ndim != 2 or x.shape[1] != dictionary.width:
            raise ValueError(f"states of shape {x.shape} for a dictionary of width {dictionary.width}")
        if not np.isfinite(x).all():
            raise ValueError("a state is not finite: look at the model's activations")


def _labels(
    labels: Int[np.ndarray, " n"], groups: Sequence[str], submitted: np.ndarray, base: np.ndarray
) -> Bool[np.ndarray, " n"]:
    numbers = np.asarray(labels)
    if not len(numbers) == len(groups) == len(submitted) == len(base):
        raise ValueError(f"{len(numbers)} labels, {len(groups)} groups, {len(submitted)} and {len(base)} states")
    if not np.isin(numbers, (0, 1)).all():
        raise ValueError("a label is neither 0 nor 1")
    return np.asarray(numbers == 1)


def _pairs(submitted: Held, base: Held) -> tuple[list[int], list[int]]:
    """Return the numbers of partners: what is an outlier by norm in one model may be usable in the other."""
    there = {place: at for at, place in enumerate(zip(base.passages, base.positions.tolist(), strict=True))}
    places = zip(submitted.passages, submitted.positions.tolist(), strict=True)
    both = [(at, there[place]) for at, place in enumerate(places) if place in there]
    return [one for one, _ in both], [other for _, other in both]


def _unfit_pairs(submitted: Held, base: Held, here: list[int], there: list[int]) -> DiffRefused | None:
    if not here:
        return DiffRefused("nothing_held", (f"submitted:{len(submitted.x)}", f"base:{len(base.x)}"))
    unequal = np.flatnonzero(submitted.tokens[here] != base.tokens[there])
    if len(unequal):  # two tokenizers: position t of one is not position t of the other
        at = here[int(unequal[0])]
        return DiffRefused("tokens_differ", (f"position:{int(submitted.positions[at])}", f"places:{len(unequal)}"))
    groups = {submitted.groups[at] for at in here}
    if len(groups) < GROUPS_LEAST:
        return DiffRefused("too_few_groups", (f"groups:{len(groups)}",))
    return None


def _ev(drawn: Groups, one: Codes) -> Estimate:
    """Return 1 - E‖e‖² / E‖x - mu‖²; mu is the mean of the states, and in a draw that of the draw."""
    x, error = one.x.astype(np.float64), one.error.astype(np.float64)
    centred = x - x.mean(0)
    return drawn.estimate(
        lambda n, lost, total, square: 1.0 - lost / (square - (total**2).sum(-1) / n),
        np.ones(len(x)),
        (error**2).sum(1),
        centred,
        (centred**2).sum(1),
    )
