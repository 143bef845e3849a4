"""Forward passes over a batch of passages: states at a site, and the stream that the head reads, with states replaced.

What runs before a site is the same whatever stands at it, so it runs once for a batch: each replaced pass begins at the
block that reads the site, and the pass that reads states ends where the last of them is in hand. The head is left to
whoever asks, a few positions at a time: logits at every position of a batch would be far larger than the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from checks.errors import NotAskedFor
from checks.passages import Change, States
from checks.runtime.forward import Hook
from checks.runtime.lesion_passes import entering
from checks.runtime.loading import Loaded
from checks.runtime.plan import PassageSite

if TYPE_CHECKING:
    import torch
    from jaxtyping import Bool, Float, Float32, Int64

HOOKS = {
    "embed": "blocks.0.hook_in",
    "resid": "blocks.{l}.hook_out",
    "mlp_out": "blocks.{l}.mlp.hook_out",
    "attn_z": "blocks.{l}.attn.o.hook_in",
}
"""Where sites lie in the bridge (`tests/checks/runtime/test_sites.py` holds each against plain transformers)."""

FINAL = "unembed.hook_in"
"""What the head reads: the stream after the final norm."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Sequences of tokens that run together, padded on the right."""

    ids: Int64[torch.Tensor, "row position"]
    mask: Int64[torch.Tensor, "row position"]
    rows: Int64[torch.Tensor, " token"]
    """Row of each real token; tokens of a row are neighbours, rows in order."""
    positions: Int64[torch.Tensor, " token"]
    lengths: Int64[np.ndarray, " row"]

    @classmethod
    def of(cls, tokens: Int64[np.ndarray, " token"], lengths: Int64[np.ndarray, " row"]) -> Batch:
        """Return the batch of sequences that lie end to end; each has at least one token."""
        import torch

        rows = np.repeat(np.arange(len(lengths)), lengths)
        positions = np.arange(len(tokens)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        ids = np.zeros((len(lengths), int(lengths.max())), dtype=np.int64)
        mask = np.zeros_like(ids)
        ids[rows, positions] = tokens
        mask[rows, positions] = 1
        return cls(
            ids=torch.from_numpy(ids),
            mask=torch.from_numpy(mask),
            rows=torch.from_numpy(rows),
            positions=torch.from_numpy(positions),
            lengths=lengths,
        )


@dataclass(frozen=True, eq=False)
class Unedited:
    """One pass as the model is."""

    states: Float32[torch.Tensor, "row position width"]
    """At the site."""
    before: Float32[torch.Tensor, "row position d"] | None
    """Stream that enters the block from which an edited pass runs; None where that is the first."""
    final: Float32[torch.Tensor, "row position d"] | None
    """What the head reads; None where it was not asked for."""


def enters(site: PassageSite) -> int:
    """Return the first block that must run again when a state at the site is replaced."""
    return site.layer + 1 if site.kind == "resid" else site.layer


def unedited(loaded: Loaded, site: PassageSite, batch: Batch, *, final: bool) -> Unedited:
    """Run a batch as the model is.

    Args:
        loaded: the model.
        site: where states are read.
        batch: what runs.
        final: whether the stream that the head reads is wanted too; else the pass ends at the site.
    """
    import torch
    from transformer_lens.model_bridge.exceptions import StopAtLayerException

    own, begin = HOOKS[site.kind].format(l=site.layer), enters(site)
    stream = f"blocks.{begin - 1}.hook_out" if final and begin and site.kind != "resid" else None
    names = [name for name in (stream, own, FINAL if final else None) if name is not None]
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(state: torch.Tensor, **_: Any) -> None:
            seen[name] = state.detach().clone()
            if name == names[-1]:
                raise StopAtLayerException(state)

        return hook

    with torch.no_grad():
        hooks = [(name, keep(name)) for name in names]
        loaded.bridge.run_with_hooks(batch.ids, attention_mask=batch.mask, fwd_hooks=hooks)
    states = seen[own].flatten(2)
    return Unedited(
        states=states,
        before=states if site.kind == "resid" else None if stream is None else seen[stream],
        final=seen.get(FINAL),
    )


def final_with(
    loaded: Loaded,
    site: PassageSite,
    batch: Batch,
    first: Unedited,
    states: Float32[torch.Tensor, "row position width"],
) -> Float32[torch.Tensor, "row position d"]:
    """Return what the head reads where `states` stand at the site; gradients flow to them where they are enabled.

    Args:
        loaded: the model.
        site: where the states stand.
        batch: what runs.
        first: the batch unedited, with its final stream.
        states: what stands there, padding included.
    """
    from transformer_lens.model_bridge.exceptions import StopAtLayerException

    found: list[torch.Tensor] = []

    def last(state: torch.Tensor, **_: Any) -> None:
        found.append(state)
        raise StopAtLayerException(state)

    def put(state: torch.Tensor, **_: Any) -> torch.Tensor:
        return states.reshape(state.shape)

    own = HOOKS[site.kind].format(l=site.layer)
    hooks: list[Hook] = [(own, put)] if site.kind != "resid" else []
    stream = states if site.kind == "resid" else first.before
    with entering(loaded, enters(site), stream):
        loaded.bridge.run_with_hooks(batch.ids, attention_mask=batch.mask, fwd_hooks=[*hooks, (FINAL, last)])
    return found[0]


def changed(
    change: Change, number: int, given: States, batch: Batch, states: Float32[torch.Tensor, "row position width"]
) -> Float32[torch.Tensor, "row position width"] | None:
    """Return the states of a batch with a change made; None where it changes nothing.

    Args:
        change: takes the states of real tokens alone; it may write into them, for they are its own copy.
        number: of the change among those asked, told where it is wrong.
        given: what it takes.
        batch: where the tokens stand.
        states: unedited, padding included.

    Raises:
        NotAskedFor: what it returns has another shape, or is not finite.
    """
    import torch

    own = given.vectors
    made = np.asarray(change(replace(given, vectors=own.copy())))
    if made.shape != own.shape:
        raise NotAskedFor(f"change {number} returned shape {made.shape} for states of shape {own.shape}")
    made = np.asarray(made, dtype=np.float32)
    if not np.isfinite(made[_differ(made, own)]).all():
        raise NotAskedFor(f"change {number} returned numbers that are not finite")
    if np.array_equal(made, own, equal_nan=True):
        return None
    put = states.clone()
    put[batch.rows, batch.positions] = torch.from_numpy(np.ascontiguousarray(made))
    return put


def _differ(
    made: Float[np.ndarray, "token width"], own: Float[np.ndarray, "token width"]
) -> Bool[np.ndarray, " token"]:
    """Return which tokens were edited: the model's own states may be anything."""
    same: np.ndarray = ((made == own) | (np.isnan(made) & np.isnan(own))).all(axis=1)
    return ~same


def batches_of(lengths: Sequence[int], tokens: int) -> list[tuple[int, int]]:
    """Return [begin, end) of neighbours that run together: at most so many tokens, padding included, or one row."""
    found: list[tuple[int, int]] = []
    begin = longest = 0
    for number, length in enumerate(lengths):
        if number > begin and max(longest, length) * (number - begin + 1) > tokens:
            found.append((begin, number))
            begin, longest = number, 0
        longest = max(longest, length)
    return [*found, (begin, len(lengths))] if len(lengths) else found
