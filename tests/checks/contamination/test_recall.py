"""A plant counts as found only where a claim could rest on it."""

from __future__ import annotations

from itertools import count

import pytest

from checks.contamination.recall import PlantOutcome, at_depth, found, pooled_recalls, powered, recalls
from checks.statistics import proportion_interval

GATING = ("exact", "near", "semantic")


def _outcome(
    score: int, tier: str | None, depth: int = 0, placement: str = "inline", source: str = "automatic", item: str = ""
) -> PlantOutcome:
    return PlantOutcome(0, item or f"i{next(_NUMBERS)}", depth, placement, tier, score, source)


_NUMBERS = count()


@pytest.mark.parametrize(
    ("score", "tier", "lowest"),
    [(29_000, "semantic", None), (28_999, "semantic", 29_000), (29_500, "template", 29_000), (0, None, 0)],
    ids=["no_threshold", "below", "not_gating", "no_match"],
)
def test_a_plant_that_would_not_be_flagged_is_not_found(score: int, tier: str | None, lowest: int | None) -> None:
    assert not found(_outcome(score, tier), lowest, GATING)


def test_recall_is_told_by_depth_placement_and_source_with_wilsons_interval() -> None:
    outcomes = [_outcome(50_000, "exact") for _ in range(18)]
    outcomes += [_outcome(0, None), _outcome(50_000, "exact", placement="html")]
    outcomes += [_outcome(29_000, "semantic", depth=5, source="authored")]
    told = recalls(outcomes, 20_000, GATING)
    assert [(one.source, one.depth, one.placement, one.share.value, one.share.n) for one in told] == [
        ("authored", 5, None, 1.0, 1),
        ("authored", 5, "inline", 1.0, 1),
        ("automatic", 0, None, 0.95, 20),
        ("automatic", 0, "html", 1.0, 1),
        ("automatic", 0, "inline", 18 / 19, 19),
    ]
    whole = at_depth(told, 0)
    assert whole is not None
    assert (whole.share.low, whole.share.high) == proportion_interval(19, 20)
    assert whole.share.method == "wilson"
    assert at_depth(told, 3) is None


def test_the_auditors_rewrites_come_before_authored_ones() -> None:
    outcomes = [_outcome(0, None, 5, source="rewrites"), _outcome(50_000, "exact", 5, source="authored")]
    chosen = at_depth(recalls(outcomes, 1, GATING), 5)
    assert chosen is not None
    assert chosen.source == "rewrites"


def test_silence_needs_power() -> None:
    told = at_depth(recalls([_outcome(50_000, "exact") for _ in range(16)], 1, GATING), 0)
    assert powered(told, 1.0, 0.8)  # 16 of 16: lower bound .806
    assert not powered(told, 0.9, 0.8)
    assert not powered(at_depth(recalls([_outcome(50_000, "exact") for _ in range(15)], 1, GATING), 0), 1.0, 0.8)
    assert not powered(None, 1.0, 0.0)


def test_copies_of_one_item_are_one_trial() -> None:
    copies = [_outcome(29_000, "semantic", 5, source="rewrites", item="b/q") for _ in range(20)]
    (told,) = recalls(copies, 1, GATING, placements=False)
    assert (told.share.value, told.share.n) == (1.0, 1)
    (missed,) = recalls([*copies, _outcome(0, None, 5, source="rewrites", item="b/q")], 1, GATING, placements=False)
    assert (missed.share.value, missed.share.n) == (0.0, 1)


def test_recall_bought_by_embedding_is_not_found_by_words() -> None:
    """Depth 3 that only an embedding finds counts for `near` where all was embedded; depth 5 never does."""
    outcomes = [_outcome(50_000, "exact", 2) for _ in range(24)]
    outcomes += [_outcome(35_000, "near", 3) for _ in range(8)] + [_outcome(29_000, "semantic", 3) for _ in range(8)]
    outcomes += [_outcome(29_000, "semantic", 5) for _ in range(40)]
    outcomes += [_outcome(35_000, "near", 0) for _ in range(10)]
    told = {(one.depths, one.searched): one for one in pooled_recalls(outcomes, 1, GATING)}
    assert (told["2-4", "words"].share.value, told["2-4", "words"].share.n) == (0.8, 40)
    assert told["2-4", "words"].least == 0.5  # depth 3 by itself
    assert told["2-4", "all"].share.value == told["2-4", "all"].least == 1.0
    assert told["0-1", "all"].share.value == 0.0  # of `exact` only what is found word for word
    assert told["5", "words"].share.value == 0.0
    none_near = pooled_recalls(outcomes, 1, ("exact", "near"))
    assert next(one.share.value for one in none_near if (one.depths, one.searched) == ("2-4", "all")) == 0.8
