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
from checks.sae_features.probes.coded import Code, Coded
from checks.sae_features.probes.matched import matched_sets

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float64

    from checks.passages import Change, Site
    from checks.sae_features.dictionary.grouped import Estimate
    from checks.sae_features.dictionary.value import Dictionary
    from checks.sae_features.probes.coded import Editable

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
    """E of each matched set."""
    distinct_controls: int
    """Sets that differ from each other: a small dictionary draws the same set again."""
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
    poorly_matched: bool
    """Whether fewer than 90 % of them lie within .6 (specification, section 10)."""
    off_target_kl: Estimate | None
    """KL(unedited || edited) on neutral passages, nats a token; None where there is none."""
    per_nat: float | None
    """E over `off_target_kl`; None where that is 0 or not there."""
    left_out: tuple[str, ...]
    """Ids of rows whose unedited margin has the wrong sign."""

    @property
    def n(self) -> int:
        """Rows."""
        return self.value.n

    @property
    def groups(self) -> int:
        """Groups of these rows."""
        return self.value.groups
