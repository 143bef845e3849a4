"""Taking anything away never turns a word into a pass (contamination, 14.5)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from assay.result import ControlResult, Finding, Measured

from checks.contamination.conclude import Conclusion, conclude
from checks.contamination.findings import findings
from checks.contamination.items import read_benchmark
from checks.contamination.planning import Asked, Prepared
from checks.contamination.sketch import Entry, ShardCount, Sketch
from checks.contamination.words import DETECTED, NOT_DETECTED
from tests.checks.contamination.audited import (
    WordEncoder,
    benchmark_rows,
    corpus_file,
    prepared,
    rewrite_rows,
    word,
)
from tests.checks.contamination.test_findings import worlds

ROWS, REWORDINGS = benchmark_rows(40)
REWRITES = rewrite_rows(ROWS, REWORDINGS)
PLACEBO = [row | {"item": f"p{at}", "origin": "private", "question": f"{row['question']} Case {at}."}
           for at, row in enumerate(ROWS * 3)]  # fmt: skip
ENCODER = WordEncoder()


def no_pass(less: Iterable[Finding], full: Iterable[Finding], of: object) -> None:
    before = {(one.code, one.labels["benchmark"]): one.word for one in full}
    for one in less:
        was = before[one.code, one.labels["benchmark"]]
        assert one.word != NOT_DETECTED or was == NOT_DETECTED, (of, one.code, was, one.word)


def _without_a_label(labels: Mapping[str, str]) -> Iterator[dict[str, str]]:
    for name in labels:
        yield {key: value for key, value in labels.items() if key != name}


def test_no_number_control_or_label_makes_a_pass_by_being_away() -> None:
    for real, held in worlds()[::11]:
        full = findings(real, held, ())
        for place, metric in enumerate(real.metrics):
            rest = (*real.metrics[:place], *real.metrics[place + 1 :])
            for less in (rest, *((*rest, metric.model_copy(update={"labels": told}))
                                 for told in _without_a_label(metric.labels))):  # fmt: skip
                no_pass(findings(Measured(coverage=real.coverage, metrics=less), held, ()), full, metric)
        for place, control in enumerate(held):
            others: tuple[ControlResult, ...] = (*held[:place], *held[place + 1 :])
            no_pass(findings(real, others, ()), full, control)
            no_pass(findings(real, held, {control.name}), full, control)
            for told in _without_a_label(control.labels):
                changed = (*others, control.model_copy(update={"labels": told}))
                no_pass(findings(real, changed, ()), full, control)


@dataclasses.dataclass(frozen=True)
class Scored:
    """A corpus as a function from a text to its best match, and from a plant's source to how often it is found."""

    best: dict[str, tuple[int, str]]
    found: dict[str, float]

    def sketch(self, plan: Prepared) -> Sketch:
        shards = plan.plan.shards
        digest = shards[0].digest
        told = {probe.id: self.best[probe.text] for probe in plan.plan.probes if probe.text in self.best}
        best = {probe: (Entry(score, tier, f"{probe:032x}", 1, digest, 0, 0, 9, "no"),)
                for probe, (score, tier) in told.items()}  # fmt: skip
        seen: dict[str, int] = {}
        plants = {}
        for plant, source in zip(plan.plan.plants, plan.sources, strict=True):
            name = "verbatim" if plant.depth < 2 and source == "automatic" else source
            seen[name] = seen.get(name, 0) + 1
            if seen[name] * 37 % 100 < 100 * self.found.get(name, 0):
                score, tier = (50_000, "exact") if plant.depth < 2 else (29_000, "semantic")
                plants[plant.id] = (Entry(score, tier, "0" * 32, 1, digest, 0, 0, 9, "no"),)
        counts = {one.digest: ShardCount(2000, 9, 2000, windows=9, embedded=9, origin="declared") for one in shards}
        return Sketch(plan.plan.plan_sha256, 16, counts, best, plants, {}, {})


def _matches(plan: Prepared, leaks: int) -> dict[str, tuple[int, str]]:
    """Return what probes reach by chance, and so many items that leaked."""
    rng = np.random.default_rng(8)
    best = {one.text: (int(rng.integers(5000, 6500)), "related") for one in plan.plan.probes}
    for row in ROWS[:leaks]:
        best[row["question"]] = (29_500, "semantic")
    return best


EVERY = {"verbatim": 1.0, "automatic": 1.0, "rewrites": 1.0, "authored": 1.0}


