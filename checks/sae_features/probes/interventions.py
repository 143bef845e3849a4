"""What setting latents to zero does to a behaviour, beyond sets of latents that are as large and random directions.

A behaviour is a margin: log p(target) - log p(foil) after a prompt. The error term is kept: x - sum of f_i w_dec[i], so
that what the dictionary leaves out goes on acting and only the named latents are taken out. Specification of
`sae_features`, section 8.1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.sae_features.dictionary.grouped import Groups, mean
from checks.sae_features.probes.behaviour import Behaviour, EditSettings, EditsRefused, edited_margins
from checks.sae_features.probes.coded import Coded
from checks.sae_features.probes.matched import WELL_SHARE, Matched, matched_sets

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float64

    from checks.passages import Change, Site
    from checks.sae_features.dictionary.grouped import Estimate
    from checks.sae_features.dictionary.value import Dictionary
    from checks.sae_features.probes.behaviour import Draw
    from checks.sae_features.probes.coded import Code, Editable

SILENT_KL = 1e-6
"""Nats a token: a smaller divergence is the rounding of float32 logits, and nothing is told per nat of it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Effect:
    """What an ablation does to the margin, in nats."""

    value: Estimate
    """E = mean over rows of m(edited) - m(unedited)."""
    relative: Estimate
    """E / |mean m(unedited)|."""
    unedited: Estimate
    """Mean margin before."""
    controls: Float64[np.ndarray, " set"]
    """E of each matched set, no two alike; fewer than asked where the live latents make no more."""
    random: Float64[np.ndarray, " direction"]
    """E of each random direction of the removed vector's norm at each position."""
    diffmean: Estimate | None
    """E of projecting the DiffMean direction out of the states; None where none is given."""
    p: float
    """(1 + #{|control| >= |E|}) / (1 + n) over the matched sets."""
    p_random: float
    """The same over the random directions."""
    widenings: Counter[str]
    """Members of control sets by how far their mass was looked for: "0.3", "0.6", "1.2", "nearest"."""
    matched_share: float
    """Share of them within .6; `poorly_matched` below 90 % (specification, section 10)."""
    off_target_kl: Estimate | None
    """KL(unedited || edited) on neutral passages, nats a token; None where there is none."""
    per_nat: float | None
    """E over `off_target_kl`; None where that is not there or below `SILENT_KL`."""
    left_out: tuple[str, ...]
    """Ids of rows whose unedited margin has the wrong sign."""

    @property
    def poorly_matched(self) -> bool:
        """Whether the controls are of another size than what they are compared with."""
        return self.matched_share < WELL_SHARE

    @property
    def n(self) -> int:
        """Rows."""
        return self.value.n

    @property
    def groups(self) -> int:
        """Groups of these rows."""
        return self.value.groups


def ablate(
    site: Site,
    contrasts: Sequence[str],
    groups: Sequence[str],
    dictionary: Dictionary,
    latents: Sequence[int],
    masses: Float[np.ndarray, " m"],
    live: Bool[np.ndarray, " m"],
    settings: EditSettings,
    rng: Draw,
    neutral: Sequence[str] = (),
    *,
    editable: Editable,
    neutral_groups: Sequence[str] | None = None,
    diffmean: Float[np.ndarray, " d"] | None = None,
) -> Effect | EditsRefused:
    """Return what setting latents to zero does to the margin, error term kept, with its controls.

    Args:
        site: where the dictionary lives.
        contrasts: ids of at most `edit_rows` contrasts.
        groups: group of each.
        dictionary: at this site.
        latents: S, the latents that a concept's sparse probe chose.
        masses: E g_i over held-out states; controls are matched on it.
        live: latents that may stand in as controls.
        settings: counts.
        rng: labels "bootstrap", "matched" and "directions" are drawn; "neutral" for the off-target interval.
        neutral: ids of passages on which the edit should change nothing.
        editable: tokens that may be edited.
        neutral_groups: group of each neutral passage; each is its own where not given.
        diffmean: mean state where the concept is there less where it is not.
    """
    matched = matched_sets(latents, masses, live, settings.matched_controls, rng("matched"))
    if matched is None:
        return EditsRefused("too_few_latents", rows=len(contrasts))
    coded = Coded(dictionary, editable, {*map(int, latents), *matched.sets.ravel().tolist()})
    ablation = coded.without(latents)
    controls = [coded.without(one) for one in matched.sets.tolist()]
    units = unit(rng("directions").standard_normal((settings.directions, dictionary.width)))
    controls += [coded.change(_as_long(latents, one)) for one in units]
    controls += [] if diffmean is None else [coded.change(_projected_out(unit(np.asarray(diffmean, dtype=float))))]
    told = edited_margins(site, contrasts, groups, [ablation, *controls], settings, rng)
    if isinstance(told, EditsRefused):
        return told
    return _told(
        told[0] - told[0][0],
        told[0][0],
        told[1],
        matched,
        settings,
        off_target=_off_target(site, neutral, neutral_groups or neutral, ablation, settings, rng),
        diffmean=diffmean is not None,
    )


