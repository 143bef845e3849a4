"""What tools of this kind miss or count twice, held against whole scans of small corpora."""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from checks.check import Refusal
from checks.contamination.items import Item
from checks.contamination.normaliser import normalise
from checks.contamination.plan import Plan, Planted, ScanParameters, make_plan
from checks.contamination.scan import Scanner, scan
from checks.contamination.shards import ShardFailed, shards, stored
from checks.contamination.sketch import Entry, Sketch, empty, merge
from checks.contamination.sketch_reading import read_sketch

CANARY = "zqcanary"
FILLER = f"The committee {CANARY} discussed budgets for roads while rain fell outside on empty tennis courts. "
LICENCE = (
    "Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated "
    "documentation files, to deal in the software without restriction. "
)
QUESTION = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?"
)
BAKER = "A baker fills 12 trays with 9 rolls each and gives away 20 of them. How many rolls does the baker have left?"
SHORT = "Who wrote the green book?"


def _item(question: str, name: str = "q", benchmark: str = "demo", context: str | None = None) -> Item:
    return Item(benchmark, name, "prose", question, context=context)


def _plan(items: Sequence[Item], siblings: Sequence[tuple[Item, Item]] = (), **changed: object) -> Plan:
    parameters = dataclasses.replace(ScanParameters(embed="off"), **changed)  # type: ignore[arg-type]
    key = b"k" * 32
    return make_plan(items, siblings=siblings, parameters=parameters, window_key=key, rng=np.random.default_rng(3))


def _corpus(folder: Path, texts: Sequence[object], name: str = "c.jsonl") -> Path:
    path = folder / name
    rows = b"".join(json.dumps(text if isinstance(text, dict) else {"text": text}).encode() + b"\n" for text in texts)
    path.write_bytes(gzip.compress(rows) if name.endswith("gz") else rows)
    return path


def _scan(folder: Path, plan: Plan, texts: Sequence[object], size: int = 2**28) -> Sketch:
    scanner = Scanner(plan)
    whole = empty(plan.plan_sha256, plan.parameters.keep)
    for shard in shards([stored(_corpus(folder, texts))], size):
        whole = merge(whole, scan(shard, plan, scanner=scanner))
    return whole


def _best(plan: Plan, sketch: Sketch, name: str = "q", benchmark: str = "demo") -> Entry | None:
    (probe,) = (one.probe for one in plan.owners if (one.item, one.benchmark, one.role) == (name, benchmark, "item"))
    return next(iter(sketch.best.get(probe, ())), None)


def _tier(folder: Path, question: str, texts: Sequence[object]) -> str | None:
    plan = _plan([_item(question)])
    best = _best(plan, _scan(folder, plan, texts))
    return None if best is None else best.tier


def test_short_items_are_searched(tmp_path: Path) -> None:
    assert _tier(tmp_path, SHORT, [FILLER * 5, FILLER * 3 + SHORT + " " + FILLER]) == "exact"
    assert _tier(tmp_path, SHORT, [FILLER * 5 + "Who wrote the green play?"]) is None


@pytest.mark.parametrize(
    "written",
    [
        QUESTION.replace(". ", ".\n\n"),
        "\n".join(" ".join(QUESTION.split()[at : at + 8]) for at in range(0, 40, 8)),
        "<p>" + QUESTION.replace(". ", ".</p>\n<p>") + "</p>",
        "> " + QUESTION.replace(" and then", "\n> and then"),
        QUESTION.replace("48", "forty-eight").upper(),
        json.dumps(QUESTION.replace(". ", ".\n")),
    ],
    ids=["paragraphs", "wrapped", "html", "quoted", "words", "json"],
)
def test_item_across_paragraphs_and_wrapped_lines(tmp_path: Path, written: str) -> None:
    assert _tier(tmp_path, QUESTION, [FILLER * 4 + "\n\n" + written + "\n\n" + FILLER * 4]) == "exact"


def test_inline_copy(tmp_path: Path) -> None:
    inline = FILLER * 2 + "someone recalled that " + QUESTION.rstrip("?") + " was asked there, " + FILLER * 2
    assert _tier(tmp_path, QUESTION, [inline]) == "exact"


def test_small_changes_are_near(tmp_path: Path) -> None:
    changed = QUESTION.replace("altogether", "in total").replace("her friends", "her best friends")
    assert _tier(tmp_path, QUESTION, [FILLER + changed + " " + FILLER]) == "near"
    assert _tier(tmp_path, QUESTION, [FILLER + QUESTION.replace("48", "72") + " " + FILLER]) == "template"