def _plan(path: Path, **left_out: Any) -> Prepared:
    told: dict[str, Any] = {
        "rewrites": REWRITES,
        "placebo": PLACEBO,
        "asked": Asked(siblings=10),
        "shard_bytes": 8192,
    } | left_out
    return prepared(path, ROWS, told.pop("rewrites"), told.pop("placebo"), **told)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus_file(tmp_path_factory.mktemp("m"), ["words " * 200] * 12)


def _said(plan: Prepared, scored: Scored, **away: Any) -> Conclusion:
    return conclude(dataclasses.replace(scored.sketch(plan), **away), plan, encoder=ENCODER)


WORLDS: dict[str, tuple[int, dict[str, float]]] = {
    "silent": (0, EVERY),
    "leaking": (12, EVERY),
    "weak": (0, EVERY | {"rewrites": 0.4}),
    "families_missed": (0, EVERY | {"authored": 0.3}),
    "verbatim_missed": (12, EVERY | {"verbatim": 0.5}),
}


FIRST = ("silent", "weak")


@pytest.mark.parametrize("name", [one if one in FIRST else pytest.param(one, marks=pytest.mark.slow) for one in WORLDS])
def test_no_role_shard_or_plant_makes_a_pass_by_being_away(path: Path, name: str) -> None:
    leaks, found = WORLDS[name]
    plan = _plan(path)
    scored = Scored(_matches(plan, leaks), found)
    full = _said(plan, scored)
    expected = {"silent": NOT_DETECTED, "leaking": DETECTED}.get(name, "inconclusive")
    assert word(full, "leak.semantic")[0] == expected
    sketch = scored.sketch(plan)
    for digest in list(sketch.shards)[-1:]:
        rest = {one: count for one, count in sketch.shards.items() if one != digest}
        no_pass(_said(plan, scored, shards=rest).findings, full.findings, digest)
    for place in list(sketch.plants)[::40]:
        rest_plants = {one: told for one, told in sketch.plants.items() if one != place}
        no_pass(_said(plan, scored, plants=rest_plants).findings, full.findings, place)
    no_pass(_said(plan, scored, plants={}).findings, full.findings, "plants")
    no_pass(conclude(sketch, plan).findings, full.findings, "encoder")
    away: dict[str, dict[str, Any]] = {
        "no plants": {"asked": Asked(siblings=10, plant_share=0)},
        "no embedding": {"embed": "off"},
        "no families": {"authored": ((read_benchmark(ROWS)[0], REWORDINGS[0]),)},
    }
    away["no rewrites"] = {"rewrites": ()}
    for what, left_out in away.items():
        less = _plan(path, **left_out)
        told = Scored(_matches(less, leaks) | scored.best, found)
        no_pass(_said(less, told).findings, full.findings, what)


def test_leaving_placebos_out_can_make_a_claim_and_no_pass(path: Path) -> None:
    """Two nulls, the larger p counts: without the second a word may become `detected`, which is no pass."""
    plan = _plan(path)
    scored = Scored(_matches(plan, 3), EVERY)
    full = _said(plan, scored)
    assert word(full, "leak.semantic")[0] == NOT_DETECTED  # 120 placebos: fewer than seven leaks cannot be flagged
    without = _said(_plan(path, placebo=()), scored)
    assert word(without, "leak.semantic")[0] == DETECTED
    no_pass(without.findings, full.findings, "placebo")


def test_without_the_auditors_rewrites_nothing_semantic_passes(path: Path) -> None:
    """What is found of authored items is told, and is no pass: leaving a role out never makes one (14.5)."""
    for found in (EVERY, EVERY | {"rewrites": 0.4}):
        plan = _plan(path, rewrites=())
        told = _said(plan, Scored(_matches(plan, 0), found))
        (one,) = (one for one in told.findings if one.code == "leak.semantic")
        assert (one.word, one.labels["reason"]) == ("inconclusive", "no_recall")
        assert "measured on authored items, not on yours" in one.claim
        assert word(told, "leak") == ("inconclusive", "no_recall")
        assert word(told, "leak.near")[0] == NOT_DETECTED


def test_silence_says_nothing_where_nothing_could_be_flagged(tmp_path: Path) -> None:
    """Ten items with one sibling each: no p-value is small enough, however many leak."""
    path = corpus_file(tmp_path, ["words " * 2000])
    plan = prepared(path, ROWS[:10], rewrite_rows(ROWS, REWORDINGS)[:10], asked=Asked(siblings=1))
    told = _said(plan, Scored(_matches(plan, 0), EVERY))
    fewest = told.measured.find("min_flaggable", benchmark="demo")
    assert fewest is not None
    assert float(fewest.value) > 10
    assert word(told, "leak.near") == ("inconclusive", "underpowered")
    assert word(told, "leak")[0] == "inconclusive"
