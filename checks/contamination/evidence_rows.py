"""The tables of a conclusion: flagged items, recall, what is not searched for (contamination, 9.1, 9.3).

No row holds text of a corpus: a match is told by tier, score and, where a key and the corpus were given, a commitment.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from checks.contamination.commitments import Place, commit_source
from checks.contamination.conclude_flags import Flagged
from checks.contamination.plan import NAMED_MIN
from checks.contamination.recall import PlantOutcome
from checks.contamination.sketch import Entry
from checks.role_rows import safe

ROWS_MAX = 2000
"""Flagged items that are told one by one; the rest are counted (9.1)."""

SOURCES_MAX = 64
"""Sources that are told one by one, as many as a plot has rows; the rest are one row."""

NO_SOURCE, OTHERS = "no_source", "others"
"""Rows of `sources_by_hits` that are no source."""


@dataclass(frozen=True)
class FlaggedRow:
    """One flagged item."""

    item: str
    """benchmark/item."""
    tier: str
    score: int
    p: float | None
    """None of an item that is flagged by identity and has no null."""
    q_value: float | None
    copies: int
    """Of the best match's wording."""
    answer_near: str
    identity: bool
    entry: Entry
    """Where the best match lies; read by commitments, told by no output."""
    length: int
    """Bytes of the match."""
    probe: int = -1
    """Of the item, in the plan."""


@dataclass(frozen=True)
class FlaggedTable:
    """Flagged items of all benchmarks."""

    rows: tuple[FlaggedRow, ...]
    short: int
    """Flagged items under `NAMED_MIN` tokens: counted only."""
    more: int
    """Flagged items beyond `ROWS_MAX`."""


@dataclass(frozen=True)
class SourceRow:
    """A source of the corpus, by how many matches of flagged items stand in it."""

    source: str
    """In the name alphabet; a keyed hash of it; `NO_SOURCE`, `OTHERS`."""
    matches: int
    """Wordings."""
    copies: int


@dataclass(frozen=True)
class NotSearched:
    """A form of copy that no scan looks for."""

    source: str
    planted: int
    found: int


def flagged_table(told: Iterable[Flagged]) -> FlaggedTable:
    """Return the items that leaked by a match of a gating tier, best scores first."""
    rows: list[FlaggedRow] = []
    short = 0
    for one in told:
        probes = [probe for group in one.groups for probe in group.probes]
        for at in np.flatnonzero(one.leaks()):
            entry, fact = one.best[at], one.facts[at]
            if entry is None:
                continue
            if fact.tokens < NAMED_MIN:
                short += 1
                continue
            rows.append(
                FlaggedRow(
                    item=fact.name,
                    tier=entry.tier,
                    score=entry.score,
                    p=_number(one.p[at]),
                    q_value=_number(one.q_values[at]),
                    copies=entry.copies,
                    answer_near=entry.answer_near,
                    identity=bool(one.identity[at]),
                    entry=entry,
                    length=entry.end - entry.start,
                    probe=probes[at],
                )
            )
    rows.sort(key=lambda row: (-row.score, row.item))
    return FlaggedTable(tuple(rows[:ROWS_MAX]), short, max(0, len(rows) - ROWS_MAX))


def not_searched(misses: Sequence[PlantOutcome], gating: Collection[str]) -> tuple[NotSearched, ...]:
    """Return how many copies of each form were planted, and how many happened to be found at a gating tier."""
    told: dict[str, list[bool]] = {}
    for one in misses:
        told.setdefault(one.source, []).append(one.tier in gating)
    return tuple(NotSearched(source, len(hits), sum(hits)) for source, hits in sorted(told.items()))


def row_json(row: FlaggedRow, commitment: str | None, revealed: str | None = None) -> Mapping[str, object]:
    """Return a row as it is told."""
    told: dict[str, object] = {
        "item": row.item,
        "tier": row.tier,
        "score": row.score,
        "p": row.p,
        "q_value": row.q_value,
        "copies": row.copies,
        "answer_near": row.answer_near,
        "identity": row.identity,
        "bytes": row.length,
        "commitment": commitment,
    }
    return told if revealed is None else {**told, "revealed": revealed}


def sources_by_hits(
    hits: Iterable[Entry], sources: Mapping[Place, str], key: bytes | None = None, known: Collection[str] = ()
) -> tuple[SourceRow, ...]:
    """Return where matches of flagged items come from, most matches first; at most `SOURCES_MAX` one by one.

    Args:
        hits: kept matches of flagged items (`Conclusion.hits`).
        sources: `source` of the record at each place, as far as the corpus is at hand; a window that stands in several
            sources counts where its first copy stands.
        key: keys the hash that stands for a name; None: names are told, as a grant of `reveal` allows.
        known: names that the auditor has given (`always_embed`), and may be told.
    """
    matches: dict[str, int] = {}
    copies: dict[str, int] = {}
    for one in hits:
        told = sources.get((one.shard, one.doc, one.start, one.end))
        if told is None:
            continue
        if not told:
            name = NO_SOURCE
        elif key is not None and told not in known:
            name = commit_source(key, told)
        else:
            name = safe(told).lstrip("._-") or NO_SOURCE  # a name begins with a letter or digit
        matches[name] = matches.get(name, 0) + 1
        copies[name] = copies.get(name, 0) + one.copies
    order = sorted(matches, key=lambda name: (-matches[name], name))
    rows = [SourceRow(name, matches[name], copies[name]) for name in order[:SOURCES_MAX]]
    if rest := order[SOURCES_MAX:]:
        rows.append(SourceRow(OTHERS, sum(matches[name] for name in rest), sum(copies[name] for name in rest)))
    return tuple(rows)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
