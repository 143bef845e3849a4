"""How a behaviour answers to more and less of latents, and to pushes along directions.

Specification of `sae_features`, section 8.3, last sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.sae_features.probes.behaviour import EditSettings, EditsRefused, edited_margins
from checks.sae_features.probes.coded import Code, Coded
from checks.sae_features.probes.interventions import unit

if TYPE_CHECKING:
    from jaxtyping import Float, Float64

    from checks.passages import Site
    from checks.sae_features.dictionary.grouped import Estimate
    from checks.sae_features.dictionary.value import Dictionary
    from checks.sae_features.probes.behaviour import Draw
    from checks.sae_features.probes.coded import Editable

FACTORS = (0.0, 0.5, 1.0, 2.0, 4.0)
"""What f_S is multiplied by."""

PUSHES = (0.25, 0.5, 1.0, 2.0)
"""Lengths of a push, in units of R = sqrt E|x - mu|^2."""

RANDOM_PUSHES = 16
"""Random directions that make the band."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Dose:
    """Mean margin in nats at each dose."""

    scaled: Mapping[float, Estimate]
    """By factor; 1 is unedited."""
    pushed: Mapping[str, Mapping[float, Estimate]]
    """"with" and "against" the direction that S writes, "diffmean" where one is given; by length."""
    random: Mapping[float, Float64[np.ndarray, " direction"]]
    """Mean margin under each random push, by length."""
    left_out: tuple[str, ...]
    """Ids of rows whose unedited margin has the wrong sign."""

    @property
    def band(self) -> Mapping[float, tuple[float, float]]:
        """Least and greatest margin under the random pushes, by length."""
        return {length: (float(margins.min()), float(margins.max())) for length, margins in self.random.items()}


def dose(
    site: Site,
    contrasts: Sequence[str],
    groups: Sequence[str],
    dictionary: Dictionary,
    latents: Sequence[int],
    masses: Float[np.ndarray, " m"],
    scale: float,
    settings: EditSettings,
    rng: Draw,
    *,
    editable: Editable,
    diffmean: Float[np.ndarray, " d"] | None = None,
) -> Dose | EditsRefused:
    """Return the margin with latents scaled, and with directions added at all editable tokens.

    Args:
        site: where the dictionary lives.
        contrasts: ids.
        groups: group of each contrast.
        dictionary: at this site.
        latents: S; its direction is that of the vector that ablating it removes on average.
        masses: E g_i, which weight the rows of S in that direction.
        scale: R = sqrt E|x - mu|^2 over usable states.
        settings: bootstrap draws.
        rng: "bootstrap" and "pushes" are drawn.
        editable: tokens that may be edited.
        diffmean: mean state where the concept is there less where it is not.
    """
    directions = _directions(dictionary, latents, masses, diffmean, rng("pushes"))
    coded = Coded(dictionary, editable, latents)
    factors = [factor for factor in FACTORS if factor != 1.0]
    changes = [coded.change(_scaled(latents, factor)) for factor in factors]
    changes += [coded.change(_pushed(length * scale * one)) for length in PUSHES for one in directions.values()]
    told = edited_margins(site, contrasts, groups, changes, settings, rng)
    if isinstance(told, EditsRefused):
        return told
    margins, shown = told
    scaled = dict(zip((1.0, *factors), margins[: 1 + len(factors)], strict=True))
    pushed = margins[1 + len(factors) :].reshape(len(PUSHES), len(directions), -1)
    named = [name for name in directions if isinstance(name, str)]
    return Dose(
        scaled={factor: shown.mean_of(scaled[factor]) for factor in FACTORS},
        pushed={
            name: {length: shown.mean_of(pushed[row, place]) for row, length in enumerate(PUSHES)}
            for place, name in enumerate(named)
        },
        random={length: pushed[row][len(named) :, shown.kept].mean(axis=1) for row, length in enumerate(PUSHES)},
        left_out=shown.left_out,
    )


def dose_tokens(contrasts: int, diffmean: bool = True) -> int:
    """Return the tokens that `dose` runs forward, for the tokens of all contrasts' prompts.

    Args:
        contrasts: tokens of all contrasts' prompts.
        diffmean: whether a DiffMean direction is pushed along too.
    """
    return contrasts * (len(FACTORS) + len(PUSHES) * (2 + diffmean + RANDOM_PUSHES))


def _directions(
    dictionary: Dictionary,
    latents: Sequence[int],
    masses: Float[np.ndarray, " m"],
    diffmean: Float[np.ndarray, " d"] | None,
    rng: np.random.Generator,
) -> Mapping[str | int, Float[np.ndarray, " d"]]:
    """Return unit directions: named ones first, then numbered random ones."""
    places = [int(one) for one in latents]
    rows = unit(dictionary.rows[places].detach().double().numpy())
    written = unit(np.asarray(masses, dtype=np.float64)[places] @ rows)
    named: dict[str | int, np.ndarray] = {"with": written, "against": -written}
    if diffmean is not None:
        named["diffmean"] = unit(np.asarray(diffmean, dtype=np.float64))
    return {**named, **dict(enumerate(unit(rng.standard_normal((RANDOM_PUSHES, dictionary.width)))))}


def _scaled(latents: Sequence[int], factor: float) -> Callable[[Code], Float[np.ndarray, "token d"]]:
    return lambda code: np.asarray(code.x + (factor - 1.0) * code.added(latents))


def _pushed(vector: Float[np.ndarray, " d"]) -> Callable[[Code], Float[np.ndarray, "token d"]]:
    return lambda code: np.asarray(code.x + vector)
