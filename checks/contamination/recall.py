"""Which share of planted copies a scan flags, by depth and placement. Specification: sections 6.9 and 6.11."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from checks.contamination.shares_estimate import Estimate, scored

CODE = "_code"
"""Ends the source of plants of code: what a scan finds of prose does not speak for code (6.7)."""


POOLED = {"exact": "0-1", "near": "2-4", "semantic": "5"}
"""Tier -> depths whose recall speaks for it, as labels tell them (6.11)."""

DEPTHS = {"0-1": (0, 1), "2-4": (2, 3, 4), "5": (5,)}
"""The depths that a label pools."""

WORDS_ALONE, EMBEDDED = "words", "all"
"""What a plant was found by: comparing words, whatever was embedded; or anything, where all of it is embedded."""

FOUND_AS = {
    ("0-1", WORDS_ALONE): ("exact",), ("0-1", EMBEDDED): ("exact",),
    ("2-4", WORDS_ALONE): ("exact", "near"), ("2-4", EMBEDDED): ("exact", "near", "semantic", "template"),
    ("5", WORDS_ALONE): (), ("5", EMBEDDED): ("exact", "near", "semantic", "template"),
}  # fmt: skip
"""Tiers that count as found. Of depth 5 nothing counts without embedding: the recall is that of the tier `semantic`."""

LEAST_ITEMS = 5
"""Items of a single depth from which its share counts by itself (our choice): of fewer, one miss is a fifth or more."""


@dataclass(frozen=True)
class PlantOutcome:
    """What a scan made of one planted copy."""

    plant: int
    item: str
    depth: int
    """0-5 (6.11)."""
    placement: str
    tier: str | None
    """Tier of the best match that touches the planted span; None where there is none."""
    score: int
    """Its score; 0 without a match."""
    source: str = "automatic"
    """Where the rewording comes from: automatic, rewrites (the auditor's) or authored; of code with `CODE` behind."""


@dataclass(frozen=True)
class Recall:
    """Share of plants of one depth, and of one placement or of all, that are found as a claim would need them."""

    depth: int
    placement: str | None
    source: str
    share: Estimate


def found(outcome: PlantOutcome, lowest: int | None, gating: Collection[str]) -> bool:
    """Return whether a plant is found at a gating tier with a score that would be flagged.

    Args:
        outcome: of one plant.
        lowest: lowest score that this run flags; None where none would be, so nothing is found.
        gating: tiers that may give `detected`.
    """
    return lowest is not None and outcome.tier in gating and outcome.score >= lowest


def recalls(
    outcomes: Sequence[PlantOutcome], lowest: int | None, gating: Collection[str], placements: bool = True
) -> tuple[Recall, ...]:
    """Return recall by source and depth, and by placement within them, each with Wilson's interval.

    An item that was planted several times at a depth counts once, as found where all of its copies were: twenty copies
    of one question are one trial.

    Args:
        outcomes: one a plant; expected misses are not among them.
        lowest: lowest score that this run flags.
        gating: tiers that may give `detected`.
        placements: whether to tell each placement too.
    """
    groups: dict[tuple[str, int, str], dict[str, bool]] = {}
    for outcome in outcomes:
        hit = found(outcome, lowest, gating)
        for placement in ("", outcome.placement) if placements else ("",):
            told = groups.setdefault((outcome.source, outcome.depth, placement), {})
            told[outcome.item] = told.get(outcome.item, True) and hit
    return tuple(
        Recall(depth, placement or None, source, scored(sum(hits.values()), len(hits)))
        for (source, depth, placement), hits in sorted(groups.items())
    )


@dataclass(frozen=True)
class PooledRecall:
    """Share of the plants of a tier's depths that are found as its claim would need them."""

    depths: str
    """A key of `DEPTHS`."""
    source: str
    searched: str
    """`WORDS_ALONE` or `EMBEDDED`."""
    share: Estimate
    least: float
    """Least share of a single depth with `LEAST_ITEMS` items or more; of all of them where none has."""


def pooled_recalls(
    outcomes: Sequence[PlantOutcome], lowest: int | None, gating: Collection[str]
) -> tuple[PooledRecall, ...]:
    """Return recall by source over the depths of each tier, an item once a depth.

    Args:
        outcomes: as in `recalls`.
        lowest: lowest score that this run flags.
        gating: tiers that may give `detected`.
    """
    told = []
    for (depths, searched), tiers in FOUND_AS.items():
        own = [one for one in outcomes if one.depth in DEPTHS[depths]]
        counted = [one for one in tiers if one in gating]
        single = recalls(own, lowest, counted, placements=False)
        for source in sorted({one.source for one in own}):
            shares = [one.share for one in single if one.source == source]
            hits, n = sum(round(one.value * one.n) for one in shares), sum(one.n for one in shares)
            whole = scored(hits, n)
            least = min((one.value for one in shares if one.n >= LEAST_ITEMS), default=whole.value)
            told.append(PooledRecall(depths, source, searched, whole, least))
    return tuple(told)


def at_depth(told: Sequence[Recall], depth: int) -> Recall | None:
    """Return the recall over all placements of one depth, of the auditor's own rewrites where there are any."""
    whole = {one.source: one for one in told if one.depth == depth and one.placement is None}
    return next((whole[name] for name in ("rewrites", "automatic", "authored") if name in whole), None)


def powered(recall: Recall | None, embedded: float, min_power: float) -> bool:
    """Return whether `not detected` may be said: lower bound of recall x share embedded >= `min_power` (9.2).

    Args:
        recall: of the tier's depth; None where nothing was planted.
        embedded: share of the corpus that was searched at this tier.
        min_power: the parameter.
    """
    return recall is not None and recall.share.low * embedded >= min_power
