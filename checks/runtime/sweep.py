"""One forward sweep for all checks: each text once, in batches by length, no deeper than anyone asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from checks.check import ModelFacts, Needs
from checks.memory import InMemoryEvidence
from checks.runtime.loading import Loaded
from checks.runtime.plan import Plan, Read, reads_of
from checks.runtime.tokens import NON_FINITE, Row, tokenise

if TYPE_CHECKING:
    from jaxtyping import Float32

BATCH_TEXTS = 64
"""Texts in a batch: on CPU larger batches gain nothing, and memory is bounded by the batch."""

BATCH_TOKENS = 8192
"""Tokens in a batch, padding included: at width 4096, 128 MiB a captured layer."""


def ignore(_done: int, _owed: int) -> None:
    """Take no notice of progress."""


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What the sweep captured, for all checks together."""

    places: Mapping[Read, int]
    """Row of each read in `states`."""
    states: Mapping[int, Float32[np.ndarray, "read width"]]
    """Residual stream after each layer asked for; lost reads are rows of NaN."""
    lost: Mapping[Read, str]
    texts: int
    """Texts that ran."""
    tokens: int
    """Tokens that ran, without padding."""
    passes: int
    """Forward passes."""


NOTHING = Swept(places={}, states={}, lost={}, texts=0, tokens=0, passes=0)
"""The sweep of an audit that needs none."""


def sweep(loaded: Loaded, plan: Plan, *, on_batch: Callable[[int, int], None] = ignore) -> Swept:
    """Run every text of the plan once and keep the states that were asked for.

    Args:
        loaded: the model.
        plan: the merged needs; must name at least one layer.
        on_batch: told (batches done, batches in all) after each batch.
    """
    rows, lost = tokenise(loaded.tokenizer, plan.reads, loaded.facts)
    places = {read: number for number, read in enumerate(plan.reads)}
    states = {layer: np.full((len(plan.reads), loaded.facts.width), np.nan, dtype=np.float32) for layer in plan.layers}
    batches = list(in_batches(rows))
    for done, batch in enumerate(batches, start=1):
        captured = _run(loaded, batch, plan.layers)
        for number, row in enumerate(batch):
            for read, position in row.reads:
                for layer in plan.layers:
                    states[layer][places[read]] = captured[layer][number, position]
        on_batch(done, len(batches))
    return Swept(
        places=places,
        states=states,
        lost=lost,
        texts=len(rows),
        tokens=sum(len(row.ids) for row in rows),
        passes=len(batches),
    )


def in_batches(rows: Sequence[Row]) -> Iterator[tuple[Row, ...]]:
    """Yield batches of neighbours in length, so that little is padded; the order is fixed by the texts alone."""
    batch: list[Row] = []
    for row in sorted(rows, key=lambda one: (len(one.ids), one.ids)):
        if batch and (len(batch) == BATCH_TEXTS or (len(batch) + 1) * len(row.ids) > BATCH_TOKENS):
            yield tuple(batch)
            batch = []
        batch.append(row)
    if batch:
        yield tuple(batch)


def _run(loaded: Loaded, batch: Sequence[Row], layers: Sequence[int]) -> Mapping[int, np.ndarray]:
    """Return [row, position, width] for each layer, of one padded forward pass."""
    import torch
    from transformer_lens.model_bridge.exceptions import StopAtLayerException

    longest = max(len(row.ids) for row in batch)
    # Padding stands on the right: a causal row never sees it, a bidirectional one masks it.
    ids = torch.zeros((len(batch), longest), dtype=torch.long)
    mask = torch.zeros((len(batch), longest), dtype=torch.long)
    for number, row in enumerate(batch):
        ids[number, : len(row.ids)] = torch.tensor(row.ids)
        mask[number, : len(row.ids)] = 1
    captured: dict[int, np.ndarray] = {}

    def capture(layer: int) -> Callable[..., None]:
        def hook(state: torch.Tensor, hook: Any) -> None:
            captured[layer] = state.detach().float().cpu().numpy().copy()
            if layer == layers[-1]:
                # The bridge's own way to stop, raised where the last state is in hand: `stop_at_layer` stops before
                # a block, so after the last block it would compute logits over the whole vocabulary.
                raise StopAtLayerException(state)

        return hook

    hooks = [(f"blocks.{layer}.hook_out", capture(layer)) for layer in layers]
    with torch.inference_mode():
        loaded.bridge.run_with_hooks(ids, attention_mask=mask, fwd_hooks=hooks)
    return captured


def evidence(
    facts: ModelFacts,
    *,
    check: str,
    seed: int,
    needs: Needs,
    swept: Swept,
    weights: Mapping[str, np.ndarray],
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
) -> InMemoryEvidence:
    """Return exactly what one check's needs named.

    A text whose states are not finite at any of the check's sites is lost (`non_finite`). Where only some layers are,
    the rows stay as they are: the check leaves out the layer, not the text.

    Args:
        facts: facts of the model.
        check: name of the check.
        seed: the audit's seed.
        needs: what the check asked for.
        swept: the sweep of all checks.
        weights: tensors that any check asked for.
        rows: parsed rows of all data roles.
    """
    reads = reads_of(needs) if needs.sites else ()
    places = np.array([swept.places[read] for read in reads], dtype=np.int64)
    states = {site: swept.states[int(site.removeprefix("resid."))][places] for site in needs.sites}
    lost = {text.id: swept.lost[read] for text, read in zip(needs.texts, reads, strict=False) if read in swept.lost}
    if states:
        finite = np.any([np.isfinite(state).all(axis=1) for state in states.values()], axis=0)
        lost |= {
            text.id: NON_FINITE
            for text, good in zip(needs.texts, finite, strict=True)
            if not good and text.id not in lost
        }
    return InMemoryEvidence(
        facts=facts,
        check=check,
        seed=seed,
        weights={name: weights[name] for name in needs.weights},
        activations=states,
        rows={role: rows[role] for role in needs.data_roles if role in rows},
        lost=lost,
    )
