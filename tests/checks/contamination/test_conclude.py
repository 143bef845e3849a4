"""The conclusion on sketches made by hand: ties, pooled nulls, placebos, identity, and what is not there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from checks.check import Refusal
from checks.contamination.conclude import Conclusion, conclude
from checks.contamination.conclude_metrics import _false, reached
from checks.contamination.discoveries import IDENTITY_TOKENS
from checks.contamination.evidence_table import evidence_table
from checks.contamination.items import BENCHMARKS_MAX
from checks.contamination.planning import Asked, Prepared
from checks.contamination.recall import PlantOutcome
from checks.contamination.sketch import AnswerNear, Entry, ShardCount, Sketch
from checks.documents import RESULT_CAP
from tests.checks.contamination.audited import benchmark_rows, corpus_file, prepared, word

ROWS, _ = benchmark_rows(40)
SEMANTIC = 27_000


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    path = corpus_file(tmp_path_factory.mktemp("c"), ["words " * 2000])
    return prepared(path, ROWS, embed="off", asked=Asked(siblings=20))


def _sketch(plan: Prepared, scores: dict[int, tuple[int, str]], near: AnswerNear = "no") -> Sketch:
    shard = plan.plan.shards[0].digest
    best = {
        probe: (Entry(score, tier, f"{probe:032x}", 1, shard, 0, 0, 9, near),)
        for probe, (score, tier) in scores.items()
    }
    plants = {
        one.id: (Entry(50_000, "exact", "0" * 32, 1, shard, 0, 0, 9, "no"),)
        for one in plan.plan.plants
        if one.depth < 2
    }
    counts = {shard: ShardCount(2000, 1, 2000, origin="declared")}
    return Sketch(plan.plan.plan_sha256, 16, counts, best, plants, {}, {})


def _probes(plan: Prepared, role: str) -> list[int]:
    return [one.probe for one in plan.plan.owners if one.role == role]


def _metric(told: Conclusion, name: str, **labels: str) -> float:
    found = told.measured.find(name, benchmark="demo", **labels)
    assert found is not None
    return float(found.value)


def test_p_is_that_of_a_loop(plan: Prepared) -> None:
    rng = np.random.default_rng(2)
    scores = {probe: (int(rng.integers(0, 60)) * 100, "related") for probe in range(len(plan.plan.probes))}
    told = conclude(_sketch(plan, scores), plan)
    null = [scores[probe][0] for probe in _probes(plan, "sibling")]
    (one,) = told.benchmarks
    for probe, p in zip(_probes(plan, "item"), one.p, strict=True):
        assert p == (1 + sum(score >= scores[probe][0] for score in null)) / (len(null) + 1)


def test_a_rate_that_items_share_with_siblings_flags_nothing(plan: Prepared) -> None:
    """A corpus that matches everybody: at least one match for every item, and no claim."""
    everywhere = dict.fromkeys(range(len(plan.plan.probes)), (SEMANTIC, "semantic"))
    told = conclude(_sketch(plan, everywhere), plan)
    assert _metric(told, "flagged", tier="all") == 0
    assert word(told, "leak.near")[0] != "detected"


def test_identity_needs_no_p_value(plan: Prepared) -> None:
    """Found whole with 13 tokens or more: flagged though every sibling is found too; its placebo rate is printed."""
    every = dict.fromkeys(_probes(plan, "sibling"), (50000, "exact"))
    told = conclude(_sketch(plan, every | {_probes(plan, "item")[0]: (50_000, "exact")}), plan)
    assert _metric(told, "flagged", tier="exact") == 1
    assert _metric(told, "identity_rate") == 1
    (row,) = told.flagged.rows
    assert row.identity


def test_answer_near_makes_a_breach(plan: Prepared) -> None:
    leak = {_probes(plan, "item")[4]: (50_000, "exact")}
    severities = {}
    for near in ("no", "yes"):
        told = conclude(_sketch(plan, leak, near), plan)
        severities[near] = next(one.severity for one in told.findings if one.code == "leak.exact")
        assert word(told, "leak") == ("detected", None)
    assert severities == {"no": "concern", "yes": "breach"}


def test_template_matches_are_no_claim_without_supplied_placebos(plan: Prepared) -> None:
    asked = dataclasses.replace(plan.asked, gating_tiers=("exact", "near", "semantic", "template"))
    changed = dataclasses.replace(plan, asked=asked)
    told = conclude(_sketch(plan, {_probes(plan, "item")[0]: (9_000, "template")}), changed)
    assert _metric(told, "flagged", tier="template") == 0
    assert word(told, "leak.template") == ("inconclusive", "no_placebo")


def test_supplied_placebos_can_only_raise_p(tmp_path: Path) -> None:
    placebo = [row | {"item": f"p{at}", "origin": "private", "question": row["question"] + f" Case {at}."}
               for at, row in enumerate(ROWS * 3)]  # fmt: skip
    path = corpus_file(tmp_path, ["words " * 2000])
    with_role = prepared(path, ROWS, placebo=placebo, embed="off", asked=Asked(siblings=10))
    # 120 placebos give no p below 1/121, so that eight of 40 items must leak together to be flagged.
    leak = dict.fromkeys(_probes(with_role, "item")[:8], (SEMANTIC, "semantic"))
    alone = conclude(_sketch(with_role, leak), with_role)
    assert _metric(alone, "placebos") == 120
    # Placebos that match as well take the claim away; siblings alone would have made it.
    for at in _probes(with_role, "placebo")[:30]:
        leak[at] = (SEMANTIC, "semantic")
    told = conclude(_sketch(with_role, leak), with_role)
    assert _metric(alone, "flagged", tier="semantic") == 8
    assert _metric(alone, "min_flaggable") == 7
    assert _metric(told, "flagged", tier="semantic") == 0


def test_small_benchmarks_are_pooled_by_kind(tmp_path: Path) -> None:
    rows = ROWS[:30] + [row | {"benchmark": "other"} for row in benchmark_rows(10, seed=8)[0]]
    path = corpus_file(tmp_path, ["words " * 2000])
    plan = prepared(path, rows, embed="off", asked=Asked(siblings=12))
    told = conclude(_sketch(plan, {}), plan)
    siblings = len(_probes(plan, "sibling"))
    assert told.measured.find("null_items", benchmark="other") is not None
    assert [float(one.value) for one in told.measured.named("null_items")] == [siblings, siblings]
    assert {one.labels["benchmark"] for one in told.findings} == {"demo", "other"}


def test_placebos_that_score_too_low_are_a_mismatch(tmp_path: Path) -> None:
    rows, _ = benchmark_rows(240)
    path = corpus_file(tmp_path, ["words " * 2000])
    plan = prepared(path, rows, embed="off", asked=Asked(siblings=20))
    rng = np.random.default_rng(1)
    scores = {
        one.probe: (int(rng.normal(5850 if one.role == "item" else 5600, 300)), "related") for one in plan.plan.owners
    }
    assert word(conclude(_sketch(plan, scores), plan), "leak") == ("invalid", "placebo_mismatch")


def test_too_small_a_corpus_and_foreign_content_are_refused(plan: Prepared) -> None:
    sketch = _sketch(plan, {})
    shard = plan.plan.shards[0].digest
    small = dataclasses.replace(sketch, shards={shard: ShardCount(10, 1, 999)})
    with pytest.raises(Refusal, match="empty_corpus: corpus:words:999"):
        conclude(small, plan)
    with pytest.raises(Refusal, match="sketch_invalid: shard:"):
        conclude(dataclasses.replace(sketch, shards={"0" * 64: ShardCount(10, 1, 9999)}), plan)
    beyond = {len(plan.plan.probes): sketch.best.get(0, (Entry(1, "near", "0" * 32, 1, shard, 0, 0, 9, "no"),))}
    with pytest.raises(Refusal, match="sketch_invalid: probe:"):
        conclude(dataclasses.replace(sketch, best=beyond), plan)


def test_short_items_are_counted_and_not_named(tmp_path: Path) -> None:
    rows = [*ROWS, ROWS[0] | {"item": "short", "question": "Who wrote the green book?"},
            ROWS[0] | {"item": "tiny", "question": "Why 7?"}]  # fmt: skip
    path = corpus_file(tmp_path, ["words " * 2000])
    plan = prepared(path, rows, embed="off", asked=Asked(siblings=20))
    probe = next(one.probe for one in plan.plan.owners if one.item == "q0" and one.role == "item")
    told = conclude(_sketch(plan, {probe: (50_000, "exact")}), plan)
    assert _metric(told, "uncalibrated") == 2
    assert {one.item for one in told.measured.skipped} == {"demo/short", "demo/tiny"}
    facts = tuple(dataclasses.replace(one, tokens=7) if one.item == "q0" else one for one in plan.facts)
    told = conclude(_sketch(plan, {probe: (50_000, "exact")}), dataclasses.replace(plan, facts=facts))
    assert (len(told.flagged.rows), told.flagged.short) == (0, 1)


def test_a_benchmark_of_one_short_guess_tells_nothing_of_the_corpus(tmp_path: Path) -> None:
    guesses = [
        {"benchmark": f"guess{at}", "item": "g", "kind": "prose", "question": f"the secret code is {at}{at + 3}17"}
        for at in range(3)
    ]
    path = corpus_file(tmp_path, ["words " * 2000])
    plan = prepared(path, [*ROWS, *guesses], embed="off", asked=Asked(siblings=20))
    probes = [one.probe for one in plan.plan.owners if one.benchmark.startswith("guess") and one.role == "item"]
    assert len(probes) == 3
    silent, found = (
        conclude(_sketch(plan, scores), plan)
        for scores in ({}, dict(zip(probes, [(50_000, "exact"), (39_000, "near"), (28_000, "semantic")], strict=True)))
    )
    assert silent.measured == found.measured
    assert silent.controls == found.controls
    assert silent.findings == found.findings
    assert evidence_table(silent, plan, {}, b"k" * 32) == evidence_table(found, plan, {}, b"k" * 32)
    # Among twenty longer items a short one counts, without a name.
    padded = [
        {**guesses[0], "question": "how much is 45 and 76"},
        *({**row, "benchmark": "guess0"} for row in ROWS[:20]),
    ]
    plan = prepared(path, padded, embed="off", asked=Asked(siblings=20))
    probe = next(one.probe for one in plan.plan.owners if one.item == "g" and one.role == "item")
    told = conclude(_sketch(plan, {probe: (50_000, "exact")}), plan)
    assert (len(told.flagged.rows), told.flagged.short) == (0, 1)


def test_thirty_benchmarks_stay_below_the_cap_of_a_result(tmp_path: Path) -> None:
    drawn, texts = benchmark_rows(30 * 20)
    rows = [{**row, "benchmark": f"benchmark-{at % 30:02}{'x' * 20}"} for at, row in enumerate(drawn)]
    rewrites = [
        {"benchmark": row["benchmark"], "item": row["item"], "text": text, "depth": 2 + at % 4}
        for at, (row, text) in enumerate(zip(rows, texts, strict=True))
    ]
    path = corpus_file(tmp_path, ["words " * 2000])
    plan = prepared(path, rows, rewrites, asked=Asked(siblings=1))
    owners = [one.probe for one in plan.plan.owners if one.role == "item"][::3]
    told = conclude(_sketch(plan, dict.fromkeys(owners, (SEMANTIC, "semantic")), "yes"), plan)
    assert len(told.benchmarks) == BENCHMARKS_MAX
    parts = (told.measured, *told.controls, *told.findings)
    assert 2**16 < sum(len(one.model_dump_json()) for one in parts) < RESULT_CAP


def _code_rows(count: int) -> list[dict[str, object]]:
    return [
        {
            "benchmark": "demo", "item": f"c{at}", "kind": "code", "entry": f"f{at}",
            "question": f"Return the sum of the numbers in the list times {at + 3} and minus {at + 5}.",
            "reference": f"def f{at}(a):\n    total = 0\n    for x in a:\n        total += x\n"
            f"    return total * {at + 3} - {at + 5}\n",
            "probes": [[[1, 2]], [[3]], [[4, 4, 1]], [[0, 7]], [[9, -2]]],
        }
        for at in range(count)
    ]  # fmt: skip


def test_code_is_not_claimed_without_its_own_placebos(tmp_path: Path) -> None:
    """Idioms of code are everywhere: whatever is found, a claim needs 100 placebos of kind code (6.7)."""
    path = corpus_file(tmp_path, ["words " * 2000])
    rows = _code_rows(40)
    placebo = [row | {"item": f"p{at}", "origin": "private", "question": f"{row['question']} Case {at}."}
               for at, row in enumerate(rows * 3)]  # fmt: skip
    told = {}
    for name, supplied in (("with", placebo), ("few", placebo[:99]), ("without", [])):
        plan = prepared(path, rows, placebo=supplied, embed="off", asked=Asked(siblings=4))
        leaks = dict.fromkeys(_probes(plan, "item")[:12], (50_000, "exact"))
        told[name] = conclude(_sketch(plan, leaks), plan)
    assert word(told["with"], "leak.exact") == ("detected", None)
    for name in ("few", "without"):
        assert _metric(told[name], "flagged", tier="all") == 0
        assert _metric(told[name], "placebo_kind_items") == 40
        assert {word(told[name], code) for code in ("leak", "leak.exact", "leak.near")} == {
            ("inconclusive", "no_placebo")
        }


def test_words_of_the_question_are_no_size_of_code(tmp_path: Path) -> None:
    """A long question over `def add(a, b): return a + b`: that anybody's function is equal to it is no identity."""
    path = corpus_file(tmp_path, ["words " * 2000])
    rows = _code_rows(40)
    placebo = [row | {"item": f"p{at}", "origin": "private", "question": f"{row['question']} Case {at}."}
               for at, row in enumerate(rows * 3)]  # fmt: skip
    plan = prepared(path, rows, placebo=placebo, embed="off", asked=Asked(siblings=4))
    assert all(fact.tokens >= IDENTITY_TOKENS for fact in plan.facts)
    natural = dict.fromkeys([*_probes(plan, "item")[:12], *_probes(plan, "placebo")[:60]], (50_000, "exact"))
    told = conclude(_sketch(plan, natural), plan)
    assert _metric(told, "flagged", tier="all") == 0
    assert not told.benchmarks[0].identity.any()
    # Nor do planted copies count as found that no p-value would flag.
    (one,) = told.benchmarks
    fact = plan.facts[0]
    plant = PlantOutcome(0, fact.name, 0, "alone", "exact", 50_000)
    unreached = dataclasses.replace(one, lowest={"code": 50_001})
    assert [x.tier for x in reached(unreached, [plant], {fact.name: fact})] == [None]


