"""Self-test of a supplied dictionary: is it read as it was trained, or does another reading explain the states better?

Peers load a wrong pre-bias, norm, gate or layer without a word; the reconstruction is then poor and looks like a poor
dictionary. So every reading of a small grid is tried on the audit's own states, and the declared one must be the best.
Source: specification of `sae_features`, section 4, convention self-test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from checks.check import Refusal
from checks.sae_features.dictionary.readings import CHUNK, Cell, CellResult, gates_of, grid, share
from checks.sae_features.dictionary.value import Dictionary, LayerNorm, Scale, TokenRms, TopK

if TYPE_CHECKING:
    from jaxtyping import Float

EV_MARGIN = 0.002
"""Explained variance by which the declared reading may miss the best one (section 4)."""

ROWS_MIN = 4096
"""Held-out states of each layer (section 4)."""

L0_TOLERANCE = 0.20
"""Relative difference of the counted from the declared L0 (section 2, `l0_tolerance`)."""


@dataclass(frozen=True)
class Declared:
    """What the sender states beside the files."""

    l0: float | None = None
    """Mean active latents a token; None where nothing is stated."""
    l0_tolerance: float = L0_TOLERANCE


@dataclass(frozen=True)
class Confirmed:
    """The declared reading is as good as the best, explains something, and has the declared L0."""

    declared: CellResult
    best: CellResult
    cells: tuple[CellResult, ...]
    ev_with_special: float | None
    """EV of the declared reading on states that keep BOS and the like: another data set, never ranked."""


@dataclass(frozen=True)
class ConventionUnconfirmed(Confirmed):
    """Another reading is better, none explains anything, or the L0 is not the declared one."""

    causes: tuple[str, ...]
    """Of other_reading, no_variance_explained, l0."""

    def refusal(self) -> Refusal:
        """Return the refusal that names the best reading."""
        told = (*(f"cause:{cause}" for cause in self.causes), f"declared:{self.declared.cell}")
        return Refusal("convention_unconfirmed", (*told, f"best:{self.best.cell}"))


def confirm(
    dictionary: Dictionary,
    by_layer: Mapping[int, Float[torch.Tensor, "row d"]],
    declared: Declared,
    with_special: Float[torch.Tensor, "row d"] | None = None,
) -> Confirmed | ConventionUnconfirmed:
    """Try every reading of a dictionary and hold the declared one against the best.

    Args:
        dictionary: as its files declare it, before any folding.
        by_layer: held-out raw states without special positions, by layer counted from the declared site's; 0 is
            needed, -1 and 1 are given where the model has such a neighbour.
        declared: what else the sender states.
        with_special: states of the declared site with special positions kept.

    Raises:
        Refusal: `too_few_vectors`, naming the layer and its rows.
        ValueError: there is no layer 0, or states are not as wide as the dictionary.
    """
    _check_states(dictionary, by_layer)
    asked = _declared_cell(dictionary)
    k = _k(dictionary, by_layer[0], declared)
    cells = tuple(one for layer, x in sorted(by_layer.items()) for one in grid(dictionary, x, layer, k))
    mine = next(one for one in cells if one.cell == asked)
    best = max(cells, key=lambda one: one.ev)
    special = None if with_special is None else _ev_as_declared(dictionary, with_special)
    causes = []
    if best.ev - mine.ev > EV_MARGIN:
        causes.append("other_reading")
    if not mine.ev > 0:
        causes.append("no_variance_explained")
    if declared.l0 is not None and abs(mine.l0 - declared.l0) > declared.l0_tolerance * declared.l0:
        causes.append("l0")
    if causes:
        return ConventionUnconfirmed(mine, best, cells, special, tuple(causes))
    return Confirmed(mine, best, cells, special)


def _check_states(dictionary: Dictionary, by_layer: Mapping[int, Float[torch.Tensor, "row d"]]) -> None:
    if 0 not in by_layer:
        raise ValueError("the states of the declared site are needed: layer 0")
    for layer, x in by_layer.items():
        if x.ndim != 2 or x.shape[1] != dictionary.width:
            raise ValueError(f"states of layer {layer} have shape {tuple(x.shape)}, not [row, {dictionary.width}]")
        if len(x) < ROWS_MIN:
            raise Refusal("too_few_vectors", (f"layer:{layer:+d}", f"rows:{len(x)}"))


def _declared_cell(dictionary: Dictionary) -> Cell:
    names = {type(None): "none", Scale: "scale", TokenRms: "token_rms", LayerNorm: "layer_norm"}
    return Cell(0, dictionary.pre_bias, names[type(dictionary.norm)], gates_of(dictionary)[0])


def _k(dictionary: Dictionary, x: Float[torch.Tensor, "row d"], declared: Declared) -> int:
    """Return k of the topk gate: the file's, else the stated L0, else the L0 as declared; rounded, in 1..m."""
    if isinstance(dictionary.gate, TopK):
        return dictionary.gate.k
    l0 = declared.l0
    if l0 is None:
        parts = torch.split(x, max(1, CHUNK // dictionary.latents))
        l0 = sum(int(torch.count_nonzero(dictionary.encode(part))) for part in parts) / len(x)
    return min(max(round(l0), 1), dictionary.latents)


def _ev_as_declared(dictionary: Dictionary, x: Float[torch.Tensor, "row d"]) -> float:
    """Return the EV of the declared reading on any states, by the plain way."""
    square = sum(
        float((part - dictionary.reconstruct(part)).square().sum(dtype=torch.float64))
        for part in torch.split(x.to(dictionary.w_enc.dtype), max(1, CHUNK // dictionary.latents))
    )
    return share(square, float((x.double() - x.double().mean(dim=0)).square().sum()))
