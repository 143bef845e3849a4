"""Whether a behaviour passes through what a dictionary says of the states, or through what it leaves out.

Specification of `sae_features`, section 8.2; published: a search in the residual recovered clamped behaviour in 95.8 %
of valid cases (2606.18322).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from checks.sae_features.dictionary.grouped import Estimate

EDITS = (
    "unedited",
    "reconstruction",
    "mean",
    "mean_error",
    "ablated",
    "ablated_no_error",
    "only_with_error",
    "only",
)
"""x, x̂, mu, mu + e, x without S, x̂ without S, S alone with e, S alone; S alone is the decoder's bias and S."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Battery:
    """The margin with parts of the states left in place."""

    margins: Mapping[str, Estimate]
    """Mean margin in nats under each of `EDITS`."""
    error_share: Estimate
    """(m(mu + e) - m(mu)) / (m(x) - m(mu)); no value where the denominator is near 0, `reason` then says so."""
    left_out: tuple[str, ...]
    """Ids of rows whose unedited margin has the wrong sign."""
