"""Forward passes in which a state is shifted: many at once, and never more of a text than the shift can change.

In a causal model a shift at position p changes nothing before p. So the keys and values of the tokens before p are
computed once for all edits of a batch that share them, and each edited pass runs from p on: at the usual read position,
the last token, that is one token and not the whole text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from checks.check import Edit, Needs
from checks.errors import NotAskedFor
from checks.runtime import forward
from checks.runtime.batches import BATCH_SCORES, BATCH_TEXTS, BATCH_TOKENS
from checks.runtime.loading import Loaded
from checks.runtime.plan import Score, layer_of, reads_of, scores_of
from checks.runtime.tokens import Placed, share

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Int64
    from transformers import DynamicCache

    from checks.runtime.sweep import Swept


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """One row to run under one edit."""

    ids: tuple[int, ...]
    position: int
    """Where the shift is added; the pass begins here."""
    layer: int
    add: Float[np.ndarray, " width"]
    asked: tuple[tuple[tuple[int, int], Placed], ...]
    """What is scored along it, with its place in the answer: (edit, ask)."""

    @property
    def prefix(self) -> tuple[int, ...]:
        """The tokens that the shift cannot change."""
        return self.ids[: self.position]


class Replayer:
    """Answers the edits of one check, within its budget; implements `checks.memory.Replay`.

    A control that measures again on evidence of this model draws on the same budget.

    Args:
        loaded: the model, alive as long as edits may come.
        needs: what the check asked for.
        swept: the sweep in which its texts and continuations took part.
    """

    def __init__(self, loaded: Loaded, needs: Needs, swept: Swept) -> None:
        self._loaded = loaded
        self._left = needs.replay
        self._sites = frozenset(needs.sites)
        placed = {score: one for row in swept.rows for score, one in row.scores}
        at = {read: (row.ids, position) for row in swept.rows for read, position in row.reads}
        self._after = {text.id: text.text for text in needs.texts}
        self._at = {text.id: at.get(read) for text, read in zip(needs.texts, reads_of(needs), strict=True)}
        self._score = dict(zip((one.id for one in needs.continuations), scores_of(needs), strict=True))
        self._placed = {score: placed[score] for score in self._score.values() if score in placed}
        self._unedited = {score: swept.scores[score] for score in self._placed if score in swept.scores}

    def __call__(self, edits: Sequence[Edit]) -> list[Float[np.ndarray, " ask"]]:
        """Return, for each edit, the log-probabilities (nats) of the continuations that it asks.

        A continuation or a row that was lost in the sweep is NaN here.

        Raises:
            NotAskedFor: more edits than the needs declared, an unknown row or site, a continuation of another text, or
                a shift that is not as wide as the model.
        """
        for edit in edits:
            self._check(edit)
        if len(edits) > self._left:
            raise NotAskedFor(f"{len(edits)} edits, and {self._left} are left of what the needs declared")
        self._left -= len(edits)
        answers = [np.full(len(edit.ask), np.nan) for edit in edits]
        jobs = [job for number, edit in enumerate(edits) for job in self._jobs(number, edit, answers[number])]
        for batch in _in_batches(jobs):
            for (edit_number, ask), value in _run(self._loaded, batch).items():
                answers[edit_number][ask] = value
        return answers

    def _check(self, edit: Edit) -> None:
        if edit.site not in self._sites:
            raise NotAskedFor(f"an edit at {edit.site!r}, which is not among the sites that the needs name")
        if edit.row not in self._after:
            raise NotAskedFor(f"an edit of {edit.row!r}, which is no text of the needs")
        strange = [ask for ask in edit.ask if ask not in self._score]
        if strange:
            raise NotAskedFor(f"an edit asks {strange[0]!r}, which is no continuation of the needs")
        other = [ask for ask in edit.ask if self._score[ask].after != self._after[edit.row]]
        if other:
            raise NotAskedFor(f"an edit of {edit.row!r} asks {other[0]!r}, which stands after another text")
        if np.shape(edit.add) != (self._loaded.facts.width,):
            raise NotAskedFor(f"a shift of shape {np.shape(edit.add)}: the model is {self._loaded.facts.width} wide")

    def _jobs(self, number: int, edit: Edit, answer: Float[np.ndarray, " ask"]) -> Iterator[Job]:
        """Yield the rows to run for one edit; what needs no pass is answered at once."""
        at = self._at[edit.row]
        if at is None:
            return
        position, layer = at[1], layer_of(edit.site, self._loaded.facts)
        last = layer == self._loaded.facts.layers - 1
        waiting: dict[Score, list[int]] = {}
        for ask, name in enumerate(edit.ask):
            score = self._score[name]
            if score not in self._unedited:
                continue
            if last and position < self._placed[score].start - 1:
                # After the last block a state is read by the head at its own position alone, and none is scored here.
                answer[ask] = self._unedited[score]
            else:
                waiting.setdefault(score, []).append(ask)
        add = np.asarray(edit.add, dtype=np.float32)
        for row in share((), {score: self._placed[score] for score in waiting}):
            asked = tuple(((number, ask), placed) for score, placed in row.scores for ask in waiting[score])
            yield Job(ids=row.ids, position=position, layer=layer, add=add, asked=asked)


def _in_batches(jobs: Sequence[Job]) -> Iterator[tuple[Job, ...]]:
    """Yield batches of jobs that are alike in length behind the shift and before it, whatever their rows and layers."""
    batch: list[Job] = []
    scored = longest = behind = 0
    for job in sorted(jobs, key=lambda one: (len(one.ids) - one.position, one.position, one.ids)):
        more = len({position for _, placed in job.asked for position, _ in placed.targets})
        behind = max(behind, len(job.ids) - job.position)
        longest = max(longest, job.position)
        full = len(batch) == BATCH_TEXTS or (len(batch) + 1) * (longest + behind) > BATCH_TOKENS
        if batch and (full or scored + more > BATCH_SCORES):
            yield tuple(batch)
            batch, scored, longest, behind = [], 0, job.position, len(job.ids) - job.position
        batch.append(job)
        scored += more
    if batch:
        yield tuple(batch)


def _run(loaded: Loaded, batch: Sequence[Job]) -> dict[tuple[int, int], float]:
    """Return what the jobs of one batch ask, by (edit, ask)."""
    import torch

    ids, mask = forward.padded([job.ids[job.position :] for job in batch])
    positions = torch.tensor([[job.position] for job in batch]) + torch.arange(ids.shape[1])
    more: dict[str, Any] = {"position_ids": positions * mask}
    if any(job.position for job in batch):
        cache, seen = _before(loaded, batch)
        more["past_key_values"] = cache
        mask = torch.cat([seen, mask], dim=1)
    owed = [
        (place, forward.Wanted(row=number, position=position - job.position, token=token))
        for number, job in enumerate(batch)
        for place, placed in job.asked
        for position, token in placed.targets
    ]
    found = forward.run(loaded, ids, mask, hooks=_shifts(batch), wanted=[wanted for _, wanted in owed], **more)
    sums: dict[tuple[int, int], float] = {}
    for (place, _), value in zip(owed, found, strict=True):
        sums[place] = sums.get(place, 0.0) + float(value)
    return sums


def _before(loaded: Loaded, batch: Sequence[Job]) -> tuple[DynamicCache, Int64[torch.Tensor, "job position"]]:
    """Return the keys and values of each job's prefix, and the mask of what is padding in them.

    A prefix of no tokens is one masked token.
    """
    import torch
    from transformer_lens.model_bridge.exceptions import StopAtLayerException
    from transformers import DynamicCache

    prefixes = sorted({job.prefix for job in batch})
    ids, mask = forward.padded(prefixes)
    # A row in which every key is masked has no softmax; it may see padding here, and no job looks at what it holds.
    visible = mask.clone()
    visible[:, 0] = 1
    cache = DynamicCache(config=loaded.bridge.original_model.config)

    def stop(state: torch.Tensor, **_: Any) -> None:
        raise StopAtLayerException(state)

    last = f"blocks.{loaded.facts.layers - 1}.hook_out"
    forward.run(loaded, ids, visible, hooks=[(last, stop)], past_key_values=cache)
    of_job = torch.tensor([prefixes.index(job.prefix) for job in batch])
    cache.batch_select_indices(of_job)
    return cache, mask[of_job]


def _shifts(batch: Sequence[Job]) -> list[forward.Hook]:
    """Return one hook a layer, which shifts the first position of the rows whose edit stands there."""
    import torch

    def shift(layer: int) -> Callable[..., Any]:
        rows = torch.tensor([number for number, job in enumerate(batch) if job.layer == layer])
        add = torch.from_numpy(np.stack([job.add for job in batch if job.layer == layer]))

        def hook(state: torch.Tensor, **_: Any) -> torch.Tensor:
            shifted = state.clone()
            shifted[rows, 0] += add
            return shifted

        return hook

    return [(f"blocks.{layer}.hook_out", shift(layer)) for layer in sorted({job.layer for job in batch})]
