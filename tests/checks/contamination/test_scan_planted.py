"""Planting costs no more than it must: of a copy only what touches the plant is embedded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from checks.contamination.planning import Asked
from checks.contamination.reading import batches
from checks.contamination.scan import Scanner
from checks.contamination.scan_planted import Copies
from tests.checks.contamination.audited import WordEncoder, benchmark_rows, corpus_file, docstrings, prepared


class _Counting(WordEncoder):
    windows = 0

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.windows += len(texts)
        return super().embed(texts)


def test_a_planted_copy_is_embedded_only_where_the_plant_stands(tmp_path: Path) -> None:
    """Windows of other lengths, or beside the plant, can give no hit that counts, and cost as much as the corpus."""
    rows, _ = benchmark_rows(8)
    path = corpus_file(tmp_path, docstrings(1200))
    plan = prepared(path, rows, asked=Asked(siblings=2))
    (shard,) = plan.plan.shards
    copies = Copies(plan.plan, shard.ordinal)
    for told in (one for batch in batches(shard) for one in batch):
        copies.offer(told.number, told.text or "", len((told.text or "").split()))
    encoder = _Counting()
    scanner = Scanner(plan.plan, encoder=encoder)
    texts = [(text, None) for text in copies.texts()]
    found, counts = [], []
    for spans in (None, copies.spans()):
        encoder.windows = 0
        hits = [copies.touching(place, one.hits) for place, one in enumerate(scanner.everything(texts, spans))]
        found.append([[hit for _, hit in told] for told in hits])
        counts.append(encoder.windows)
    assert found[0] == found[1]
    assert sum(map(bool, found[1])) > len(texts) / 2
    assert 0 < counts[1] < counts[0] / 2
