"""How many rows go through the model at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from checks.runtime.tokens import Row

BATCH_TEXTS = 64
"""Texts in a batch: on CPU larger batches gain nothing, and memory is bounded by the batch."""

BATCH_TOKENS = 8192
"""Tokens in a batch, padding included: at width 4096, 128 MiB a captured layer."""

BATCH_SCORES = 512
"""Positions in a batch whose logits are wanted: 256 MiB at a vocabulary of 128 Ki."""


def in_batches(rows: Sequence[Row]) -> Iterator[tuple[Row, ...]]:
    """Yield batches of neighbours in length, so that little is padded; the order is fixed by the texts alone."""
    batch: list[Row] = []
    scored = 0
    for row in sorted(rows, key=lambda one: (len(one.ids), one.ids)):
        more = len({position for _, placed in row.scores for position, _ in placed.targets})
        full = len(batch) == BATCH_TEXTS or (len(batch) + 1) * len(row.ids) > BATCH_TOKENS
        if batch and (full or scored + more > BATCH_SCORES):
            yield tuple(batch)
            batch, scored = [], 0
        batch.append(row)
        scored += more
    if batch:
        yield tuple(batch)