def test_passage_quote_is_not_the_item(tmp_path: Path) -> None:
    passage = (
        "When the harbour froze in the winter of 1870 the fishermen walked across the ice to sell their nets. " * 2
    )
    item = _item("What did the fishermen cross to reach the market town?", context=passage)
    plan = _plan([item])
    sketch = _scan(tmp_path, plan, [FILLER + passage + FILLER])
    assert sketch.best == {}
    assert dict(sketch.contexts) == {0: 1}


def test_a_short_context_is_not_searched_for(tmp_path: Path) -> None:
    """A context of six words that is found would tell what a corpus holds: it has no p-value and no control."""
    short, long = "the password of alice is swordfish", "the old boat crossed the wide lake at dawn"
    items = [
        _item("What did the fishermen cross to reach the market town?", "a", context=short),
        _item("Which boat did the fishermen take to the other shore?", "b", context=long),
    ]
    plan = _plan(items)
    sketch = _scan(tmp_path, plan, [f"{FILLER} {short}. {FILLER}", f"{FILLER} {long}. {FILLER}"])
    assert {plan.probes[probe].context for probe in sketch.contexts} == {long}


def test_licence_boilerplate(tmp_path: Path) -> None:
    """13-grams of a licence stand everywhere; an item that begins with one is not found by it."""
    item = (
        LICENCE + "Under this text, which 3 of the 14 listed uses would a school with 250 pupils still have to pay for?"
    )
    assert _tier(tmp_path, item, [FILLER + LICENCE + FILLER, LICENCE * 3]) not in ("exact", "near", "semantic")
    assert _tier(tmp_path, item, [FILLER + item]) == "exact"


def test_two_benchmarks_share_an_ngram(tmp_path: Path) -> None:
    other = QUESTION.replace("in April, and then she sold half as many", "on Sunday, later losing 7 of the")
    plan = _plan([_item(QUESTION, benchmark="one"), _item(other, benchmark="two")])
    sketch = _scan(tmp_path, plan, [FILLER + QUESTION, FILLER + other])
    for benchmark in ("one", "two"):
        best = _best(plan, sketch, benchmark=benchmark)
        assert best is not None
        assert best.tier == "exact"


def test_scores_are_filled_on_every_path(tmp_path: Path) -> None:
    near = BAKER.replace("gives away", "then gives away").replace("each and", "each, and")
    plan = _plan([_item(QUESTION, "long"), _item(SHORT, "short"), _item(BAKER, "near")])
    sketch = _scan(tmp_path, plan, [FILLER + QUESTION, SHORT, near, FILLER + QUESTION.replace("48", "72")])
    told = {name: _best(plan, sketch, name) for name in ("long", "short", "near")}
    assert {name: entry and entry.tier for name, entry in told.items()} == {
        "long": "exact",
        "short": "exact",
        "near": "near",
    }
    assert told["long"] is not None
    assert told["near"] is not None
    assert told["long"].score == 50_000
    assert 30_000 + 7_500 <= told["near"].score <= 40_000
    assert {entry.tier for entries in sketch.best.values() for entry in entries} == {"exact", "near", "template"}
    assert sum(n for counts in sketch.tiers.values() for n in counts.values()) == 4


def test_exact_comes_from_strings(tmp_path: Path) -> None:
    """Equal hashes are not believed: with every word hashed alike, nothing but the item itself is exact."""
    plan = _plan([_item(QUESTION)])
    scanner = Scanner(plan)
    hashes = scanner._seeds.hashes[0]
    (hit,) = (hit for _, hits, *_ in scanner.texts([FILLER + QUESTION]) for hit in hits)
    whole = (FILLER + QUESTION).encode()
    assert whole[hit.start : hit.end].decode() == QUESTION.rstrip("?")
    assert (hit.tier, hit.score) == ("exact", 50_000)
    # A stretch that the hashes call equal and that differs by a word is compared word by word.
    one_off = QUESTION.replace("friends", "cousins")
    with pytest.MonkeyPatch.context() as patch:
        from checks.contamination import scan as scan_module
        from checks.contamination.search import Stretch

        patch.setattr(scan_module, "search", lambda *_: [Stretch(0, 0, 0, len(hashes))])
        hits = [hit for _, found, *_ in scanner.texts([one_off]) for hit in found]
    assert [hit.tier for hit in hits] == ["near"]


def test_retried_shard_is_counted_once(tmp_path: Path) -> None:
    plan = _plan([_item(QUESTION), _item(SHORT, "s")])
    one, two = shards([stored(_corpus(tmp_path, [QUESTION, SHORT + " " + FILLER, FILLER, QUESTION]))], 300)[:2]
    first, again, other = scan(one, plan), scan(one, plan), scan(two, plan)
    assert first.to_bytes() == again.to_bytes()
    assert merge(merge(first, other), again) == merge(first, other)


