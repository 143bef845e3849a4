"""Whether a behaviour passes through what a dictionary says of the states, or through what it leaves out.

Specification of `sae_features`, section 8.2; published: a search in the residual recovered clamped behaviour in 95.8 %
of valid cases (2606.18322).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from checks.sae_features.dictionary.grouped import mean
from checks.sae_features.probes.behaviour import EditSettings, EditsRefused, edited_margins
from checks.sae_features.probes.coded import Coded

if TYPE_CHECKING:
    from jaxtyping import Float

    from checks.passages import Change, Site
    from checks.sae_features.dictionary.grouped import Estimate
    from checks.sae_features.dictionary.value import Dictionary
    from checks.sae_features.probes.behaviour import Draw
    from checks.sae_features.probes.coded import Editable

EDITS = ("unedited", "xhat", "mean", "mean_error", "ablated", "ablated_no_error", "only", "only_no_error")
"""x, x̂, mu, mu + e, x without S, x̂ without S, S alone with e, S alone; S alone is the decoder's bias and S."""

MOVED = 0.10
"""Share of the margin that averaging the site must take away, at the lower bound of its interval. Below it the site
carries next to nothing of the behaviour, and a tenth of that is one percent of the margin: the share says nothing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Battery:
    """The margin with parts of the states left in place."""

    margins: Mapping[str, Estimate]
    """Mean margin in nats under each of `EDITS`."""
    error_share: Estimate
    """(m(mu + e) - m(mu)) / (m(x) - m(mu)); no value where the denominator is near 0, `reason` then says so."""
    left_out: tuple[str, ...]
    """Ids of rows whose unedited margin has the wrong sign."""


def battery(
    site: Site,
    contrasts: Sequence[str],
    groups: Sequence[str],
    dictionary: Dictionary,
    latents: Sequence[int],
    average: Float[np.ndarray, " d"],
    settings: EditSettings,
    rng: Draw,
    *,
    editable: Editable,
) -> Battery | EditsRefused:
    """Return the margins of the residual battery and the share of the behaviour that passes through the error.

    The share has no value where the lower bound of (m(x) - m(mu)) / m(x) is below `MOVED`: `reason` is then
    "site_harmless_when_averaged".

    Args:
        site: where the dictionary lives.
        contrasts: ids.
        groups: group of each contrast.
        dictionary: at this site.
        latents: S.
        average: mu, mean of usable states.
        settings: bootstrap draws.
        rng: "bootstrap" is drawn.
        editable: tokens that may be edited.
    """
    changes = _changes(Coded(dictionary, editable, latents), latents, np.asarray(average, dtype=np.float32))
    told = edited_margins(site, contrasts, groups, changes, settings, rng)
    if isinstance(told, EditsRefused):
        return told
    margins, shown = told
    by_edit = dict(zip(EDITS, margins, strict=True))
    kept = {name: values[shown.kept] for name, values in by_edit.items()}
    lost = kept["unedited"] - kept["mean"]
    share = shown.drawn.estimate(mean, lost, kept["mean_error"] - kept["mean"])
    moved = shown.drawn.estimate(mean, kept["unedited"], lost)
    if moved.value is None or (moved.value if moved.low is None else moved.low) < MOVED:
        share = replace(share, value=None, low=None, high=None, draws=None, reason="site_harmless_when_averaged")
    return Battery(
        margins={name: shown.mean_of(values) for name, values in by_edit.items()},
        error_share=share,
        left_out=shown.left_out,
    )


def battery_tokens(contrasts: int) -> int:
    """Return the tokens that `battery` runs forward, for the tokens of all contrasts' prompts."""
    return contrasts * len(EDITS)


def _changes(coded: Coded, latents: Sequence[int], average: Float[np.ndarray, " d"]) -> tuple[Change, ...]:
    """Return the changes in the order of `EDITS`, the unedited left out."""
    return (
        coded.change(lambda code: code.made),
        coded.change(lambda code: np.broadcast_to(average, code.x.shape)),
        coded.change(lambda code: average + code.error),
        coded.without(latents),
        coded.change(lambda code: code.made - code.added(latents)),
        coded.change(lambda code: code.bare + code.added(latents) + code.error),
        coded.change(lambda code: code.bare + code.added(latents)),
    )
