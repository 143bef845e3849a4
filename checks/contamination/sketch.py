"""The mergeable result of scanning shards: what `conclude` reads, and the only thing that leaves a corpus (6.8).

A sketch holds integers and names, no text. Merging is commutative and associative: every score is a function of a
probe and a window key, equal keys add their copies, and the best `keep` of a probe are kept by (-score, key), so what
survives at the end ranked high enough in every part. Any order and any tree give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from assay import canonical

from checks.check import Refusal

SCHEMA = "assay-contamination-sketch/v1"

TIERS = ("exact", "near", "semantic", "template", "related")
"""Tiers of section 2, the strictest first."""

AnswerNear = Literal["no", "unknown", "yes"]

NEARNESS: tuple[AnswerNear, ...] = ("no", "unknown", "yes")
"""Of copies of one window, the nearest answer counts: it raises severity and must not depend on who came first."""

HIST_BINS = 4096
"""Bins of the histograms of c in 0..10 000 (6.8)."""

COSINE_ONE = 10_000
"""c of a cosine of one (6.5)."""

NAMED = 20
"""Shards or digests named in a refusal; the rest are counted (as rows of data roles, section 4)."""


class Entry(NamedTuple):
    """One match of a probe; in the order of the sketch's JSON."""

    score: int
    tier: str
    window_key: str
    """First 16 bytes of an HMAC of the matched text, hexadecimal."""
    copies: int
    shard: str
    """Digest of the shard with the first copy, by (shard, doc, start, end)."""
    doc: int
    """Number of the record in its shard, from 0."""
    start: int
    """First byte of the match in the record's text."""
    end: int
    answer_near: AnswerNear

    @property
    def rank(self) -> tuple[int, str]:
        """Return what entries of a probe are sorted by."""
        return -self.score, self.window_key


@dataclass(frozen=True)
class ShardCount:
    """What was read of one shard."""

    bytes: int
    """As stored."""
    docs: int
    words: int
    """Canonical tokens."""
    windows: int = 0
    embedded: int = 0
    bad: Mapping[str, int] = field(default_factory=dict)
    """Reason -> records."""
    other_language_words: int = 0
    origin: Literal["observed", "declared"] = "observed"
    """Whether a cell of the service saw the corpus, or a sketch was handed in."""


@dataclass(frozen=True)
class Sketch:
    """The result of one or more shards of one plan."""

    plan_sha256: str
    keep: int
    """Matches kept per probe: `keep` of the plan's parameters."""
    shards: Mapping[str, ShardCount]
    best: Mapping[int, tuple[Entry, ...]]
    """Probe -> its best entries, by `Entry.rank`."""
    plants: Mapping[int, tuple[Entry, ...]]
    """Plant -> hits of its probe in its planted copy only."""
    tiers: Mapping[int, Mapping[str, int]]
    """Probe -> matching windows per tier."""
    hist: Mapping[str, Mapping[int, int]]
    """Kind of probe -> bin of c -> windows; empty bins are left out."""
    contexts: Mapping[int, int] = field(default_factory=dict)
    """Probe -> how often its `context` was found; it never makes an item contaminated (6.4)."""

    def to_bytes(self) -> bytes:
        """Return the canonical JSON: equal sketches are equal bytes."""
        return canonical.dumps(
            {
                "schema": SCHEMA,
                "plan_sha256": self.plan_sha256,
                "keep": self.keep,
                "shards": {digest: _shard_json(count) for digest, count in self.shards.items()},
                "best": {str(probe): [list(entry) for entry in entries] for probe, entries in self.best.items()},
                "plants": {str(plant): [list(entry) for entry in entries] for plant, entries in self.plants.items()},
                "tiers": {str(probe): dict(counts) for probe, counts in self.tiers.items()},
                "hist": {kind: {str(b): n for b, n in bins.items()} for kind, bins in self.hist.items()},
                "contexts": {str(probe): n for probe, n in self.contexts.items()},
            }
        )


