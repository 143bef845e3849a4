"""What an auditor may have of a match: never text of a corpus that was not granted."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pytest
from assay import canonical
from assay.result import Plot

from checks.contamination.bounded import MATCHES_MAX, bounded
from checks.contamination.commitments import commit, commit_source, held
from checks.contamination.conclude import Conclusion, conclude
from checks.contamination.evidence_rows import NO_SOURCE, OTHERS, SOURCES_MAX, flagged_table, sources_by_hits
from checks.contamination.evidence_table import evidence_table
from checks.contamination.highlights import highlights
from checks.contamination.planning import Asked, Prepared
from checks.contamination.plots import best_cosine, merged_bins
from checks.contamination.sketch import Entry
from tests.checks.contamination.audited import (
    CANARY,
    benchmark_rows,
    corpus_file,
    docstrings,
    merged,
    prepared,
    scanned,
)

ROWS, REWORDINGS = benchmark_rows(20)
KEY = b"k" * 32
SECRET = f"mail {CANARY}.x@example.org or call +49 30 1234567 about 123456789012"


@dataclasses.dataclass(frozen=True)
class World:
    plan: Prepared
    told: Conclusion
    spans: dict[Any, bytes]
    sources: dict[Any, str]
    text: str

    def table(self, evidence: Literal["none", "commit", "reveal"], key: bytes | None = KEY) -> dict[str, Any]:
        asked = dataclasses.replace(self.plan.asked, evidence=evidence)
        return evidence_table(self.told, dataclasses.replace(self.plan, asked=asked), self.spans, key, self.sources)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two items in a corpus whose every document holds a canary, one of them between canaries."""
    leaks = [f"{ROWS[0]['question']}", ROWS[1]["question"].replace("How many", f"{SECRET} How many")]
    texts = [f"{text}\n\n{leak}\n\n{CANARY}" for text, leak in zip(docstrings(2500), leaks, strict=False)]
    path = corpus_file(tmp_path_factory.mktemp("e"), [*texts, *docstrings(2500)[2:]])
    plan = prepared(path, ROWS, embed="off", asked=Asked(siblings=20))
    told = conclude(merged(plan, scanned(plan, path)), plan)
    read = held(told.places(), plan.plan.shards)
    return World(
        plan, told, {at: one.span for at, one in read.items()}, dict.fromkeys(read, f"web/{CANARY}"), path.read_text()
    )


def test_no_canary_leaves_under_commit_or_none(world: World) -> None:
    assert CANARY in world.text
    assert any(CANARY.encode() in span for span in world.spans.values())
    for evidence in ("commit", "none"):
        assert CANARY not in json.dumps(world.table(evidence))
    assert CANARY not in json.dumps(world.table("reveal", key=None))
    assert CANARY not in repr(world.told)


def test_commit_tells_place_free_commitments_and_highlights(world: World) -> None:
    told = world.table("commit")
    assert canonical.dumps(told)
    assert told["evidence"] == "commit"
    assert [row["item"] for row in told["rows"]] == ["demo/q0", "demo/q1"]
    for row, entry in zip(told["rows"], world.told.flagged.rows, strict=True):
        place = entry.entry
        span = world.spans[place.shard, place.doc, place.start, place.end]
        assert row["commitment"] == commit(KEY, place, span)
        assert row["bytes"] == len(span)
        assert "revealed" not in row
        assert not {"doc", "start", "shard", "entry"} & row.keys()
    question = ROWS[0]["question"].encode()
    ((begin, end),) = told["rows"][0]["highlights"]
    assert question[begin:end].rstrip(b"?") == question.rstrip(b"?")
    assert told["unread"] == 0
    assert told["sources"] == [{"source": commit_source(KEY, f"web/{CANARY}"), "matches": 2, "copies": 2}]


def test_names_of_sources_leave_only_where_the_auditor_gave_them_or_under_reveal(world: World) -> None:
    name = f"web/{CANARY}"
    assert [one["source"] for one in world.table("reveal")["sources"]] == [f"web_{CANARY}"]
    assert CANARY not in json.dumps(world.table("commit"))
    parameters = dataclasses.replace(world.plan.plan.parameters, always_embed=("books", name))
    plan = dataclasses.replace(world.plan, plan=dataclasses.replace(world.plan.plan, parameters=parameters))
    told = evidence_table(world.told, plan, world.spans, KEY, world.sources)
    assert [one["source"] for one in told["sources"]] == [f"web_{CANARY}"]
    assert commit_source(KEY, "a") not in (commit_source(KEY, "b"), commit_source(KEY[::-1] + b"x", "a"))


def test_none_or_no_key_tells_counts_only(world: World) -> None:
    for told, why in ((world.table("none"), "parameter"), (world.table("commit", key=None), "no_key")):
        assert (told["evidence"], told["why_counts"], told["rows"]) == ("counts", why, [])
        assert told["flagged"] == [
            {"benchmark": "demo", "tier": "exact", "items": 1}, {"benchmark": "demo", "tier": "near", "items": 1}
        ]  # fmt: skip
        assert "sources" not in told
        assert "demo/q" not in json.dumps(told)