def test_tiers_that_do_not_gate_are_no_leaks(plan: Prepared) -> None:
    """Near matches of an audit that gates exact ones: told as flagged near, and counted nowhere as leaks."""
    asked = dataclasses.replace(plan.asked, gating_tiers=("exact",))
    changed = dataclasses.replace(plan, asked=asked)
    scores = dict.fromkeys(_probes(plan, "item")[:30], (39_000, "near"))
    told = conclude(_sketch(plan, scores), changed)
    assert _metric(told, "flagged", tier="near") == 30
    assert _metric(told, "flagged", tier="all") == 0
    assert told.flagged_names() == {"demo": ()}
    assert not told.flagged.rows
    assert not told.hits
    assert evidence_table(told, changed, None, None)["flagged"] == []
    every = conclude(_sketch(plan, scores), plan)
    assert len(every.flagged_names()["demo"]) == len(every.flagged.rows) == 30


def test_siblings_of_tiers_that_do_not_gate_are_no_false_hits(plan: Prepared) -> None:
    (one,) = conclude(_sketch(plan, {}), plan).benchmarks
    (group,) = one.groups
    entries = tuple(Entry(39_000, "near", f"{at:032x}", 1, "0" * 64, 0, 0, 9, "no") for at in range(2))
    there = dataclasses.replace(group, sibling_best=(*entries, None))
    assert _false(there, 30_000, ("near",)).tolist() == [True, True, False]
    assert not _false(there, 30_000, ("exact",)).any()
    assert not _false(there, None, ("near",)).any()


