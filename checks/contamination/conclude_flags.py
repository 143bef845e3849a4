"""Which items of a benchmark are flagged, and from which score on (contamination, 6.9, step 1)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.contamination.conformal import SUPPLIED_MIN, Calibration, calibrate, min_flaggable
from checks.contamination.discoveries import IDENTITY_TOKENS, benjamini_hochberg, level, q_values
from checks.contamination.gathering import Group
from checks.contamination.planning import ItemFact
from checks.contamination.sketch import TIERS, Entry

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

PLACEBO_KINDS = frozenset({"code"})
"""Kinds that nothing is claimed of without supplied placebos: idioms of code are everywhere, and siblings do not tell
how common one is (6.7: a published audit found 0 true of 50 flagged items of code)."""


@dataclass(frozen=True)
class Flagged:
    """What is flagged of one benchmark, items in the order of its groups."""

    benchmark: str
    groups: tuple[Group, ...]
    calibrations: tuple[Calibration, ...]
    """Of each group."""
    facts: tuple[ItemFact, ...]
    best: tuple[Entry | None, ...]
    p: Float[np.ndarray, " item"]
    """NaN: uncalibrated."""
    q_values: Float[np.ndarray, " item"]
    flags: Bool[np.ndarray, " item"]
    identity: Bool[np.ndarray, " item"]
    """Found whole, with so many tokens that no p-value is needed."""
    lowest: Mapping[str, int | None]
    """Kind -> lowest score that this run flags; None where no score is."""
    closed: frozenset[str] = frozenset()
    """Kinds of items that can be neither flagged nor found absent: `PLACEBO_KINDS` without supplied placebos."""
    gating: Collection[str] = TIERS
    """Tiers that may give `detected`."""

    @property
    def calibrated(self) -> int:
        """Return how many items have a p-value."""
        return int((~np.isnan(self.p)).sum())

    def tiers(self) -> tuple[str | None, ...]:
        """Return the tier of each flagged item's best match; None of those not flagged, or without a match."""
        return tuple(
            one.tier if flag and one is not None else None for one, flag in zip(self.best, self.flags, strict=True)
        )

    def leaks(self) -> Bool[np.ndarray, " item"]:
        """Return which items count as leaks: flagged, and by a match of a tier that may give `detected`."""
        return np.array([tier is not None and tier in self.gating for tier in self.tiers()], dtype=bool)

    def of_group(self, place: int) -> Bool[np.ndarray, " item"]:
        """Return the flags of one group's items."""
        begin = sum(len(one.facts) for one in self.groups[:place])
        return np.asarray(self.flags[begin : begin + len(self.groups[place].facts)])

    def names(self) -> tuple[str, ...]:
        """Return the items that leaked, short ones too, as "benchmark/item" in record order of their kinds."""
        return tuple(fact.name for fact, leak in zip(self.facts, self.leaks(), strict=True) if leak)

    def unplaced(self) -> int:
        """Return how many items of a closed kind were searched for."""
        return sum(int(one.searched.sum()) for one in self.groups if one.kind in self.closed)

    def unflaggable(self, q: float) -> int:
        """Return how many items no match could flag: not searched for, or too short for identity and without a p-value.

        Args:
            q: false discovery rate; where too few items have p-values to be flagged by them, none counts.
        """
        fewest = self.min_flaggable(q)
        by_p = fewest is not None and fewest <= self.calibrated
        searched = [bool(one) for group in self.groups for one in group.searched]
        able = [
            one and ((by_p and not bool(np.isnan(p))) or is_identity(fact, "exact"))
            for one, p, fact in zip(searched, self.p, self.facts, strict=True)
        ]
        return len(able) - sum(map(bool, able))

    def code_items(self) -> int:
        """Return how many items of code were searched for and can be flagged."""
        open_groups = (one for one in self.groups if one.kind == "code" and one.kind not in self.closed)
        return sum(int(one.searched.sum()) for one in open_groups)

    def open_calibrations(self) -> tuple[Calibration, ...]:
        """Return the calibrations of kinds that something can be claimed of."""
        told = zip(self.groups, self.calibrations, strict=True)
        return tuple(one for group, one in told if group.kind not in self.closed)

    def lowest_of(self, code: bool) -> int | None:
        """Return the lowest score that this run flags of every open kind: what an authored item must reach.

        Args:
            code: whether of code, or of the other kinds.
        """
        open_kinds = (one for one in self.lowest if one not in self.closed)
        told = [self.lowest[kind] for kind in open_kinds if (kind == "code") == code]
        known = [score for score in told if score is not None]
        return max(known) if known and len(known) == len(told) else None

    def min_flaggable(self, q: float) -> int | None:
        """Return the fewest items that can be flagged together; None where none is calibrated."""
        if not self.calibrated:
            return None
        return min_flaggable(self.calibrated, max(one.smallest_p() for one in self.open_calibrations()), q)


