"""A planted corpus, audited from rows to words."""

from __future__ import annotations

import dataclasses
import json
import os
from functools import reduce
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checks.check import Refusal
from checks.contamination.cli_table import document, table
from checks.contamination.conclude import Conclusion, conclude
from checks.contamination.evidence_table import evidence_table
from checks.contamination.planning import Asked, Prepared
from checks.contamination.planning_file import read_prepared, to_bytes
from checks.contamination.sketch import Sketch, merge
from checks.contamination.sketch_reading import read_sketch
from tests.checks.contamination.audited import (
    CANARY,
    WordEncoder,
    audit,
    benchmark_rows,
    corpus,
    leaked,
    merged,
    prepared,
    rewrite_rows,
    scanned,
    word,
)

ROWS, REWORDINGS = benchmark_rows()
REWRITES = rewrite_rows(ROWS, REWORDINGS)
K10 = Asked(siblings=10)
ENCODER = WordEncoder()
WORDS = 3000


@dataclasses.dataclass(frozen=True)
class World:
    """An audit and what it came from."""

    path: Path
    plan: Prepared
    sketches: tuple[Sketch, ...]
    told: Conclusion

    @property
    def whole(self) -> Sketch:
        return merged(self.plan, self.sketches)


def _world(folder: Path, leaks: list[str], cut: int = 1, **changed: Any) -> World:
    path = corpus(folder, leaks, WORDS)
    size = -(-path.stat().st_size // cut)
    plan = prepared(path, ROWS, changed.pop("rewrites", REWRITES), shard_bytes=size, asked=K10, **changed)
    sketches = scanned(plan, path, ENCODER)
    return World(path, plan, tuple(sketches), conclude(merged(plan, sketches), plan, encoder=ENCODER))


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory) -> World:
    return _world(tmp_path_factory.mktemp("leaking"), leaked(ROWS, REWORDINGS, 3, 4))


@pytest.fixture(scope="module")
def sevenfold(tmp_path_factory: pytest.TempPathFactory) -> World:
    return _world(tmp_path_factory.mktemp("sevenfold"), leaked(ROWS, REWORDINGS, 3, 4), 7)


@pytest.fixture(scope="module")
def unleaked(tmp_path_factory: pytest.TempPathFactory) -> World:
    return _world(tmp_path_factory.mktemp("unleaked"), [])


def test_leaks_are_detected_by_tier(leaking: World) -> None:
    assert word(leaking.told, "leak") == ("detected", None)
    assert word(leaking.told, "leak.exact") == ("detected", None)
    assert word(leaking.told, "leak.semantic") == ("detected", None)
    tiers = {row.item: row.tier for row in leaking.told.flagged.rows}
    assert {item for item, tier in tiers.items() if tier == "exact"} == {f"demo/q{at}" for at in range(3)}
    found = {item for item, tier in tiers.items() if tier == "semantic"}
    assert len(found) >= 3
    assert found <= {f"demo/q{at}" for at in range(3, 7)}


def test_no_leak_is_not_detected_with_its_recall(unleaked: World) -> None:
    assert word(unleaked.told, "leak") == ("not_detected", None)
    (claim,) = (one.claim for one in unleaked.told.findings if one.code == "leak")
    assert "one planted rewrite of depth 5 (your own) is flagged with probability" in claim
    assert "fewer than 2 leaked items cannot be flagged" in claim  # ceil(1 / (10 x .05))
    assert not unleaked.told.flagged.rows


