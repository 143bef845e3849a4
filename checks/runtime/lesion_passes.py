"""Forward passes in which units are held: many lesions at once, and never an earlier block than the first one held.

What runs before the first held unit is the same under every lesion, so it runs once for a batch of trials, and each
lesion begins right after it. Neurons reach the stream through one matrix alone, the last of their MLP, whose output is
added to it: where a lesion's first held units are neurons, their block is not run either, but the stream after it is
moved by what the matrix makes of (mean - activation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from checks.runtime import forward
from checks.runtime.batches import BATCH_SCORES, BATCH_TEXTS, BATCH_TOKENS
from checks.runtime.loading import Loaded
from checks.runtime.tokens import Placed

if TYPE_CHECKING:
    import torch
    from jaxtyping import Bool, Float, Float64, Int64

T = TypeVar("T")

LOGITS_IN_BATCH = BATCH_SCORES * 2**17
"""Logits of one pass: as many as a sweep's, in more positions where the vocabulary is small."""

HOOK_POINTS = {"mlp": "blocks.{l}.mlp.out.hook_in", "heads": "blocks.{l}.attn.o.hook_in"}
"""Where units are held: what the MLP's last matrix reads, [row, position, neuron], and what W_O reads, [row, position,
head, d_head] (`tests/checks/runtime/test_lesions.py` holds both against plain pre-hooks, each architecture)."""


@dataclass(frozen=True, order=True)
class Place:
    """A site, taken apart."""

    layer: int
    kind: str
    """"mlp" or "heads"."""

    @property
    def hook(self) -> str:
        """Name of the bridge's hook point."""
        return HOOK_POINTS[self.kind].format(l=self.layer)


Held = Mapping[Place, "Int64[np.ndarray, ' held']"]
"""Units that a lesion holds, at least one a place and each once."""

Means = Mapping[Place, "Float[torch.Tensor, 'unit *width']"]
"""What each unit is held at: a neuron's number, a head's vector."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of tokens that run together, and what is graded along them."""

    ids: Int64[torch.Tensor, "row position"]
    mask: Int64[torch.Tensor, "row position"]
    targets: forward.Targets
    """Those of a row are neighbours, rows in order."""
    starts: Int64[np.ndarray, " row"]
    """Number of each row's first target."""

    @classmethod
    def of(cls, rows: Sequence[Placed]) -> Batch:
        """Return the batch of some rows, padded on the right."""
        import torch

        ids, mask = forward.padded([row.stem for row in rows])
        owed = [(number, *target) for number, row in enumerate(rows) for target in row.targets]
        where, positions, tokens = torch.tensor(owed, dtype=torch.long).T
        counts = [len(row.targets) for row in rows]
        return cls(
            ids=ids,
            mask=mask,
            targets=forward.Targets(rows=where, positions=positions, tokens=tokens),
            starts=np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64),
        )


def entry(held: Held) -> int:
    """Return the first block that must run under a lesion: all before it, or their effect, are known."""
    first = min(place.layer for place in held)
    return first if Place(first, "heads") in held else first + 1


def batches_of(rows: Sequence[T], placed: Callable[[T], Placed]) -> Iterator[Sequence[T]]:
    """Yield neighbours among rows, which are sorted by length, that run together as they are.

    Args:
        rows: what runs.
        placed: returns a row's tokens.
    """
    start = scored = 0
    for number, row in enumerate(rows):
        more, length = len(placed(row).targets), len(placed(row).stem)
        full = number - start == BATCH_TEXTS or (number - start + 1) * length > BATCH_TOKENS
        if number > start and (full or scored + more > BATCH_SCORES):
            yield rows[start:number]
            start, scored = number, 0
        scored += more
    if rows:
        yield rows[start:]


def fold(
    batch: Batch, scored: Float64[np.ndarray, " graded"], likeliest: Bool[np.ndarray, " graded"]
) -> tuple[Bool[np.ndarray, "lesion row"], Float64[np.ndarray, "lesion row"]]:
    """Return whether each row is right, and its loss (nats), of every target's grade; lesion by lesion.

    A row that has no finite loss is wrong, and its loss NaN.
    """
    targets = len(batch.targets.tokens)
    counts = np.diff([*batch.starts, targets])
    loss = -np.add.reduceat(scored.reshape(-1, targets), batch.starts, axis=1) / counts
    right = np.logical_and.reduceat(likeliest.reshape(-1, targets), batch.starts, axis=1)
    finite = np.isfinite(loss)
    return right & finite, np.where(finite, loss, np.nan)


def under_lesions(
    loaded: Loaded, batch: Batch, lesions: Sequence[Held], means: Means
) -> tuple[Bool[np.ndarray, "lesion row"], Float64[np.ndarray, "lesion row"]]:
    """Return whether each row is right under each lesion, and its loss (nats).

    Args:
        loaded: the model; it has an output head.
        batch: rows to run.
        lesions: at least one; each holds something.
        means: what the units are held at.
    """
    import torch

    known = _known(loaded, batch, lesions)
    right = np.empty((len(lesions), len(batch.ids)), dtype=np.bool_)
    loss = np.empty(right.shape)
    entries = [entry(held) for held in lesions]
    with torch.inference_mode():
        for begin in sorted(set(entries)):
            numbers = [number for number, one in enumerate(entries) if one == begin]
            at_once = _at_once(loaded, batch, begin)
            for start in range(0, len(numbers), at_once):
                chunk = numbers[start : start + at_once]
                graded = _graded(loaded, batch, [lesions[number] for number in chunk], means, known, begin)
                right[chunk], loss[chunk] = fold(batch, *graded)
    return right, loss


