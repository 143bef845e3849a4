"""False discoveries and power of `contamination` on real rewrites of GSM8K items (specification, 6.9).

    ASSAY_DATA=/path/to/data python -m benchmarks.contamination_rewrites benchmarks/contamination_rewrites.json

Benchmark: 330 items of gsm8k_rephrase/dev.jsonl, 20 siblings each; random splits. Corpus: the other 330 items and
their rewrites, which are hard because they are of the same domain, and windows of the standard library's docstrings.
Leaks: rewrites of a share of the benchmark's items, drawn anew in every run. Texts are compared whole, one text a
window, by cosines of the bf16 encoder (largest error .0072): this is on the null and the verifier, not on windows.
Beside it: the cosine alone as score, with the same null, and "shares any 13 tokens in a row".
"""

from __future__ import annotations

import ast
import json
import os
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checks.contamination.conformal import Scores, calibrate
from checks.contamination.discoveries import discover
from checks.contamination.items import Item
from checks.contamination.normaliser import normalise
from checks.contamination.placebo import placebo_check
from checks.contamination.planning import stream
from checks.contamination.regions import Region, passage
from checks.contamination.siblings import siblings
from checks.contamination.verifier import SEMANTIC_SCORE, compare
from checks.contamination.verifier_question import read_question

ITEMS, K, DRAWS, SEED = 330, 20, 50, 7
"""As the specification's table; draws are of each split."""

SPLITS = 3
"""Halves of the pairs, each with siblings of its own: draws of one split share their null, so that without leaks there
are as many different runs as splits, and standard errors over draws are too small. At a leak share of .01 one unleaked
item in 330 with a chance match decides the false discoveries of its split, so that two splits were too few."""

SHARES = (0.0, 0.01, 0.05, 0.2, 0.5)
LEVELS = (0.05, 0.01)
WINDOWS, WINDOW_WORDS = 600, 48
FLOOR = 5_000
STRANGERS = 5
"""Texts of other items, nearest by cosine, that an item is held against."""
GRAM = 13