def test_no_claim_without_placebo(tmp_path: Path, unleaked: World) -> None:
    """Items that differ from no other item have no siblings; then near and semantic say nothing."""
    letters = [chr(ord("a") + at % 26) * (2 + at // 26) for at in range(len(ROWS))]
    rows = [
        row | {"question": f"why does the {name} in our garden never flower in the shade?"}
        for row, name in zip(ROWS, letters, strict=True)
    ]
    plan = prepared(unleaked.path, rows, embed="off", asked=K10)
    assert not any(one.role == "sibling" for one in plan.plan.owners)
    told = audit(unleaked.path, plan)
    assert word(told, "leak.near") == ("inconclusive", "no_placebo")
    assert word(told, "leak")[0] == "inconclusive"


def test_without_rewrites_or_plants_nothing_passes(tmp_path: Path, unleaked: World) -> None:
    plan = prepared(unleaked.path, ROWS, embed="off", asked=dataclasses.replace(K10, plant_share=0))
    assert not plan.plan.plants
    told = audit(unleaked.path, plan)
    assert word(told, "leak.near") == ("inconclusive", "no_recall")
    assert word(told, "leak")[0] == "inconclusive"


def test_a_missing_shard_says_nothing(sevenfold: World) -> None:
    part = merged(sevenfold.plan, sevenfold.sketches[:6])
    told = conclude(part, sevenfold.plan, encoder=ENCODER)
    assert {word(told, code)[0] for code in ("leak", "leak.exact", "leak.near", "leak.semantic")} == {"inconclusive"}
    assert word(told, "leak.exact") == ("inconclusive", "coverage")


def test_without_its_encoder_nothing_is_claimed(leaking: World) -> None:
    told = conclude(leaking.whole, leaking.plan)
    assert word(told, "leak") == ("inconclusive", "control_missed")
    assert told.missed == ("KnownAnswer.encoder",)


def test_one_shard_and_seven_say_the_same(leaking: World, sevenfold: World) -> None:
    assert len(sevenfold.sketches) == 7

    def numbers(world: World) -> dict[str, Any]:
        (one,) = world.told.benchmarks
        entries = [entry and (entry.score, entry.tier, entry.window_key, entry.copies) for entry in one.best]
        return {fact.name: (entry, p) for fact, entry, p in zip(one.facts, entries, one.p.tolist(), strict=True)}

    assert numbers(leaking) == numbers(sevenfold)
    assert np.array_equal(leaking.told.benchmarks[0].flags, sevenfold.told.benchmarks[0].flags)
    # Which silences are powered rests on the hosts of the plants, and another cut of the corpus draws others.
    claimed = [{one.code for one in told.findings if one.word == "detected"} for told in (leaking.told, sevenfold.told)]
    assert claimed[0] == claimed[1]
    assert claimed[0] >= {"leak", "leak.exact", "leak.semantic"}


def test_merge_any_tree_same_bytes(sevenfold: World) -> None:
    whole = sevenfold.whole.to_bytes()
    for order in list(permutations(sevenfold.sketches))[::500]:
        assert reduce(merge, order).to_bytes() == whole
        left, right = reduce(merge, order[:3]), reduce(merge, order[3:])
        assert merge(right, left).to_bytes() == whole


def test_retried_shard_is_counted_once(sevenfold: World) -> None:
    """A worker that dies has its shard scanned again: equal bytes, planted copies too, and one count."""
    again = scanned(sevenfold.plan, sevenfold.path, ENCODER)
    assert [one.to_bytes() for one in again] == [one.to_bytes() for one in sevenfold.sketches]
    whole = reduce(merge, [*again[:2], sevenfold.whole, again[4]])
    assert whole.to_bytes() == sevenfold.whole.to_bytes()


def test_no_text_of_the_corpus_leaves(leaking: World, sevenfold: World) -> None:
    assert CANARY in leaking.path.read_text()
    for world in (leaking, sevenfold):
        outputs = [world.whole.to_bytes().decode(), to_bytes(world.plan).decode()]
        evidence = evidence_table(world.told, world.plan, None, b"k" * 32)
        outputs += [make(world.told, world.plan, world.whole, evidence) for make in (table, document)]
        outputs += [repr(world.told.findings), repr(world.told.measured), repr(world.told.flagged)]
        assert not any(CANARY in one for one in outputs)
        assert "The bisect" not in "".join(outputs)


def test_a_plan_is_the_same_for_the_same_seed_and_reads_back(leaking: World) -> None:
    told = to_bytes(leaking.plan)
    assert to_bytes(prepared(leaking.path, ROWS, REWRITES, asked=K10)) == told
    assert to_bytes(prepared(leaking.path, ROWS, REWRITES, asked=K10, seed=12)) != told
    assert to_bytes(read_prepared(told)) == told
    assert read_sketch(leaking.whole.to_bytes()).to_bytes() == leaking.whole.to_bytes()
    for spoiled in (told.replace(b'"keep":16', b'"keep":17', 1), told[:-1], b"{}", told.replace(b'"q":500', b'"q":[]')):
        with pytest.raises(Refusal, match="plan_invalid"):
            read_prepared(spoiled)


def test_a_scan_sees_no_roles(leaking: World) -> None:
    """What a scan reads of a probe tells neither its role nor its owner, and probes stand in shuffled order."""
    document_ = json.loads(leaking.plan.plan.document())
    assert {"item", "benchmark", "role"}.isdisjoint(document_["probes"][0])
    items = sorted(one.probe for one in leaking.plan.plan.owners if one.role == "item")
    assert items[:40] != list(range(40))


def test_sketch_of_another_plan_is_refused(leaking: World, sevenfold: World) -> None:
    with pytest.raises(Refusal, match="other_plan") as refused:
        conclude(leaking.whole, sevenfold.plan, encoder=ENCODER)
    assert len(refused.value.items) == 2


def test_recall_counts_planted_spans_only(leaking: World) -> None:
    """A leak that stands in a host of a plant is not found in place of it: hits must touch what was planted."""
    plan = leaking.plan.plan
    for plant, entries in leaking.whole.plants.items():
        assert plan.plants[plant].id == plant
        assert all(entry.end > entry.start for entry in entries)
    # Expected misses of base64 are never found.
    hidden = [at for at, source in enumerate(leaking.plan.sources) if source == "base64"]
    assert len(hidden) == 5
    assert not set(hidden) & leaking.whole.plants.keys()
    # Planted copies do not become finds in the corpus.
    best = {one.probe for one in plan.owners if one.item == "q30" and one.role == "item"}
    assert all(entry.tier in ("template", "related") for probe in best for entry in leaking.whole.best.get(probe, ()))


@pytest.mark.slow
def test_forty_items_with_the_real_encoder(tmp_path: Path) -> None:
    """Specification, 11: 40 items, K = 20, a corpus of 8000 words: 17-40 s on one thread."""
    pytest.importorskip("torch")
    from checks.contamination.encoder import Encoder

    encoder = Encoder()
    for count, expected in ((6, "detected"), (0, "not_detected")):
        path = corpus(tmp_path, leaked(ROWS, REWORDINGS, count // 2, count // 2), 8000)
        plan = prepared(path, ROWS, REWRITES, floor=5_000, asked=Asked(siblings=20))
        told = audit(path, plan, encoder)
        assert word(told, "leak")[0] == expected, [one.claim for one in told.findings]
        assert {row.item for row in told.flagged.rows} <= {f"demo/q{at}" for at in range(count)}


DATA = Path(os.environ.get("ASSAY_DATA", Path(__file__).parents[3] / "../shared/data"))


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "gsm8k_rephrase").is_dir(), reason="no gsm8k_rephrase: set ASSAY_DATA to its folder")
def test_table_of_real_rewrites_is_the_specifications() -> None:
    """Specification, 6.9, against the committed measurement; its program is benchmarks/contamination_rewrites.py."""
    told = json.loads((Path(__file__).parents[3] / "benchmarks/contamination_rewrites.json").read_text())
    for share, row in told["by_leak_share"].items():
        fdr, error = row["verified, q = 0.05"]["fdr"]
        assert fdr <= 0.05 + 3 * error, share
