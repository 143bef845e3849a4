"""The sketch of a shard in the making: hits become entries, and what was read is counted (contamination, 6.8)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from checks.contamination.documents import Document, Record
from checks.contamination.plan import PARTS, Plan
from checks.contamination.scan_found import Found, Hit
from checks.contamination.shards import Shard, ShardFailed
from checks.contamination.sketch import Entry, ShardCount, Sketch, kept

PRUNE = 8
"""A probe's matches are cut back to `keep` when they are so many times as many."""


class Sketching:
    """A sketch in the making."""

    def __init__(self, shard: Shard, plan: Plan, origin: Literal["observed", "declared"]) -> None:
        self._shard, self._plan, self._origin = shard, plan, origin
        self._digest = shard.digest
        self.docs = self.words = self._other = self._windows = self._embedded = 0
        self._hist: dict[str, Counter[int]] = {}
        self._plants: dict[int, tuple[Entry, ...]] = {}
        self._bad: Counter[str] = Counter()
        self._first_bad: int | None = None
        self._best: dict[int, list[Entry]] = {}
        self._tiers: dict[int, Counter[str]] = {}
        self._contexts: Counter[int] = Counter()
        self._before: tuple[int, set[tuple[int, int]]] = (-1, set())

    def record(self, told: Record) -> None:
        """Count a record as read."""
        self.docs += 1
        if told.bad is not None:
            self._bad[told.bad] += 1
            self._first_bad = told.number if self._first_bad is None else self._first_bad

    def document(self, held: Document, found: Found) -> None:
        """Take what was found in a document of a record."""
        self.words += found.words
        self._other += 0 if found.english else found.words
        self._contexts.update(found.contexts)
        self._windows += found.windows
        self._embedded += found.embedded
        for (kind, place), count in found.cosines.items():
            self._hist.setdefault(kind, Counter())[place] += count
        if self._before[0] != held.number:
            self._before = (held.number, set())
        for hit in found.hits:
            start, end = held.offset + hit.start, held.offset + hit.end
            # Two pieces of a long text share 400 words: what stands there is one match.
            if (hit.probe, start) in self._before[1]:
                continue
            self._before[1].add((hit.probe, start))
            entry = self._entry(hit, held.number, start, end)
            rows = self._best.setdefault(hit.probe, [])
            rows.append(entry)
            if len(rows) > PRUNE * self._plan.parameters.keep:
                # What ranks low now ranks low at the end: its key's score does not change.
                rows[:] = kept(rows, self._plan.parameters.keep)
            self._tiers.setdefault(hit.probe, Counter())[hit.tier] += 1

    def planted(self, plant: int, hits: Sequence[tuple[int, Hit]]) -> None:
        """Take what was found of a planted copy, as `Copies.touching` tells it."""
        rows = [self._entry(hit, number, hit.start, hit.end) for number, hit in hits]
        if rows:
            self._plants[plant] = kept(rows, self._plan.parameters.keep)

    def _entry(self, hit: Hit, number: int, start: int, end: int) -> Entry:
        return Entry(hit.score, hit.tier, hit.window_key, 1, self._digest, number, start, end, hit.answer_near)

    def done(self) -> Sketch:
        """Return the sketch.

        Raises:
            ShardFailed: the shard holds too many bad records.
        """
        keep, bad = self._plan.parameters.keep, sum(self._bad.values())
        if bad * PARTS > self._plan.parameters.max_bad_share * self.docs:
            raise ShardFailed("bad_records", f"{self._shard.file.name}:record:{self._first_bad}")
        count = ShardCount(
            bytes=self._shard.stored,
            docs=self.docs,
            words=self.words,
            windows=self._windows,
            embedded=self._embedded,
            bad=dict(self._bad),
            other_language_words=self._other,
            origin=self._origin,
        )
        return Sketch(
            plan_sha256=self._plan.plan_sha256,
            keep=keep,
            shards={self._digest: count},
            best={probe: kept(rows, keep) for probe, rows in self._best.items()},
            plants=self._plants,
            tiers={probe: dict(counts) for probe, counts in self._tiers.items()},
            hist={kind: dict(bins) for kind, bins in self._hist.items()},
            contexts=dict(self._contexts),
        )