def is_identity(fact: ItemFact, tier: str | None) -> bool:
    """Return whether a match is the item itself, so that no p-value is needed (6.9).

    Tokens are those of the question: they say nothing of how long a function is, and `return a + b` is everywhere.
    """
    return tier == "exact" and fact.tokens >= IDENTITY_TOKENS and fact.kind not in PLACEBO_KINDS


def flag(benchmark: str, groups: Sequence[Group], q: float, gating: Collection[str] = TIERS) -> Flagged:
    """Return what is flagged of one benchmark.

    Args:
        benchmark: its name.
        groups: of all benchmarks: the null is pooled over those of a kind, and so are few placebos.
        q: false discovery rate.
        gating: tiers that may give `detected`.
    """
    own = [one for one in groups if one.benchmark == benchmark]
    calibrations = [_calibrated(one, groups) for one in own]
    p = np.concatenate([_p(one, told) for one, told in zip(own, calibrations, strict=True)])
    facts = tuple(fact for one in own for fact in one.facts)
    best = tuple(entry for one in own for entry in one.best)
    closed = frozenset(
        one.kind
        for one, told in zip(own, calibrations, strict=True)
        if one.kind in PLACEBO_KINDS and not len(told.supplied)
    )
    identity = np.array(
        [is_identity(fact, None if entry is None else entry.tier) for fact, entry in zip(facts, best, strict=True)],
        dtype=bool,
    )
    return Flagged(
        benchmark=benchmark,
        groups=tuple(own),
        calibrations=tuple(calibrations),
        facts=facts,
        best=best,
        p=p,
        q_values=q_values(p),
        flags=benjamini_hochberg(p, q) | identity,
        identity=identity,
        lowest={
            one.kind: None if one.kind in closed else told.lowest_score(level(p, q, told.smallest_p()))
            for one, told in zip(own, calibrations, strict=True)
        },
        closed=closed,
        gating=tuple(gating),
    )


def _calibrated(group: Group, groups: Sequence[Group]) -> Calibration:
    alike = [one for one in groups if one.kind == group.kind and one is not group]
    others = np.concatenate([np.zeros(0, dtype=np.int64), *(one.scores.siblings for one in alike)])
    supplied = group.placebo
    if len(supplied) < SUPPLIED_MIN:
        supplied = np.concatenate([supplied, *(one.placebo for one in alike)])
    return calibrate(group.scores, others, supplied)


def _p(group: Group, told: Calibration) -> Float[np.ndarray, " item"]:
    """Return p-values: none where nothing could be found, and no claim where siblings say nothing of a tier."""
    p = np.where(group.searched, told.p, np.nan)
    if group.kind in PLACEBO_KINDS and not len(told.supplied):
        return np.full(len(p), np.nan)
    if not len(told.supplied):
        # Siblings share the template of their item: only supplied placebos tell how common it is (6.1).
        shared = np.array([one is not None and one.tier == "template" for one in group.best], dtype=bool)
        p = np.where(shared & ~np.isnan(p), 1.0, p)
    return np.asarray(p)
