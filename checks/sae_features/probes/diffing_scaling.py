"""Latent scaling: how much of a latent's direction a model's own states hold where the latent is on.

A latent that looks new may have been there, only read or written more weakly. For each latent,
beta = argmin E‖beta f_i w_i - target‖², with f_i of the submitted model and, as target, what each model's
reconstruction holds (r) or what its error holds once the latent's own part is given back to it (epsilon). A ratio
base / submitted near 1 says that the base model has the direction too. Source: Minder et al. 2025 (2504.02922), for
crosscoders; specification of `sae_features`, section 8.4. Bounds on the ratios (.2 and .5) are not verified here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csc_array, diags_array

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from checks.sae_features.dictionary.value import Dictionary
    from checks.sae_features.probes.diffing_codes import Codes

LATENTS_AT_ONCE = 1024
"""Latents whose directions are projected at a time; bounds memory, not the result."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scaling:
    """Scales and their ratios, a number a latent; NaN where the submitted model never has the latent on."""

    error_submitted: Float[np.ndarray, " m"]
    error_base: Float[np.ndarray, " m"]
    reconstruction_submitted: Float[np.ndarray, " m"]
    reconstruction_base: Float[np.ndarray, " m"]

    @property
    def nu_error(self) -> Float[np.ndarray, " m"]:
        """Base over submitted; NaN where the submitted scale is not positive."""
        return _ratio(self.error_base, self.error_submitted)

    @property
    def nu_reconstruction(self) -> Float[np.ndarray, " m"]:
        """Base over submitted; NaN where the submitted scale is not positive."""
        return _ratio(self.reconstruction_base, self.reconstruction_submitted)


def scaling(dictionary: Dictionary, submitted: Codes, base: Codes, live: Bool[np.ndarray, " m"]) -> Scaling:
    """Return the scales of latents on partnered states of two models.

    Args:
        dictionary: without a scale to fold.
        submitted: its states are on the same tokens, row by row, as
        base: those of the base model.
        live: latents that are looked at.
    """
    rows = dictionary.rows.double().numpy()
    regressor = csc_array(diags_array(submitted.unit) @ submitted.f)
    found = {name: np.full(len(live), np.nan) for name in ("error_submitted", "error_base")}
    found |= {name: np.full(len(live), np.nan) for name in ("reconstruction_submitted", "reconstruction_base")}
    places = np.flatnonzero(live)
    for name, model in (("submitted", submitted), ("base", base)):
        own = csc_array(diags_array(model.unit) @ model.f)
        for begin in range(0, len(places), LATENTS_AT_ONCE):
            some = places[begin : begin + LATENTS_AT_ONCE]
            f, w = regressor[:, some], rows[some]
            square = (w**2).sum(1)
            power = square * np.asarray(f.power(2).sum(axis=0)).ravel()
            shared = square * np.asarray(f.multiply(own[:, some]).sum(axis=0)).ravel()
            with np.errstate(divide="ignore", invalid="ignore"):
                found[f"reconstruction_{name}"][some] = _along(f, model.reconstructed, w) / power
                found[f"error_{name}"][some] = (_along(f, model.error, w) + shared) / power
    return Scaling(**{name: np.where(np.isfinite(values), values, np.nan) for name, values in found.items()})


def _along(f: csc_array, target: Float[np.ndarray, "n d"], w: Float[np.ndarray, "some d"]) -> np.ndarray:
    """Return sum over states of f_i <w_i, target>."""
    return np.asarray(((f.T @ target) * w).sum(1))


def _ratio(base: Float[np.ndarray, " m"], submitted: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    positive = submitted > 0
    return np.where(positive, base / np.where(positive, submitted, 1.0), np.nan)