def _at_once(loaded: Loaded, batch: Batch, begin: int) -> int:
    """Return how many lesions run in one pass."""
    wanted = len(batch.targets.tokens)
    tokens = wanted if begin == loaded.facts.layers else batch.ids.numel()
    return max(1, min(BATCH_TOKENS // tokens, LOGITS_IN_BATCH // (wanted * loaded.facts.vocabulary)))


def _known(loaded: Loaded, batch: Batch, lesions: Sequence[Held]) -> dict[str, torch.Tensor]:
    """Return what the lesions begin with, of one pass without any: streams and activations by hook point."""
    from transformer_lens.model_bridge.exceptions import StopAtLayerException

    known: dict[str, torch.Tensor] = {}
    begins = {entry(held) for held in lesions} - {0}
    moved = {min(held) for held in lesions if entry(held) > min(held).layer}
    names = [place.hook for place in sorted(moved)] + [_stream(begin) for begin in sorted(begins)]
    if not begins:
        return known
    last = _stream(max(begins))

    def keep(name: str) -> Callable[..., None]:
        def hook(state: torch.Tensor, **_: Any) -> None:
            known[name] = state.detach().clone()
            if name == last:
                raise StopAtLayerException(state)

        return hook

    forward.run(loaded, batch.ids, batch.mask, hooks=[(name, keep(name)) for name in names])
    return known


def _stream(begin: int) -> str:
    return f"blocks.{begin - 1}.hook_out"


def _graded(
    loaded: Loaded,
    batch: Batch,
    lesions: Sequence[Held],
    means: Means,
    known: Mapping[str, torch.Tensor],
    begin: int,
) -> tuple[Float64[np.ndarray, " graded"], Bool[np.ndarray, " graded"]]:
    """Run the blocks from `begin` on, every row under every lesion, and grade each target."""
    import torch

    targets, many = batch.targets, len(lesions)
    stream = None if begin == 0 else _moved(loaded, batch, lesions, means, known, begin)
    if stream is not None and begin == loaded.facts.layers:
        # Nothing mixes positions any more: those without a target are left out, each other is a row of its own.
        alone = torch.zeros((stream.shape[0], 1), dtype=torch.long)
        asked = forward.Targets(
            rows=torch.arange(len(alone)), positions=alone[:, 0], tokens=targets.tokens.repeat(many)
        )
        with entering(loaded, begin, stream):
            return forward.grade(loaded, alone, torch.ones_like(alone), hooks=[], targets=asked)
    offsets = torch.arange(many).repeat_interleave(len(targets.rows)) * len(batch.ids)
    asked = forward.Targets(
        rows=targets.rows.repeat(many) + offsets,
        positions=targets.positions.repeat(many),
        tokens=targets.tokens.repeat(many),
    )
    with entering(loaded, begin, stream):
        hooks = _holding(lesions, means, begin)
        return forward.grade(loaded, batch.ids.repeat(many, 1), batch.mask.repeat(many, 1), hooks=hooks, targets=asked)


def _moved(
    loaded: Loaded,
    batch: Batch,
    lesions: Sequence[Held],
    means: Means,
    known: Mapping[str, torch.Tensor],
    begin: int,
) -> Float[torch.Tensor, "lesion_row position width"]:
    """Return the stream that enters block `begin` under each lesion; after the last block, that of targets alone."""
    import torch

    place = Place(begin - 1, "mlp")
    stream, active = known[_stream(begin)], known.get(place.hook)
    if begin == loaded.facts.layers:
        where = (batch.targets.rows, batch.targets.positions)
        stream = stream[where].unsqueeze(1)
        active = None if active is None else active[where].unsqueeze(1)
    moved = stream.repeat(len(lesions), 1, 1).reshape(len(lesions), *stream.shape)
    if active is not None:
        reads = loaded.bridge.blocks[place.layer].mlp.W_out
        for number, held in enumerate(lesions):
            if place in held:
                units = torch.from_numpy(held[place])
                moved[number] += (means[place][units] - active[..., units]) @ reads[units]
    return moved.flatten(0, 1)


def _holding(lesions: Sequence[Held], means: Means, begin: int) -> list[forward.Hook]:
    """Return a hook for each place from block `begin` on at which one of the lesions holds units."""
    import torch

    def holding(place: Place) -> Callable[..., torch.Tensor]:
        mean = means[place]
        held = torch.zeros((len(lesions), len(mean)), dtype=torch.bool)
        for number, one in enumerate(lesions):
            if place in one:
                held[number, torch.from_numpy(one[place])] = True
        mask = held.reshape(len(lesions), 1, 1, len(mean), *[1] * (mean.ndim - 1))

        def hook(state: torch.Tensor, **_: Any) -> torch.Tensor:
            whole = state.reshape(len(lesions), -1, *state.shape[1:])
            return torch.where(mask, mean, whole).reshape(state.shape)

        return hook

    places = sorted({place for one in lesions for place in one if place.layer >= begin})
    return [(place.hook, holding(place)) for place in places]


@contextmanager
def entering(loaded: Loaded, begin: int, stream: torch.Tensor | None) -> Iterator[None]:
    """Let the blocks before `begin` do nothing, the last of them but hand on the stream.

    The bridge's own `start_at_layer` runs the earlier blocks and throws away what they say.
    """
    blocks = list(loaded.bridge.blocks)[:begin]

    def passing(given: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return given

    def handing(*_: Any, **__: Any) -> torch.Tensor:
        assert stream is not None, "blocks are left out only where their effect is known"
        return stream

    try:
        for number, block in enumerate(blocks):
            block.__dict__["forward"] = handing if number == begin - 1 else passing
        yield
    finally:
        for block in blocks:
            block.__dict__.pop("forward", None)
