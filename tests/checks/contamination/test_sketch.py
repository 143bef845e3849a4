"""Sketches merge the same in any order and tree, count nothing twice, and are read strictly."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from checks.check import Refusal
from checks.contamination.sketch import (
    NEARNESS,
    TIERS,
    Entry,
    ShardCount,
    Sketch,
    empty,
    histogram_bin,
    kept,
    merge,
)
from checks.contamination.sketch_reading import read_sketch

PLAN = "ab" * 32
KEEP = 4


def _sketch(number: int, seed: int = 0) -> Sketch:
    """Return the sketch of one made-up shard: few keys, so that copies meet; the score is a function of both."""
    rng = np.random.default_rng((seed, number))
    digest = f"{number:064x}"

    def entries(probe: int) -> tuple[Entry, ...]:
        rows = []
        for key in rng.integers(0, 12, size=rng.integers(1, 9)).tolist():
            score, tier = (probe * 7 + key * 5) % 11, TIERS[(probe + key) % 5]
            place = [int(n) for n in rng.integers(0, 50, size=2)]
            near = NEARNESS[int(rng.integers(3))]
            rows.append(Entry(score, tier, f"{key:032x}", 1, digest, place[0], place[1], place[1] + 9, near))
        return kept(rows, KEEP)

    probes = sorted(set(rng.integers(0, 6, size=4).tolist()))
    return Sketch(
        plan_sha256=PLAN,
        keep=KEEP,
        shards={digest: ShardCount(bytes=100 + number, docs=3, words=40, bad={"no_text": 1})},
        best={probe: entries(probe) for probe in probes},
        plants={probe: entries(probe) for probe in probes[:1]},
        tiers={probe: {TIERS[probe % 5]: 1 + number} for probe in probes},
        hist={"prose": {histogram_bin(int(c)): 1 for c in rng.integers(0, 10_000, size=3)}},
        contexts={probes[0]: 1},
    )


def test_merge_any_tree_same_bytes() -> None:
    parts = [_sketch(number) for number in range(9)]
    whole = parts[0]
    for part in parts[1:]:
        whole = merge(whole, part)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        forest = list(parts)
        while len(forest) > 1:
            a, b = (int(n) for n in rng.choice(len(forest), size=2, replace=False))
            joined = merge(forest[a], forest[b])
            forest = [one for place, one in enumerate(forest) if place not in (a, b)] + [joined]
        assert forest[0].to_bytes() == whole.to_bytes()


def test_merge_keeps_what_a_single_pass_would_keep() -> None:
    """All entries of all shards ranked at once, with every copy: only possible when no part has been cut."""
    parts = [_sketch(number) for number in range(6)]
    whole = parts[0]
    for part in parts[1:]:
        whole = merge(whole, part)
    for probe, entries in whole.best.items():
        together = [entry for part in parts for entry in part.best.get(probe, ())]
        best = sorted({(-entry.score, entry.window_key) for entry in together})[:KEEP]
        assert [entry.rank for entry in entries] == best
        for entry in entries:
            copies = [one for one in together if one.window_key == entry.window_key]
            assert entry.copies == sum(one.copies for one in copies)
            assert entry[4:8] == min(one[4:8] for one in copies)


def test_retried_shard_is_counted_once() -> None:
    a, b = _sketch(1), _sketch(2)
    both = merge(a, b)
    assert merge(both, _sketch(1)) == merge(_sketch(2), both) == merge(both, both) == both
    assert merge(a, _sketch(1)) == a


def test_no_shard_is_neutral() -> None:
    assert merge(empty(PLAN, KEEP), _sketch(1)) == merge(_sketch(1), empty(PLAN, KEEP)) == _sketch(1)


def test_overlapping_shard_sets_are_refused_by_name() -> None:
    with pytest.raises(Refusal) as told:
        merge(merge(_sketch(1), _sketch(2)), merge(_sketch(2), _sketch(3)))
    assert told.value.reason == "shards_overlap"
    assert told.value.items == (f"shard:{2:064x}", "total:1")


def test_sketches_of_other_plans_are_refused_by_digest() -> None:
    other = empty("cd" * 32, KEEP)
    with pytest.raises(Refusal) as told:
        merge(_sketch(1), other)
    assert (told.value.reason, told.value.items) == ("other_plan", (f"plan:{PLAN}", f"plan:{'cd' * 32}"))


@pytest.mark.parametrize("other", [_sketch(1, seed=1), merge(_sketch(1, seed=1), _sketch(2))])
def test_two_results_of_one_shard_are_refused(other: Sketch) -> None:
    changed = Sketch(**{**vars(other), "shards": {d: _more(c) for d, c in other.shards.items()}})
    with pytest.raises(Refusal, match="shards_differ"):
        merge(_sketch(1), changed)
    with pytest.raises(Refusal, match="shards_differ"):
        merge(_sketch(1), _sketch(1, seed=1))


def _more(count: ShardCount) -> ShardCount:
    return ShardCount(**{**vars(count), "words": count.words + 1})


def test_answer_near_any_copy_is_told() -> None:
    row = Entry(9, "near", "0" * 32, 1, "s", 0, 0, 1, "no")
    both = kept([row, row._replace(doc=1, answer_near="yes"), row._replace(doc=2, answer_near="unknown")], 4)
    assert both == (row._replace(copies=3, answer_near="yes"),)


def test_sketch_reads_back() -> None:
    whole = merge(_sketch(1), _sketch(2))
    assert read_sketch(whole.to_bytes()) == whole
    assert read_sketch(empty(PLAN, KEEP).to_bytes()) == empty(PLAN, KEEP)


def _spoilt(change: Callable[[dict[str, Any]], object]) -> bytes:
    told = json.loads(_sketch(1).to_bytes())
    change(told)
    return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda told: told.update(more=1), "fields"),
        (lambda told: told.update(schema="v2"), "fields"),
        (lambda told: told.update(keep=0), "keep"),
        (lambda told: told.update(plan_sha256="x"), "plan_sha256"),
        (lambda told: told["shards"].update(bad={}), "shards:bad"),
        (lambda told: told["shards"][f"{1:064x}"].update(words=-1), f"shards:{1:064x}"),
        (lambda told: told["shards"][f"{1:064x}"].update(words=True), f"shards:{1:064x}"),
        (lambda told: told["best"].update({"01": []}), "best:01"),
        (lambda told: told["best"].update({"x y": []}), "best:x_y"),
        (lambda told: told["best"].update({"77": []}), "best:77"),
        (lambda told: told["best"].update({"77": [[1]]}), "best:77:0"),
        (lambda told: told["best"].update({"77": [[1, "near", "0" * 32, 0, "0" * 64, 0, 0, 1, "no"]]}), "best:77:0"),
        (
            lambda told: told["best"].update({"77": [[1, "near", "0" * 32, 1, "f" * 64, 0, 0, 1, "no"]]}),
            "best:77:shard",
        ),
        (lambda told: next(iter(told["best"].values())).reverse(), "order"),
        (lambda told: told["hist"].update(prose={"4096": 1}), "hist:prose"),
        (lambda told: told["tiers"].update({"1": {"certain": 1}}), "tiers:1:certain"),
        (lambda told: told["contexts"].update({"1": 0}), "contexts:1"),
    ],
)
def test_spoilt_sketch_is_refused_by_its_place(change: Callable[[dict[str, Any]], object], named: str) -> None:
    with pytest.raises(Refusal) as told:
        read_sketch(_spoilt(change))
    assert told.value.reason == "sketch_invalid"
    assert named in told.value.items[0]
    assert len(told.value.items[0]) <= 128


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"{" * 10_000, _sketch(1).to_bytes() + b" ", b'{"schema":1.5}'])
def test_what_is_no_sketch_is_refused(data: bytes) -> None:
    with pytest.raises(Refusal, match="sketch_invalid"):
        read_sketch(data)


def test_histogram_has_4096_bins() -> None:
    bins = [histogram_bin(c) for c in range(-5, 10_001)]
    assert bins == sorted(bins)
    assert (bins[0], bins[-1], len(set(bins))) == (0, 4095, 4096)
