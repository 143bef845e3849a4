"""What each latent, and the error term, is worth to a behaviour by gradients, held against exact ablations.

x = x̂(f) + e with the error e as its own node. IE_i = -sum over tokens of f_i dm/df_i estimates what setting latent i to
zero does; `ig` averages the gradient along alpha f (Marks et al. 2024, 2403.19647). Specification of `sae_features`,
section 8.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float64

    from checks.sae_features.dictionary.grouped import Estimate

FORMS = ("gradient", "ig")

ALPHAS = tuple(round(0.05 + 0.1 * step, 2) for step in range(10))
"""Where `ig` takes its gradients: the midpoints of ten equal steps (specification, section 8.3)."""


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
    """Checked because a form ranks them first."""
    random: tuple[int, ...]
    """Checked because they were drawn from the other live latents."""
    left_out: tuple[str, ...]
    """Ids of rows whose unedited margin has the wrong sign."""

    def validated(self, rho: float) -> tuple[str, ...]:
        """Return the forms whose Spearman reaches rho."""
        return tuple(name for name, form in self.forms.items() if form.spearman is not None and form.spearman >= rho)
