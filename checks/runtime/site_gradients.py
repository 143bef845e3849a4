"""Gradients with respect to the states at a site, through the frozen model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from checks.passages import Gradients, States
from checks.runtime.loading import Loaded
from checks.runtime.plan import PassageSite
from checks.runtime.site_batches import Follows
from checks.runtime.site_outputs import Reference, margin_pull
from checks.runtime.site_passes import Batch, Unedited, final_with

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Float32, Float64, Int64


def of_margins(
    loaded: Loaded,
    site: PassageSite,
    batch: Batch,
    first: Unedited,
    put: Float32[torch.Tensor, "row position width"] | None,
    ends: tuple[torch.Tensor, torch.Tensor],
    answers: Int64[torch.Tensor, "contrast 2"],
) -> tuple[Float64[np.ndarray, " row"], Float[np.ndarray, "token width"]]:
    """Return each row's margin (nats) and its gradient at every token.

    Args:
        loaded: the model, its weights frozen.
        site: where the states stand.
        batch: what runs.
        first: the batch unedited, with its final stream.
        put: what stands at the site; None is what came there.
        ends: row and position of each prompt's last token.
        answers: tokens of target and foil.
    """
    import torch

    leaf, final = _through(loaded, site, batch, first, put)
    value, slope = margin_pull(loaded.bridge.unembed, final.detach()[ends], answers)
    gradient = torch.autograd.grad(final[ends], leaf, grad_outputs=slope)[0]
    return value, gradient[batch.rows, batch.positions].numpy()


def of_divergence(
    loaded: Loaded,
    site: PassageSite,
    batch: Batch,
    first: Unedited,
    put: Float32[torch.Tensor, "row position width"] | None,
    follows: Follows,
) -> tuple[Float64[np.ndarray, " row"], Float[np.ndarray, "token width"]]:
    """Return each row's sum of KL(unedited || edited) (nats) over scored tokens, and its gradient at every token.

    Args:
        loaded: the model, its weights frozen.
        site: where the states stand.
        batch: what runs.
        first: the batch unedited, with its final stream.
        put: what stands at the site; None is what came there, where both are exactly 0.
        follows: the tokens that have a next one.
    """
    import torch

    followed, following, scored = follows
    if put is None or not len(followed):
        return np.zeros(len(batch.lengths)), np.zeros((len(batch.rows), first.states.shape[-1]), dtype=np.float32)
    assert first.final is not None, "the unedited pass was asked for what the head reads"
    places = batch.rows[followed], batch.positions[followed]
    leaf, final = _through(loaded, site, batch, first, put)
    reference = Reference(loaded.bridge.unembed, first.final[places], following)
    value, slope = reference.pull(final.detach()[places], torch.from_numpy(scored))
    gradient = torch.autograd.grad(final[places], leaf, grad_outputs=slope)[0]
    of_rows = np.bincount(places[0].numpy(), weights=value, minlength=len(batch.lengths))
    return of_rows, gradient[batch.rows, batch.positions].numpy()


def nothing(width: int, value: Float64[np.ndarray, " passage"]) -> Gradients:
    """Return the gradients of a batch of which nothing ran."""
    none = np.empty(0, dtype=np.int64)
    empty = np.empty((0, width), dtype=np.float32)
    no = np.empty(0, dtype=np.bool_)
    states = States(vectors=empty, passage=none, position=none, token=none, special=no, read=no)
    return Gradients(states=states, gradient=empty, value=value)


def _through(
    loaded: Loaded,
    site: PassageSite,
    batch: Batch,
    first: Unedited,
    put: Float32[torch.Tensor, "row position width"] | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the states that gradients are taken of, and what the head reads after them."""
    import torch

    leaf = (first.states if put is None else put).detach().clone().requires_grad_(True)
    with torch.enable_grad():
        return leaf, final_with(loaded, site, batch, first, leaf)
