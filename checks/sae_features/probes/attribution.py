"""What each latent, and the error term, is worth to a behaviour by gradients, held against exact ablations.

x = x̂(f) + e with the error e as its own node. IE_i = -sum over tokens of f_i dm/df_i estimates what setting latent i to
zero does; `ig` averages the gradient along alpha f (Marks et al. 2024, 2403.19647). Specification of `sae_features`,
section 8.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.stats import rankdata

from checks.sae_features.dictionary.grouped import mean
from checks.sae_features.probes.behaviour import EditSettings, EditsRefused, behaviour, edited_margins
from checks.sae_features.probes.coded import Coded, encoded, undone

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float64

    from checks.passages import Change, Site
    from checks.sae_features.dictionary.grouped import Estimate
    from checks.sae_features.dictionary.value import Dictionary
    from checks.sae_features.probes.behaviour import Draw
    from checks.sae_features.probes.coded import Editable

FORMS = ("gradient", "ig")

ALPHAS = tuple(round(0.05 + 0.1 * step, 2) for step in range(10))
"""Where `ig` takes its gradients: the midpoints of ten equal steps (specification, section 8.3)."""

CHECKED_TOP, CHECKED_RANDOM = 20, 20
"""Latents that are ablated exactly: those ranked first, and others drawn from the live ones (section 8.3)."""

FEWEST = 3
"""Latents below which a correlation is none: two points always lie on a line."""

GRADIENT_COST = 3
"""Tokens that a gradient is charged for each of its own (`checks.passages.Site`)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Form:
    """One way to attribute, and how it fares against exact ablation."""

    ie: Float64[np.ndarray, " m"]
    """Mean over rows of -sum_t f_i dm/df_i: an estimate of the effect of ablating latent i, nats."""
    error: Estimate
    """The same of the error term."""
    spearman: float | None
    """Against exact ablation over the checked latents, mid-ranks; None where either side does not vary."""
    pearson: float | None
    slope: float | None
    """Least-squares slope of the exact effect on the attributed one, with an intercept."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Attribution:
    """Both forms, and the ablations that they are checked against."""

    forms: Mapping[str, Form]
    """By the names of `FORMS`."""
    exact: Mapping[int, Estimate]
    """Effect of ablating each checked latent alone, error kept, nats."""
    top: tuple[int, ...]
    """Checked because a form ranks them first; the two forms name theirs in turn."""
    random: tuple[int, ...]
    """Checked because they were drawn from the other live latents."""
    left_out: tuple[str, ...]
    """Ids of rows whose unedited margin has the wrong sign."""

    def validated(self, rho: float) -> tuple[str, ...]:
        """Return the forms whose Spearman reaches rho."""
        return tuple(name for name, form in self.forms.items() if form.spearman is not None and form.spearman >= rho)

    def shown(self, rho: float) -> Mapping[str, Mapping[int, float]]:
        """Return what may be printed, by latent: "exact", and each form whose Spearman reaches rho."""
        exact = {latent: effect.value for latent, effect in self.exact.items() if effect.value is not None}
        attributed = {name: {one: float(self.forms[name].ie[one]) for one in exact} for name in self.validated(rho)}
        return {"exact": exact, **attributed}


def attribute(
    site: Site,
    contrasts: Sequence[str],
    groups: Sequence[str],
    dictionary: Dictionary,
    live: Bool[np.ndarray, " m"],
    settings: EditSettings,
    rng: Draw,
    *,
    editable: Editable,
) -> Attribution | EditsRefused:
    """Return the attributed effect of every latent and of the error, and how far exact ablations bear it out.

    Args:
        site: where the dictionary lives; asked for gradients.
        contrasts: ids.
        groups: group of each contrast.
        dictionary: at this site.
        live: latents that the random part of the check is drawn from.
        settings: bootstrap draws.
        rng: "bootstrap" and "attribution" are drawn.
        editable: tokens that may be edited.
    """
    coded = Coded(dictionary, editable)
    first = _passed(site, contrasts, coded)
    shown = behaviour(first.margins, contrasts, groups, settings, rng)
    if isinstance(shown, EditsRefused):
        return shown
    kept = [name for name, keep in zip(contrasts, shown.kept, strict=True) if keep]
    kept_groups = [name for name, keep in zip(groups, shown.kept, strict=True) if keep]
    steps = [_passed(site, kept, coded, alpha) for alpha in ALPHAS]
    ie = {"gradient": first.ie / len(kept), "ig": np.mean([step.ie for step in steps], axis=0) / len(kept)}
    error = {"gradient": first.error[shown.kept], "ig": np.mean([step.error for step in steps], axis=0)}
    top = _in_turn(tuple(ie.values()), CHECKED_TOP)
    rest = np.setdiff1d(np.flatnonzero(live), top)
    random = tuple(rng("attribution").permutation(rest)[:CHECKED_RANDOM].tolist())
    exact = _exact(
        site, kept, kept_groups, Coded(dictionary, editable, (*top, *random)), (*top, *random), settings, rng
    )
    if isinstance(exact, EditsRefused):
        return exact
    ones = np.ones(len(kept))
    forms = {name: _form(ie[name], shown.drawn.estimate(mean, ones, error[name]), exact) for name in FORMS}
    return Attribution(forms=forms, exact=exact, top=top, random=random, left_out=shown.left_out)


def attribute_tokens(contrasts: int) -> int:
    """Return the most tokens that `attribute` runs forward, for the tokens of all contrasts' prompts."""
    return contrasts * (GRADIENT_COST * (1 + len(ALPHAS)) + 1 + CHECKED_TOP + CHECKED_RANDOM)


