"""What `contamination` finds and wrongly finds, beside other tools: detection quality, specification, section 13.

Run: `FOLDER/bin/python -m benchmarks.contamination_quality`, from the environment of contamination_speed_peers.py to
have the peers in it. Writes contamination_quality.json beside itself. The benchmark is the prose of the authored TEST
families, on which nothing is tuned. Each version of each item, rewordings and hard negatives alike, is put into a
document of its own between other text; documents without any are the background. A tool flags pairs of an item and
a document. Intervals are Wilson's and take pairs as independent; draws of a family are not, so they are too narrow.
"""

from __future__ import annotations

import os

# Before numpy is imported: its BLAS counts its threads once.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.contamination_quality_methods import (
    Pair,
    Planted,
    Remembered,
    Scores,
    cosines,
    grams,
    lsh,
    trove,
    windows_of,
)
from benchmarks.contamination_speed_peers import versions
from benchmarks.contamination_speed_texts import mixed, write
from checks.contamination.items import Item
from checks.contamination.plan import Plan, ScanParameters, make_plan
from checks.contamination.scan import scan
from checks.contamination.shards import shards, stored
from checks.organisms import families
from checks.organisms.families import draws
from checks.statistics import proportion_interval

TABLE = Path(__file__).with_suffix(".json")
SEED = 23
POSITIVE = {"verbatim": 0, "light": 2, "reworded": 5}
"""Versions that ask what the item asks, and their depth."""
AROUND = 40
"""Words of other text before and behind a version."""
KEEP = 64
"""Matches of a probe that a sketch keeps: more than a family has documents."""
DISCOVERIES = 0.01
"""Share of false ones among the pairs that a threshold accepts."""
GATING = ("exact", "near", "semantic")


def corpus(count: int, background: int) -> tuple[list[Item], list[Planted]]:
    """Return items and documents."""
    drawn = [
        one
        for family in families.test()
        if family.kind != "code"
        for one in draws(family, np.random.default_rng([SEED, *family.name.encode()]), count)
    ]
    texts = mixed(4_000_000, SEED)
    words = " ".join(texts[background:]).split()
    held: list[Planted] = []
    for number, one in enumerate(drawn):
        versions_ = [("verbatim", one.item.question)] + ([("light", one.light)] if one.light else [])
        versions_ += [(each.how, each.text) for each in (*one.rewordings, *one.negatives)]
        for how, text in versions_:
            at = 2 * AROUND * len(held)
            before, behind = (" ".join(words[a : a + AROUND]) for a in (at, at + AROUND))
            held.append(Planted(f"{before}.\n\n{text}\n\n{behind}.", number, how))
    held += [Planted(text, -1, "background") for text in texts[:background]]
    items = [replace(one.item, item=f"i{number}") for number, one in enumerate(drawn)]
    return items, held