def test_code_without_placebos_keeps_prose_from_passing_and_not_from_being_detected(tmp_path: Path) -> None:
    path = corpus_file(tmp_path, ["words " * 2000])
    plan = prepared(path, [*ROWS, *_code_rows(5)], embed="off", asked=Asked(siblings=20))
    prose = [one.probe for one in plan.plan.owners if one.role == "item" and one.item.startswith("q")]
    quiet = conclude(_sketch(plan, {}), plan)
    assert word(quiet, "leak.exact") == ("inconclusive", "no_placebo")
    found = conclude(_sketch(plan, {prose[0]: (50_000, "exact")}), plan)
    assert word(found, "leak.exact") == ("detected", None)
    assert found.flagged_names() == {"demo": ("demo/q0",)}


def test_shards_that_nobody_observed_are_told_in_the_sentence(plan: Prepared) -> None:
    told = conclude(_sketch(plan, {_probes(plan, "item")[0]: (50_000, "exact")}), plan)
    (one,) = (one for one in told.findings if one.code == "leak.exact")
    assert "1 shards were scanned elsewhere, which is declared and not observed" in one.claim
    assert "shards_declared" in {ref.name for ref in one.rests_on}


def test_a_share_is_told_with_the_smallest_q_value(plan: Prepared) -> None:
    """Told as corrected by Benjamini-Hochberg, so it must be: a raw p of 1 in 801 is no q-value of 40 items."""
    item = _probes(plan, "item")[0]
    told = conclude(_sketch(plan, {item: (SEMANTIC, "semantic")}), plan)
    share = told.measured.find("share.raw", benchmark="demo", tier="all")
    assert share is not None
    assert share.p is not None
    (one,) = told.benchmarks
    assert float(share.p) == pytest.approx(float(np.nanmin(one.q_values)), rel=1e-3)
    assert float(np.nanmin(one.q_values)) > 10 * float(np.nanmin(one.p))


def test_java_items_are_not_absent(tmp_path: Path) -> None:
    """Where no scan looks for most items, no tier says that the benchmark is not there: not even `exact` alone."""
    code = {"benchmark": "demo", "kind": "code", "language": "java", "question": "Write a class that adds two numbers."}
    rows = [*ROWS[:10], *({**code, "item": f"j{at}"} for at in range(20))]
    path = corpus_file(tmp_path, ["words " * 2000])
    plan = prepared(path, rows, embed="off", asked=Asked(siblings=20, gating_tiers=("exact",)))
    told = conclude(_sketch(plan, {}), plan)
    assert _metric(told, "unflaggable") >= 20
    assert word(told, "leak.exact")[0] == word(told, "leak")[0] == "inconclusive"