def test_reveal_masks_addresses_and_long_numbers(world: World) -> None:
    told = world.table("reveal")
    shown = " ".join(row["revealed"] for row in told["rows"])
    assert "[e-mail]" in shown
    assert "[number]" in shown
    assert "1234567" not in shown
    assert "example.org" not in shown
    assert CANARY not in shown  # it stood in the address
    assert all(len(row["revealed"]) <= 300 for row in told["rows"])


def test_a_span_that_was_not_read_is_said_so(world: World) -> None:
    told = evidence_table(world.told, world.plan, None, KEY)
    assert told["unread"] == 2
    assert {row["commitment"] for row in told["rows"]} == {None}
    assert "sources" not in told


def test_short_items_stand_in_counts_only(world: World) -> None:
    facts = tuple(dataclasses.replace(one, tokens=7) for one in world.plan.facts)
    plan = dataclasses.replace(world.plan, facts=facts)
    flags = dataclasses.replace(world.told.benchmarks[0], facts=facts)
    told = dataclasses.replace(world.told, flagged=flagged_table([flags]), benchmarks=(flags,))
    shown = evidence_table(told, plan, world.spans, KEY)
    assert (shown["rows"], shown["short"]) == ([], {"items": 2, "under_tokens": 8})


def test_a_table_that_does_not_fit_loses_its_last_rows_and_not_itself(world: World) -> None:
    table = world.table("commit")
    one = table["rows"][0]
    wide = one | {"highlights": [[at, at + 1] for at in range(0, 20_000, 2)]}
    many = {**table, "rows": [wide, *(one | {"item": f"demo/q{at}"} for at in range(2000))], "more": 3}
    data = bounded(many)
    told = json.loads(data)
    assert MATCHES_MAX - 400 < len(data) <= MATCHES_MAX == 32_768
    assert len(told["rows"]) > 50
    assert len(told["rows"]) + told["more"] == 2004
    assert [row["item"] for row in told["rows"][:2]] == ["demo/q0", "demo/q1"]
    assert json.loads(bounded(table)) == table


def test_highlights_are_bytes_of_the_question() -> None:
    question = "Ää: a baker fills 14 trays, then sells 120 rolls."
    data = question.encode()
    near = [
        data[begin:end].decode() for begin, end in highlights(question, b"A baker fills 14 trays and sells", "near")
    ]
    assert near == ["a baker fills 14 trays", "sells"]
    other = b"120 rolls were sold of fourteen trays by a baker"
    told = [data[begin:end].decode() for begin, end in highlights(question, other, "semantic")]
    assert told == ["baker", "14 trays", "120 rolls"]


def test_sources_are_bounded_names(world: World) -> None:
    entries = [Entry(1, "near", f"{at:032x}", 2, "0" * 64, at, 0, 9, "no") for at in range(SOURCES_MAX + 5)]
    named = {("0" * 64, at, 0, 9): f"{CANARY} \u00e9\n{at:03}" for at in range(SOURCES_MAX + 5)}
    rows = sources_by_hits(entries, named)
    assert len(rows) == SOURCES_MAX + 1
    assert (rows[-1].source, rows[-1].matches, rows[-1].copies) == (OTHERS, 5, 10)
    assert all(one.source[0].isalnum() and one.source.isascii() and len(one.source) <= 128 for one in rows)
    assert sources_by_hits(entries[:1], {("0" * 64, 0, 0, 9): ""})[0].source == NO_SOURCE
    assert sources_by_hits(entries, {}) == ()


def test_plots_tell_no_single_item(world: World) -> None:
    titles = [one.title for one in world.told.measured.plots]
    assert [one.split(":")[0] for one in titles] == [
        "Best match of items and of their siblings", "p-values of items against uniform",
        "Planted rewordings that are found",
    ]  # fmt: skip
    histogram: Plot = world.told.measured.plots[0]
    for one in histogram.series:
        assert abs(sum(map(float, one.y)) - 1) < 0.01
    rng = np.random.default_rng(3)
    items, siblings = rng.integers(0, 10_001, 60), rng.integers(0, 10_001, 900)
    bars = merged_bins(items, siblings)
    assert len(bars) > 3
    assert min(min(bar[2:]) for bar in bars) >= 5
    assert (sum(bar[2] for bar in bars), sum(bar[3] for bar in bars)) == (60, 900)
    assert (bars[0][0], bars[-1][1]) == (0, 10_000)
    assert all(left[1] == right[0] for left, right in pairwise(bars))
    assert merged_bins(items[:2], siblings) == ((0, 10_000, 2, 900),)


def test_a_best_cosine_is_read_from_a_score() -> None:
    def told(score: int, tier: str) -> int:
        return best_cosine(Entry(score, tier, "0" * 32, 1, "0" * 64, 0, 0, 1, "no"))

    assert (told(28_123, "semantic"), told(16_500, "related"), told(8_400, "template")) == (8123, 6500, 8400)
    assert (told(50_000, "exact"), told(37_500, "near"), best_cosine(None)) == (10_000, 10_000, 0)