def scanned(items: Sequence[Item], held: Sequence[Planted], encoder: Any) -> tuple[dict[str, dict[Pair, int]], int]:
    """Return the scores of what a scan finds, by tier, and the windows that it embedded."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "corpus.jsonl"
        write([one.text for one in held], path)
        parameters = ScanParameters(embed="all" if encoder else "off", keep=KEEP, languages=("any",))
        plan: Plan = make_plan(
            items,
            shards=shards([stored(path)]),
            parameters=parameters,
            window_key=bytes(32),
            rng=np.random.default_rng(SEED),
        )
        sketch = scan(plan.shards[0], plan, encoder)
    place = {owner.probe: int(owner.item[1:]) for owner in plan.owners}
    tiers: dict[str, dict[Pair, int]] = {}
    for probe, entries in sketch.best.items():
        for entry in entries:
            told = tiers.setdefault(entry.tier, {})
            pair = place[probe], entry.doc
            told[pair] = max(told.get(pair, 0), entry.score)
    return tiers, sum(one.embedded for one in sketch.shards.values())


def joined(tiers: Mapping[str, Mapping[Pair, int]], names: Sequence[str]) -> Scores:
    """Return the best score of each pair in some tiers."""
    out: dict[Pair, float] = {}
    for name in names:
        for pair, score in tiers.get(name, {}).items():
            out[pair] = max(out.get(pair, 0), score)
    return out


def quality(scores: Scores, held: Sequence[Planted], background: int) -> Mapping[str, Any]:
    """Return recall by version, hard negatives that are called duplicates, and false pairs.

    Args:
        scores: accepted pairs.
        held: the corpus.
        background: windows in documents without any version.
    """
    hows = sorted({one.how for one in held} - {"background"})
    rows = {}
    for how in hows:
        docs = [doc for doc, one in enumerate(held) if one.how == how]
        rows[how] = _share(sum((held[doc].item, doc) in scores for doc in docs), len(docs))
    false = [pair for pair in scores if not _true(pair, held)]
    stray = {doc for _, doc in false if held[doc].item < 0}
    low, high = proportion_interval(len(stray), background)
    return {
        "recall": {f"{how}, depth {POSITIVE[how]}": rows[how] for how in POSITIVE},
        "hard_negatives_called_duplicates": {how: rows[how] for how in hows if how not in POSITIVE},
        "accepted_pairs": len(scores),
        "false_discovery_rate": _share(len(false), len(scores)) if scores else None,
        "background_hits_per_million_windows": [round(1e6 * x) for x in (len(stray) / background, low, high)],
    }


def at_rate(scores: Scores, held: Sequence[Planted]) -> Mapping[str, Any]:
    """Return recall by version where at most 1 % of the accepted pairs are false, with and without hard negatives.

    Without them, false are pairs with a version of another item, or with the background.
    """
    plain = {
        (item, doc): score
        for (item, doc), score in scores.items()
        if held[doc].item != item or held[doc].how in POSITIVE
    }
    return {"all documents": _accepted(scores, held), "no hard negatives": _accepted(plain, held)}


def _accepted(scores: Scores, held: Sequence[Planted]) -> Mapping[str, Any]:
    ranked = sorted(scores.items(), key=lambda one: -one[1])
    best, false = 0, 0
    for place, (pair, score) in enumerate(ranked, 1):
        false += not _true(pair, held)
        last = place == len(ranked) or ranked[place][1] < score  # equal scores are taken together
        if last and false <= DISCOVERIES * place:
            best = place
    told = quality(dict(ranked[:best]), held, 1)["recall"]
    return {"threshold": round(ranked[best - 1][1], 4) if best else None, "accepted_pairs": best, "recall": told}


def _true(pair: tuple[int, int], held: Sequence[Planted]) -> bool:
    item, doc = pair
    return held[doc].item == item and held[doc].how in POSITIVE


def _share(found: int, n: int) -> list[float]:
    return [round(float(x), 4) for x in (found / n, *proportion_interval(found, n))] + [n]


def main() -> None:
    """Measure every method and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=3, help="items of a family")
    parser.add_argument("--background", type=int, default=60, help="documents without any version")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    items, held = corpus(asked.draws, asked.background)
    told, encoder = windows_of(items, held), Remembered()
    empty = sum(held[doc].item < 0 for rows in told.values() for doc, _ in rows)
    tiers, embedded = scanned(items, held, encoder)
    text_gates = joined(scanned(items, held, None)[0], GATING)
    gates = joined(tiers, GATING)
    near, overlap = cosines(items, told, encoder), grams(items, held)
    runs: dict[str, Callable[[], Scores]] = {
        "ours, cascade": lambda: gates,
        "ours, embed off": lambda: text_gates,
        "brute-force MiniLM cosine >= .75": lambda: {pair: score for pair, score in near.items() if score >= 0.75},
        "5-gram overlap >= .5": lambda: {pair: score for pair, score in overlap.items() if score >= 0.5},
        "datasketch LSH, J >= .7, windows": lambda: lsh(items, told, 0.7),
        "datasketch LSH, J >= .5, windows": lambda: lsh(items, told, 0.5),
        "datatrove NGramsDecontFilter(12)": lambda: trove(items, held),
    }
    document: dict[str, Any] = {
        "items": len(items), "documents": len(held), "background_windows": empty, "windows_embedded": embedded,
        "draws": asked.draws, "seed": SEED, "interval": "share, Wilson 95 %, n", "methods": {}, "skipped": {},
        "recall_at_1_percent_false_discoveries": {
            "n-gram only": at_rate(overlap, held),
            "embedding only": at_rate(near, held),
            "cascade": at_rate(gates, held),
            "cascade with undecided and related": at_rate(joined(tiers, [*tiers]), held),
            **{f"cascade, tier {name} alone": at_rate(joined(tiers, [name]), held) for name in GATING},
        },
    }  # fmt: skip
    for name, run in runs.items():
        try:
            document["methods"][name] = quality(run(), held, empty)
        except Exception as error:
            document["skipped"][name] = f"{type(error).__name__}: {error}".splitlines()[0]
    document["versions"] = versions()
    TABLE.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