def pairs(folder: Path) -> list[dict[str, str]]:
    """Return the real item/rewrite pairs."""
    text = (folder / "gsm8k_rephrase" / "dev.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def documentation() -> list[str]:
    """Return windows of the standard library's docstrings."""
    told: list[str] = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                words = (ast.get_docstring(node) or "").split()
                told += [" ".join(words[at : at + WINDOW_WORDS]) for at in range(0, len(words) - 24, WINDOW_WORDS)]
        if len(told) >= WINDOWS:
            return told[:WINDOWS]
    return told


def scored(
    probes: Sequence[Item], texts: Sequence[str], cosines: np.ndarray, every: bool
) -> Iterator[tuple[int, int, int]]:
    """Yield (probe, text, score) of all pairs at the floor; of a probe only up to its first `same`, unless `every`."""
    regions: dict[int, Region] = {}
    for at, probe in enumerate(probes):
        near = np.flatnonzero(cosines[at] >= FLOOR)
        question = read_question(probe) if len(near) else None
        for place in near[np.argsort(-cosines[at, near], kind="stable")].tolist():
            if place not in regions:
                regions[place] = passage(texts[place])
            assert question is not None
            score = compare(question, regions[place], int(cosines[at, place])).score
            yield at, place, score
            if score >= SEMANTIC_SCORE and not every:  # the rest lies lower in cosine
                break


def grams(text: str) -> frozenset[tuple[str, ...]]:
    """Return a text's 13-grams of canonical tokens."""
    words = normalise(text).words
    return frozenset(tuple(words[at : at + GRAM]) for at in range(len(words) - GRAM + 1))


def outcome(flags: np.ndarray, leaked: np.ndarray) -> tuple[float, float, float]:
    """Return false discovery proportion, power (NaN without a leak) and whether anything is flagged."""
    wrong, right = int((flags & ~leaked).sum()), int((flags & leaked).sum())
    return wrong / max(1, wrong + right), right / leaked.sum() if leaked.any() else np.nan, float(wrong + right > 0)


def told(runs: list[tuple[float, float, float]]) -> dict[str, Any]:
    """Return means with standard errors over draws."""
    table = np.array(runs)
    spread = table.std(axis=0, ddof=1) / np.sqrt(len(table))
    names = ("fdr", "power", "any_flag")
    return {"n": len(runs)} | {
        name: None
        if np.isnan(table[:, at]).any()
        else [round(float(table[:, at].mean()), 4), round(float(spread[at]), 4)]
        for at, name in enumerate(names)
    }


def measure(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the table over the splits so far."""
    from checks.contamination.encoder import Encoder

    began = time.process_time()
    rows, encoder = pairs(folder), Encoder(coarse="bf16")
    results: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
    rates: list[dict[str, float]] = []
    for split in range(SPLITS):
        order = stream(SEED, f"split:{split}").permutation(len(rows))
        rates.append(measure_split([rows[int(at)] for at in order], split, encoder, results))
        print(f"{time.process_time() - began:.0f} s, split {split}: {rates[-1]}", file=sys.stderr, flush=True)
        yield {
            "items": ITEMS, "splits": split + 1, "draws_each": DRAWS, "seed": SEED,
            "cpu_seconds": round(time.process_time() - began),
            "rates": {name: [round(one[name], 4) for one in rates] for name in rates[0]},
            "by_leak_share": {
                share: {name: told(runs) for name, runs in methods.items()} for share, methods in results.items()
            },
        }  # fmt: skip


def measure_split(
    rows: Sequence[dict[str, str]],
    split: int,
    encoder: Any,
    table: dict[str, dict[str, list[tuple[float, float, float]]]],
) -> dict[str, float]:
    """Add the draws of one split to the table; return what its scores look like."""
    items = [Item("gsm8k", row["id"], "prose", row["original"], answer=row["answer"]) for row in rows[:ITEMS]]
    made = siblings(items, K, stream(SEED, f"siblings:{split}"))
    probes = [*items, *(one.probe for one in made)]
    index = {item.item: at for at, item in enumerate(items)}
    owner = np.array([index[one.item.item] for one in made])
    background = [text for row in rows[ITEMS:] for text in (row["original"], row["rephrase"])] + documentation()
    leaks = [row["rephrase"] for row in rows[:ITEMS]]
    vectors = [encoder.embed([normalise(text).window_text for text in texts]) for texts in
               ([one.question for one in probes], background, leaks)]  # fmt: skip
    by_background, by_leak = (np.rint(10_000 * (vectors[0] @ one.T)).astype(np.int64) for one in vectors[1:])
    best = np.zeros(len(probes), dtype=np.int64)
    for at, _, score in scored(probes, background, by_background, every=False):
        best[at] = max(best[at], score)
    met = np.zeros(by_leak.shape, dtype=np.int64)
    for at, place, score in scored(probes, leaks, by_leak, every=True):
        met[at, place] = score
    methods = {
        "verified": (best, met),
        "cosine alone": (np.maximum(by_background.max(axis=1), 0), np.maximum(by_leak, 0)),
    }
    common = frozenset[tuple[str, ...]]().union(*map(grams, background))
    own = [grams(item.question) for item in items]
    leaked_grams = [grams(text) for text in leaks]
    for share in SHARES:
        rng = stream(SEED, f"leaks:{share}:{split}")
        results = table.setdefault(str(share), {})
        for _ in range(DRAWS):
            leaked = np.zeros(ITEMS, dtype=bool)
            leaked[rng.permutation(ITEMS)[: round(share * ITEMS)]] = True
            for name, (base, over) in methods.items():
                scores = np.maximum(base, over[:, leaked].max(axis=1, initial=0))
                null = calibrate(Scores(scores[:ITEMS], scores[ITEMS:], owner))
                for q in LEVELS:
                    flags = discover(null, np.zeros(ITEMS, dtype=bool), q).flags
                    results.setdefault(f"{name}, q = {q}", []).append(outcome(flags, leaked))
            there = common.union(*(leaked_grams[at] for at in np.flatnonzero(leaked)))
            flags = np.array([not one.isdisjoint(there) for one in own])
            results.setdefault(f"any {GRAM}-gram", []).append(outcome(flags, leaked))
    same = met[np.arange(ITEMS), np.arange(ITEMS)] >= SEMANTIC_SCORE
    other = met[ITEMS + np.arange(len(owner)), owner] >= SEMANTIC_SCORE
    own_leaks = by_leak[:ITEMS].copy()
    np.fill_diagonal(own_leaks, -1)
    nearest = np.argsort(-own_leaks, axis=1)[:, :STRANGERS]
    strangers = np.take_along_axis(met[:ITEMS], nearest, axis=1) >= SEMANTIC_SCORE
    check = placebo_check(
        Scores(best[:ITEMS], best[ITEMS:], owner), np.zeros(ITEMS, dtype=bool), stream(SEED, f"ties:{split}")
    )
    return {
        "siblings": float(len(made)),
        "rewrites_same": float(same.mean()),
        "siblings_same_as_leaked_rewrite": float(other.mean()),
        "item_same_as_nearest_strangers": float(strangers.mean()),
        "placebo_check_p_unleaked": float("nan") if check.p is None else check.p,
        "cosine_of_pairs": float(np.diag(by_leak[:ITEMS]).mean()) / 10_000,
        "items_with_same_text_unleaked": float((best[:ITEMS] >= SEMANTIC_SCORE).mean()),
        "siblings_with_same_text_unleaked": float((best[ITEMS:] >= SEMANTIC_SCORE).mean()),
    }


def main() -> None:
    """Write the table to the file that is named, or print it."""
    import torch

    torch.set_num_threads(1)
    folder = Path(os.environ.get("ASSAY_DATA", "../shared/data"))
    for table in measure(folder):
        text = json.dumps(table, indent=1) + "\n"
        if len(sys.argv) > 1:
            Path(sys.argv[1]).write_text(text, encoding="utf-8")
        else:
            print(text, end="")


if __name__ == "__main__":
    main()