def ablate_tokens(contrasts: int, neutral: int, settings: EditSettings, diffmean: bool = True) -> int:
    """Return the most tokens that `ablate` runs forward.

    Args:
        contrasts: tokens of all contrasts' prompts.
        neutral: tokens of all neutral passages.
        settings: counts.
        diffmean: whether a DiffMean direction is projected out too.
    """
    return contrasts * (2 + settings.matched_controls + settings.directions + diffmean) + 2 * neutral


def p_beyond(effect: float, controls: Float64[np.ndarray, " control"]) -> float:
    """Return (1 + #{|control| >= |effect|}) / (1 + n): at least 1 / (1 + n), and never 0."""
    return float((1 + np.count_nonzero(np.abs(controls) >= abs(effect))) / (1 + len(controls)))


def _told(
    change: Float64[np.ndarray, "edit contrast"],
    unedited: Float64[np.ndarray, " contrast"],
    shown: Behaviour,
    matched: Matched,
    settings: EditSettings,
    off_target: Estimate | None,
    diffmean: bool,
) -> Effect:
    """Return the effect from the change of each margin: rows are unedited, ablated, sets, directions, DiffMean."""
    means = change[:, shown.kept].mean(axis=1)
    controls, random = means[2 : 2 + len(matched.sets)], means[2 + len(matched.sets) :][: settings.directions]
    kl = None if off_target is None else off_target.value
    return Effect(
        value=shown.mean_of(change[1]),
        relative=shown.drawn.estimate(_over_size, change[1][shown.kept], unedited[shown.kept]),
        unedited=shown.mean_of(unedited),
        controls=controls,
        random=random,
        diffmean=shown.mean_of(change[-1]) if diffmean else None,
        p=p_beyond(means[1], controls),
        p_random=p_beyond(means[1], random),
        widenings=matched.widenings,
        matched_share=matched.well,
        off_target_kl=off_target,
        per_nat=None if kl is None or kl < SILENT_KL else float(means[1]) / kl,
        left_out=shown.left_out,
    )


def _off_target(
    site: Site, neutral: Sequence[str], groups: Sequence[str], change: Change, settings: EditSettings, rng: Draw
) -> Estimate | None:
    """Return the KL that a change makes on neutral passages, nats a scored token; None where none is scored."""
    by_passage = np.zeros((2, len(neutral)))
    for spliced in site.splice(neutral, [change]) if neutral else ():
        passage = spliced.passage[spliced.scored]
        np.add.at(by_passage[0], passage, 1.0)
        np.add.at(by_passage[1], passage, spliced.divergence[1, spliced.scored])
    if not by_passage[0].any():
        return None
    return Groups(groups, rng("neutral"), settings.bootstrap).estimate(mean, *by_passage)


def _as_long(
    latents: Sequence[int], direction: Float[np.ndarray, " d"]
) -> Callable[[Code], Float[np.ndarray, "token d"]]:
    """Return the edit that takes out, at each token, as long a vector as the latents', along one direction."""

    def made(code: Code) -> Float[np.ndarray, "token d"]:
        return np.asarray(code.x - np.linalg.norm(code.added(latents), axis=1, keepdims=True) * direction)

    return made


def _projected_out(direction: Float[np.ndarray, " d"]) -> Callable[[Code], Float[np.ndarray, "token d"]]:
    return lambda code: np.asarray(code.x - (code.x @ direction)[:, None] * direction)


def unit(vectors: Float[np.ndarray, "*axes d"]) -> Float[np.ndarray, "*axes d"]:
    """Return vectors of length 1; a vector of zeros has no direction and stays."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0))


def _over_size(change: Float[np.ndarray, " draw"], unedited: Float[np.ndarray, " draw"]) -> Float[np.ndarray, " draw"]:
    return np.asarray(change / np.abs(unedited))
