"""A benchmark of code audited from rows to words: what leaked is found, and nothing is said without placebos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checks.contamination.code_plants import code_rewrites
from checks.contamination.gathering import Group, groups
from checks.contamination.items import Item, read_benchmark
from checks.contamination.planning import Asked, Prepared
from tests.checks.contamination.audited import WordEncoder, audit, corpus, merged, prepared, scanned, word

WORDS = 3000
NOUNS = ("apples", "barrels", "candles", "drawers", "engines", "feathers", "gardens", "hammers", "islands", "jackets")
LEAKED = 6


def rows(count: int, first: int, name: str) -> list[dict[str, Any]]:
    made = []
    for at in range(first, first + count):
        noun = NOUNS[at % len(NOUNS)]
        source = (
            f"def total_{noun}(values):\n    found = 0\n    count = 1\n    for value in values:\n"
            f"        if value % {at % 7 + 2} == 0 and value > {at}:\n            found += value * {at + 3}\n"
            "            count += 1\n    return found + count\n"
        )
        made.append(
            {
                "benchmark": "code",
                "item": f"{name}{at}",
                "kind": "code",
                "question": f"Weigh the {noun} above {at} by {at + 3} where {at % 7 + 2} divides them, and count them.",
                "entry": f"total_{noun}",
                "reference": source,
                "probes": [[[at + step * one for one in range(1, 30)]] for step in (1, 2, 3, 5, 8)] + [[[]]],
            }
        )
    return made


def leaks(items: Sequence[Item]) -> list[str]:
    """Return copies of the first items: two verbatim, two renamed, two rewritten."""
    made = [code_rewrites(item, np.random.default_rng(at)) for at, item in enumerate(items[:LEAKED])]
    return [told[(0, 0, 2, 2, 3, 3)[at]] for at, told in enumerate(made)]


def world(folder: Path, placebo: int, embed: str = "off", cut: int = 1, plants: int = 0) -> tuple[Path, Prepared]:
    asked = [*rows(24, 0, "q"), {**rows(1, 50, "java")[0], "language": "java"}]
    path = corpus(folder, leaks(read_benchmark(asked)), WORDS)
    told = [{**row, "origin": "private"} for row in rows(placebo, 100, "p")]
    told += [{**row, "origin": "private", "language": "java"} for row in rows(5, 400, "j")]
    size = -(-path.stat().st_size // cut)
    plan = prepared(
        path, asked, placebo=told, embed=embed, shard_bytes=size, asked=Asked(siblings=10, plant_share=plants)
    )
    return path, plan


def group(path: Path, plan: Prepared) -> Group:
    encoder = WordEncoder() if plan.plan.parameters.embed != "off" else None
    (told,) = groups(merged(plan, scanned(plan, path, encoder)), plan)
    return told


@pytest.mark.parametrize("embed", ["off", "all"])
def test_items_and_placebos_of_code_are_gathered(tmp_path: Path, embed: str) -> None:
    path, plan = world(tmp_path, 30, embed)
    told = group(path, plan)
    assert (told.kind, told.other_language, len(told.placebo)) == ("code", 1, 30)
    assert told.searched.tolist() == [True] * 24 + [False]
    tiers = [entry.tier if entry else None for entry in told.best]
    assert tiers[:LEAKED] == ["exact", "exact", "near", "near", "semantic", "semantic"]
    assert not {"exact", "near", "semantic"} & set(tiers[LEAKED:])
    assert len(told.scores.siblings) >= 200
    assert max(told.scores.siblings) < 20_000
    assert max(told.placebo) < 20_000


@pytest.mark.slow
def test_placebos_that_cannot_be_found_are_no_null(tmp_path: Path) -> None:
    path, plan = world(tmp_path, 0)
    assert len(group(path, plan).placebo) == 0


@pytest.mark.slow
def test_seven_shards_say_the_same_of_code(tmp_path: Path) -> None:
    first = group(*world(tmp_path, 5))
    other = tmp_path / "other"
    other.mkdir()
    path, plan = world(other, 5, cut=7)
    assert len(plan.plan.shards) == 7
    second = group(path, plan)
    assert first.scores.items.tolist() == second.scores.items.tolist()
    assert first.scores.siblings.tolist() == second.scores.siblings.tolist()
    assert [one and (one.tier, one.copies) for one in first.best] == [
        one and (one.tier, one.copies) for one in second.best
    ]


@pytest.mark.slow
def test_code_is_flagged_with_placebos_and_never_without(tmp_path: Path) -> None:
    path, plan = world(tmp_path, 150, "all", plants=500)
    with_placebos = audit(path, plan, WordEncoder())
    assert word(with_placebos, "leak")[0] == "detected"
    other = tmp_path / "other"
    other.mkdir()
    path, plan = world(other, 0, "all", plants=500)
    assert word(audit(path, plan, WordEncoder()), "leak")[0] != "detected"
