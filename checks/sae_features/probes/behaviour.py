"""Which rows show the behaviour that is intervened on, and their margins under changes.

A behaviour is a margin: log p(target) - log p(foil) after a prompt, in nats. Rows on which the model prefers the foil
show none, and are left out and named. Specification of `sae_features`, sections 3 and 8.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.sae_features.dictionary.grouped import Groups, mean

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64

    from checks.passages import Change, Site
    from checks.sae_features.dictionary.grouped import Estimate

Draw = Callable[[str], np.random.Generator]
"""Returns the generator of a label, e.g. `Evidence.rng` with the concept and the dictionary before the label."""

ABSENT_SHARE = 0.20
"""Share of rows with the wrong sign above which there is no behaviour to explain (specification, section 3)."""


@dataclass(frozen=True, kw_only=True)
class EditSettings:
    """How many controls and draws (specification, sections 2 and 8).

    Raises:
        ValueError: a count is not positive.
    """

    edit_rows: int = 256
    """Contrasts that are run."""
    matched_controls: int = 99
    directions: int = 32
    """Random directions of the removed vector's norm."""
    bootstrap: int = 1000

    def __post_init__(self) -> None:
        if min(self.edit_rows, self.matched_controls, self.directions, self.bootstrap) < 1:
            raise ValueError(f"counts are at least 1: {self}")


@dataclass(frozen=True)
class EditsRefused:
    """Interventions that cannot be told, and why; returned, never raised."""

    reason: str
    """behaviour_absent, too_few_latents or margin_not_finite."""
    left_out: tuple[str, ...] = ()
    """Ids of the rows with the wrong sign, or whose margin is no number."""
    rows: int = 0
    """Rows that were asked."""


@dataclass(frozen=True, eq=False)
class Behaviour:
    """The rows that show the behaviour, and how strongly."""

    kept: Bool[np.ndarray, " contrast"]
    left_out: tuple[str, ...]
    """Ids of rows whose unedited margin is not above 0."""
    drawn: Groups
    """Of the kept rows."""

    def mean_of(self, values: Float64[np.ndarray, " contrast"]) -> Estimate:
        """Return the mean over kept rows, with the interval of their groups."""
        return self.drawn.estimate(mean, np.ones(self.drawn.rows), values[self.kept])


def behaviour(
    margins: Float64[np.ndarray, " contrast"],
    contrasts: Sequence[str],
    groups: Sequence[str],
    settings: EditSettings,
    draw: Draw,
) -> Behaviour | EditsRefused:
    """Return which rows show the behaviour: those whose unedited margin is above 0.

    Args:
        margins: unedited, nats.
        contrasts: ids.
        groups: group of each contrast.
        settings: number of bootstrap draws.
        draw: "bootstrap" draws the groups, so that estimates over the same rows can be subtracted draw by draw.

    Returns:
        A refusal where more than a fifth of the rows are left out.
    """
    kept = margins > 0
    left_out = tuple(name for name, keep in zip(contrasts, kept, strict=True) if not keep)
    if not kept.any() or len(left_out) > ABSENT_SHARE * len(kept):
        return EditsRefused("behaviour_absent", left_out, len(kept))
    labels = [group for group, keep in zip(groups, kept, strict=True) if keep]
    return Behaviour(kept, left_out, Groups(labels, draw("bootstrap"), settings.bootstrap))


def rows_to_edit(
    contrasts: Sequence[str], groups: Sequence[str], most: int, draw: Draw
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return at most so many contrasts with their groups, from as many groups as there are, in the order given.

    Groups take turns in a drawn order: what is independent are groups, and a second row of one adds less than a first
    of another.
    """
    order = draw("edit_rows").permutation(len(contrasts))
    turns: Counter[str] = Counter()
    ranked: list[tuple[int, int, int]] = []
    for place in order:
        ranked.append((turns[groups[place]], len(ranked), int(place)))
        turns[groups[place]] += 1
    chosen = sorted(place for _, _, place in sorted(ranked)[:most])
    return tuple(contrasts[place] for place in chosen), tuple(groups[place] for place in chosen)


def edited_margins(
    site: Site,
    contrasts: Sequence[str],
    groups: Sequence[str],
    changes: Sequence[Change],
    settings: EditSettings,
    draw: Draw,
) -> tuple[Float64[np.ndarray, "edit contrast"], Behaviour] | EditsRefused:
    """Return the margins, unedited first, with the rows that show the behaviour; or why there are none."""
    margins = np.asarray(site.margins(contrasts, changes), dtype=np.float64)
    shown = behaviour(margins[0], contrasts, groups, settings, draw)
    if isinstance(shown, EditsRefused):
        return shown
    broken = shown.kept & ~np.isfinite(margins).all(axis=0)
    if broken.any():
        names = tuple(name for name, bad in zip(contrasts, broken, strict=True) if bad)
        return EditsRefused("margin_not_finite", names, len(contrasts))
    return margins, shown