@dataclass(frozen=True, eq=False)
class _Passed:
    """What one pass of gradients says, summed over its contrasts or by contrast."""

    margins: Float64[np.ndarray, " contrast"]
    ie: Float64[np.ndarray, " m"]
    """Sum over the contrasts that count."""
    error: Float64[np.ndarray, " contrast"]


def _passed(site: Site, ids: Sequence[str], coded: Coded, alpha: float | None = None) -> _Passed:
    """Return the attributions from gradients at the unedited states, or at alpha f.

    Of the unedited, only contrasts that show the behaviour count: their margin comes with their gradient. At alpha f
    all are known to show it.
    """
    margins, error = np.full(len(ids), np.nan), np.zeros(len(ids))
    ie, told = np.zeros(coded.dictionary.latents), 0
    scaled = None if alpha is None else _scaled_code(coded, alpha)
    for part in site.margin_gradients(ids, scaled):
        # A contrast that could not be read has a value, no number, and no token.
        margins[told : told + len(part.value)], told = part.value, told + len(part.value)
        edit, code = coded.of(part.states)
        passage, gradient = part.states.passage[edit], np.asarray(part.gradient)[edit]
        counts = np.full(len(passage), True) if alpha is not None else margins[passage] > 0
        np.add.at(error, passage, -(code.error.astype(np.float64) * gradient).sum(axis=1))
        ie += _of_latents(coded.dictionary, code.x[counts], gradient[counts])
    return _Passed(margins, ie, error)


def _scaled_code(coded: Coded, alpha: float) -> Change:
    """Return the change to x̂(alpha f) + e."""
    return coded.change(lambda code: code.x - (1 - alpha) * (code.made - code.bare))


def _of_latents(
    dictionary: Dictionary, x: Float[np.ndarray, "token d"], gradient: Float[np.ndarray, "token d"]
) -> Float64[np.ndarray, " m"]:
    """Return -sum over tokens of f_i dm/df_i, where dm/df_i is the gradient along what the latent adds."""
    total = torch.zeros(dictionary.latents, dtype=torch.float64)
    for place, part, f in encoded(dictionary, x):
        with torch.no_grad():
            along = torch.from_numpy(gradient[place]).to(f.dtype) * undone(dictionary, part)
            total -= (f * (along @ dictionary.rows.T)).sum(dim=0, dtype=torch.float64)
    return np.asarray(total.numpy())


def _in_turn(rankings: Sequence[Float64[np.ndarray, " m"]], count: int) -> tuple[int, ...]:
    """Return the first latents by size, named by the rankings in turn; those of size 0 are not ranked."""
    orders = [np.argsort(-np.abs(sizes), kind="stable")[: np.count_nonzero(sizes)].tolist() for sizes in rankings]
    turns = [order[place] for place in range(max(map(len, orders))) for order in orders if place < len(order)]
    return tuple(dict.fromkeys(turns))[:count]


def _exact(
    site: Site,
    contrasts: Sequence[str],
    groups: Sequence[str],
    coded: Coded,
    latents: Sequence[int],
    settings: EditSettings,
    rng: Draw,
) -> Mapping[int, Estimate] | EditsRefused:
    """Return the effect of ablating each latent alone."""
    told = edited_margins(site, contrasts, groups, [coded.without([one]) for one in latents], settings, rng)
    if isinstance(told, EditsRefused):
        return told
    margins, shown = told
    return {one: shown.mean_of(edited - margins[0]) for one, edited in zip(latents, margins[1:], strict=True)}


def _form(ie: Float64[np.ndarray, " m"], error: Estimate, exact: Mapping[int, Estimate]) -> Form:
    attributed = ie[list(exact)]
    effects = np.array([np.nan if one.value is None else one.value for one in exact.values()])
    pearson = correlation(attributed, effects)
    return Form(
        ie=ie,
        error=error,
        spearman=correlation(rankdata(attributed), rankdata(effects)),
        pearson=pearson,
        slope=None if pearson is None else float(np.polyfit(attributed, effects, 1)[0]),
    )


def correlation(one: Float64[np.ndarray, " n"], other: Float64[np.ndarray, " n"]) -> float | None:
    """Return Pearson's correlation; of mid-ranks it is Spearman's. None where a side does not vary, or of too few."""
    if len(one) < FEWEST or not np.ptp(one) or not np.ptp(other):
        return None
    a, b = one - one.mean(), other - other.mean()
    return float(np.clip((a / np.linalg.norm(a)) @ (b / np.linalg.norm(b)), -1.0, 1.0))
