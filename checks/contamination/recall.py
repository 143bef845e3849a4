"""Which share of planted copies a scan flags, by depth and placement. Specification: sections 6.9 and 6.11."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from checks.contamination.shares_estimate import Estimate, scored

CODE = "_code"
"""Ends the source of plants of code: what a scan finds of prose does not speak for code (6.7)."""


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

    Args:
        outcomes: one a plant; expected misses are not among them.
        lowest: lowest score that this run flags.
        gating: tiers that may give `detected`.
        placements: whether to tell each placement too.
    """
    groups: dict[tuple[str, int, str], list[bool]] = {}
    for outcome in outcomes:
        hit = found(outcome, lowest, gating)
        groups.setdefault((outcome.source, outcome.depth, ""), []).append(hit)
        if placements:
            groups.setdefault((outcome.source, outcome.depth, outcome.placement), []).append(hit)
    return tuple(
        Recall(depth, placement or None, source, scored(sum(hits), len(hits)))
        for (source, depth, placement), hits in sorted(groups.items())
    )


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