def test_number_of_shards_changes_no_score(tmp_path: Path) -> None:
    texts = [FILLER + QUESTION, SHORT, QUESTION.replace("May", "June"), *[FILLER * 3] * 9, BAKER, QUESTION] * 3
    plan = _plan([_item(QUESTION), _item(SHORT, "s"), _item(BAKER, "b")])
    seen = []
    for size in (2**28, 2000, 300):
        sketch = _scan(tmp_path, plan, texts, size)
        seen.append({probe: [entry[:4] + entry[8:] for entry in rows] for probe, rows in sketch.best.items()})
        assert sum(count.words for count in sketch.shards.values()) == sum(
            len(normalise(text).tokens) for text in texts
        )
        assert read_sketch(sketch.to_bytes()) == sketch
    assert seen[0] == seen[1] == seen[2]


def test_no_text_of_the_corpus_is_in_the_sketch(tmp_path: Path) -> None:
    plan = _plan([_item(QUESTION)])
    assert CANARY.encode() not in _scan(tmp_path, plan, [FILLER + QUESTION + FILLER]).to_bytes()


def test_roles_are_not_read_by_the_scan(tmp_path: Path) -> None:
    sibling = QUESTION.replace("48", "72")
    plan = _plan([_item(QUESTION)], siblings=[(_item(QUESTION), _item(sibling, "q.s1"))])
    blind = dataclasses.replace(plan, owners=())
    texts = [FILLER + QUESTION, sibling]
    assert _scan(tmp_path, plan, texts).best == _scan(tmp_path, blind, texts).best
    assert b"sibling" not in plan.document()
    assert plan.plan_sha256 != blind.plan_sha256


def test_bad_records_beyond_the_share_fail_the_shard(tmp_path: Path) -> None:
    path = _corpus(tmp_path, [FILLER, {"body": CANARY}, FILLER])
    (shard,) = shards([stored(path)])
    with pytest.raises(ShardFailed) as told:
        scan(shard, _plan([_item(QUESTION)]))
    assert (told.value.reason, told.value.at) == ("bad_records", "c.jsonl:record:1")
    sketch = scan(shard, _plan([_item(QUESTION)], max_bad_share=5000))
    (count,) = sketch.shards.values()
    assert (count.docs, dict(count.bad)) == (3, {"no_text": 1})


def test_overlap_of_a_long_text_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from checks.contamination import documents

    monkeypatch.setattr(documents, "LONGEST", 8000)
    monkeypatch.setattr(documents, "OVERLAP_CAP", 6000)
    plan = _plan([_item(QUESTION)])
    text = FILLER * 70 + QUESTION + " " + FILLER * 70  # within what the first two pieces share
    sketch = _scan(tmp_path, plan, [text])
    best = _best(plan, sketch)
    assert best is not None
    assert best.copies == 1
    assert text.encode()[best.start : best.end].decode() == QUESTION.rstrip("?")


def test_other_languages_are_counted(tmp_path: Path) -> None:
    plan = _plan([_item(QUESTION)])
    german = "Der Hund lief schnell durch den Wald und sah dabei viele kleine Tiere am Weg liegen. " * 3
    sketch = _scan(tmp_path, plan, [FILLER * 3, german + QUESTION.upper(), german])
    (count,) = sketch.shards.values()
    assert 0 < count.other_language_words < count.words
    assert _best(plan, sketch) is not None  # they pass the token stage all the same


def test_identical_questions_have_one_probe_and_two_owners() -> None:
    plan = _plan([_item(QUESTION, "a"), _item(SHORT, "b"), _item(QUESTION.upper(), "c")])
    assert len(plan.probes) == 2
    assert plan.duplicates() == (("demo/a", "demo/c"),)


def test_plan_is_fixed_by_its_digest() -> None:
    items = [_item(QUESTION), _item(SHORT, "s"), _item(BAKER, "b")]
    assert _plan(items).plan_sha256 == _plan(items).plan_sha256
    changed = [_plan(items, keep=8), _plan(items, near_lcs=8000), _plan(items[:2])]
    assert len({plan.plan_sha256 for plan in (_plan(items), *changed)}) == 4
    plant = Planted(id=0, probe=2, text="x", depth=1, placement="alone", shard=0, at=5)
    plan = make_plan(items, plants=[plant], window_key=b"k" * 16, rng=np.random.default_rng(1))
    assert plan.probes[plan.plants[0].probe].text == BAKER
    with pytest.raises(ValueError, match="window key"):
        make_plan(items, window_key=b"short", rng=np.random.default_rng(1))


def test_sketches_of_two_plans_are_refused(tmp_path: Path) -> None:
    one, two = _plan([_item(QUESTION)]), _plan([_item(SHORT)])
    with pytest.raises(Refusal, match="other_plan"):
        merge(_scan(tmp_path, one, [FILLER]), _scan(tmp_path, two, [FILLER]))