def empty(plan_sha256: str, keep: int) -> Sketch:
    """Return the sketch of no shard."""
    return Sketch(plan_sha256=plan_sha256, keep=keep, shards={}, best={}, plants={}, tiers={}, hist={})


def merge(a: Sketch, b: Sketch) -> Sketch:
    """Return the sketch of both sketches' shards.

    A sketch whose shards are all in the other adds nothing, so a shard that was scanned twice counts once.

    Raises:
        Refusal: `other_plan`, naming both plans; `shards_overlap`, naming shards that both hold while each holds others
            too; `shards_differ`, naming shards on which the two do not agree.
    """
    if (a.plan_sha256, a.keep) != (b.plan_sha256, b.keep):
        raise Refusal("other_plan", sorted((f"plan:{a.plan_sha256}", f"plan:{b.plan_sha256}")))
    shared = a.shards.keys() & b.shards.keys()
    if differing := [digest for digest in shared if a.shards[digest] != b.shards[digest]]:
        raise Refusal("shards_differ", _named(differing))
    if a.shards.keys() == b.shards.keys() and a != b:
        raise Refusal("shards_differ", _named(shared))
    if a.shards.keys() <= b.shards.keys():
        return b
    if b.shards.keys() <= a.shards.keys():
        return a
    if shared:
        raise Refusal("shards_overlap", _named(shared))
    return Sketch(
        plan_sha256=a.plan_sha256,
        keep=a.keep,
        shards={**a.shards, **b.shards},
        best=_merged_entries(a.best, b.best, a.keep),
        plants=_merged_entries(a.plants, b.plants, a.keep),
        tiers=_summed(a.tiers, b.tiers),
        hist=_summed(a.hist, b.hist),
        contexts=_added(a.contexts, b.contexts),
    )


def kept(entries: Iterable[Entry], keep: int) -> tuple[Entry, ...]:
    """Return the best `keep` of a probe's entries, copies of one window counted together."""
    by_key: dict[str, Entry] = {}
    for entry in entries:
        other = by_key.get(entry.window_key)
        by_key[entry.window_key] = entry if other is None else _joined(entry, other)
    return tuple(sorted(by_key.values(), key=lambda entry: entry.rank)[:keep])


def histogram_bin(c: int) -> int:
    """Return the bin of c = round(10 000 cosine); negative cosines share the first."""
    return min(max(c, 0) * HIST_BINS // (COSINE_ONE + 1), HIST_BINS - 1)


def _joined(a: Entry, b: Entry) -> Entry:
    first = min(a, b, key=lambda entry: (entry.shard, entry.doc, entry.start, entry.end))
    near = max(a.answer_near, b.answer_near, key=NEARNESS.index)
    return first._replace(copies=a.copies + b.copies, answer_near=near)


def _merged_entries(
    a: Mapping[int, tuple[Entry, ...]], b: Mapping[int, tuple[Entry, ...]], keep: int
) -> dict[int, tuple[Entry, ...]]:
    return {key: kept((*a.get(key, ()), *b.get(key, ())), keep) for key in a.keys() | b.keys()}


def _summed(a: Mapping[Any, Mapping[Any, int]], b: Mapping[Any, Mapping[Any, int]]) -> dict[Any, dict[Any, int]]:
    return {key: _added(a.get(key, {}), b.get(key, {})) for key in a.keys() | b.keys()}


def _added(a: Mapping[Any, int], b: Mapping[Any, int]) -> dict[Any, int]:
    return {key: a.get(key, 0) + b.get(key, 0) for key in a.keys() | b.keys()}


def _named(digests: Iterable[str]) -> tuple[str, ...]:
    names = sorted(digests)
    return (*(f"shard:{digest}" for digest in names[:NAMED]), f"total:{len(names)}")


def _shard_json(count: ShardCount) -> dict[str, Any]:
    return {
        "bytes": count.bytes,
        "docs": count.docs,
        "words": count.words,
        "windows": count.windows,
        "embedded": count.embedded,
        "bad": dict(count.bad),
        "other_language_words": count.other_language_words,
        "origin": count.origin,
    }
