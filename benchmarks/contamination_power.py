"""Power and false positives of the corpus side of `contamination` over whole audits (specification, section 14).

Run: `python -m benchmarks.contamination_power` (one core; `--plans 0 2` and `--plans 1 3` share the work between two),
then `--tell`, which draws nothing and writes contamination_power.json beside this script and `measured.json` beside the
check. Some five minutes of one core a plan, and half a second an audit. The check's files must not change meanwhile.

A plan is a benchmark of its own: 160 word problems of the authored TEST families, on which nothing is tuned, with the
parameters' defaults. An audit that scans its own corpus costs a minute, so audits are put together from parts, exactly:
every document is a shard, is scanned once with the real encoder, and an audit merges the sketches of the documents that
it draws. Scores depend on probe and window alone (6.8), so this is what a scan of the drawn corpus finds; one audit a
plan set is scanned whole as well, and must give the same matches. Planted copies are scanned once a plan, in hosts of
the whole bank, and are the same in all its audits. Audits of a plan share benchmark, siblings and planted copies, and
vary in corpus, leaks and the seed of the conclusion: their intervals, Wilson's, take them as independent.
"""

from __future__ import annotations

import os

# Before numpy is imported: its BLAS counts its threads once.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import hashlib
import json
import pickle
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import checks.contamination as family
from benchmarks import contamination_power_parts
from benchmarks.contamination_power_parts import (
    ITEMS,
    PLANS,
    SEED,
    WORDS,
    Scanned,
    clean,
    corpus,
    joined,
    scanned,
    seed_of,
    whole_shard,
)
from checks.contamination.conclude import Conclusion, conclude
from checks.contamination.encoder import Encoder
from checks.contamination.scan import Scanner, scan
from checks.quantise import decimal
from checks.statistics import proportion_interval

FOLDER = Path(next(iter(family.__path__)))
TABLE = Path(__file__).with_suffix(".json")
KEPT = Path(__file__).resolve().parents[1] / "var" / "contamination_power"

GATING = ("exact", "near", "semantic")

LEAKS: Mapping[str, tuple[float, int, int]] = {
    "leak .05": (0.05, 0, 35),
    "none": (0.0, 0, 60),
    "none, hard negatives": (0.0, 8, 60),
    "leak .01": (0.01, 0, 12),
    "leak .2": (0.2, 0, 6),
}
"""Leak share, documents with hard negatives, audits of a plan."""
MARK = 16
"""Characters of the digest of the code that ran."""
QUOTED, NULLS = "leak .05", ("none", "none, hard negatives")


@dataclass(frozen=True)
class Audit:
    """What one audit said, beside the truth."""

    plan: int
    leaks: str
    draw: int
    documents: int
    words: int
    said: Mapping[str, str]
    """Code -> word, with the reason where there is one."""
    missed: tuple[str, ...]
    """Controls outside their band."""
    light: tuple[int, int]
    """Light leaks that are flagged, of how many."""
    heavy: tuple[int, int]
    false: int
    """Items that are flagged and did not leak."""

    @property
    def detected(self) -> bool:
        """Whether the answer is `leak: detected`."""
        return self.said["leak"] == "detected"

    @property
    def false_share(self) -> float:
        """Share of flagged items that did not leak; 0 where nothing is flagged."""
        return self.false / max(self.light[0] + self.heavy[0] + self.false, 1)


def check_whole(told: Scanned, scanner: Scanner, encoder: Encoder, folder: Path) -> None:
    """Scan one audit's corpus as one file, and hold its matches and words against those put together from parts.

    Raises:
        AssertionError: they differ.
    """
    chosen, _ = _corpus(told, QUOTED, 0)
    whole = whole_shard([told.parts[at].text for at in chosen], folder / "whole.jsonl")
    plan = replace(told.prepared.plan, shards=(whole,), seed=seed_of(told, 0))
    sketch = scan(whole, plan, scanner=scanner)
    parts = joined(told, chosen, 0)[0]
    for probe in sketch.best.keys() | parts.best.keys():
        ours, theirs = (
            [(one.score, one.tier, one.window_key, one.copies) for one in each.best.get(probe, ())]
            for each in (parts, sketch)
        )
        if ours != theirs:
            raise AssertionError(f"probe {probe}: {len(ours)} and {len(theirs)} matches differ")
    said = _words(conclude(sketch, replace(told.prepared, plan=plan), encoder=encoder))
    again = audited(told, QUOTED, 0, encoder).said
    if said["leak"] != again["leak"]:
        raise AssertionError(f"scanned whole: {said}; from parts: {again}")
    print("scanned whole:", said, "from parts:", again, flush=True)


_clean: dict[int, frozenset[str]] = {}
"""Items of a plan whose hard negative asks what no item asks: the same for all its audits."""


def _corpus(told: Scanned, leaks: str, draw: int) -> tuple[list[int], Mapping[str, str]]:
    share, hard, _ = LEAKS[leaks]
    rng = np.random.default_rng([SEED, told.number, list(LEAKS).index(leaks), draw])
    if hard and told.number not in _clean:
        _clean[told.number] = clean(told)
    return corpus(told, share, hard, _clean.get(told.number, frozenset()), rng)


def audited(told: Scanned, leaks: str, draw: int, encoder: Encoder) -> Audit:
    """Return what the audit of one drawn corpus said."""
    chosen, leaked = _corpus(told, leaks, draw)
    sketch, prepared = joined(told, chosen, draw)
    found = conclude(sketch, prepared, encoder=encoder)
    flagged = set(found.benchmarks[0].names())
    hit = {how: [name in flagged for name, way in leaked.items() if way == how] for how in ("light", "heavy")}
    return Audit(
        plan=told.number,
        leaks=leaks,
        draw=draw,
        documents=len(chosen),
        words=sum(one.words for one in sketch.shards.values()),
        said=_words(found),
        missed=tuple(one.name for one in found.controls if not one.held),
        light=(sum(hit["light"]), len(hit["light"])),
        heavy=(sum(hit["heavy"]), len(hit["heavy"])),
        false=len(flagged - leaked.keys()),
    )


def _words(told: Conclusion) -> dict[str, str]:
    return {
        one.code: one.word + (f" ({one.labels['reason']})" if one.labels.get("reason") else "") for one in told.findings
    }


def code() -> str:
    """Return the digest of what an audit depends on: audits of other code are other audits."""
    paths = [*FOLDER.glob("*.py"), *FOLDER.glob("*.json"), *FOLDER.parent.glob("organisms/families/*.json")]
    paths.append(Path(contamination_power_parts.__file__))
    parts = [path.read_bytes() for path in sorted(paths) if path.name != "measured.json"]
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:MARK]


def rate(successes: int, n: int) -> dict[str, Any]:
    """Return a rate with Wilson's 95 % interval."""
    low, high = proportion_interval(successes, n)
    return {"estimate": decimal(successes / n, 4), "low": decimal(low, 4), "high": decimal(high, 4), "n": n}


def row(audits: Sequence[Audit]) -> dict[str, Any]:
    """Return what the audits of one kind of corpus said, as rates."""
    codes = ("leak", *(f"leak.{tier}" for tier in GATING))
    told: dict[str, Any] = {
        "audits": len(audits),
        "detected": rate(sum(one.detected for one in audits), len(audits)),
        "detected_by_plan": {
            str(plan): f"{sum(one.detected for one in audits if one.plan == plan)}"
            f"/{sum(one.plan == plan for one in audits)}"
            for plan in sorted({one.plan for one in audits})
        },
        "words": {code: dict(sorted(Counter(one.said[code] for one in audits).items())) for code in codes},
        "controls_missed": dict(sorted(Counter(name for one in audits for name in one.missed).items())),
        "audits_that_flag": sum(one.light[0] + one.heavy[0] + one.false > 0 for one in audits),
        "audits_that_flag_wrongly": sum(one.false > 0 for one in audits),
        "false_discovery_proportion": decimal(float(np.mean([one.false_share for one in audits])), 4),
        "corpus_words": [min(one.words for one in audits), max(one.words for one in audits)],
    }
    for how in ("light", "heavy"):
        found, n = (sum(getattr(one, how)[at] for one in audits) for at in (0, 1))
        if n:
            told[f"items_flagged.{how}"] = rate(found, n)
    return told


def write(mark: str, audits: Sequence[Audit]) -> None:
    """Write both files; the digest of the code that was measured goes with them."""
    by = {name: [one for one in audits if one.leaks == name] for name in LEAKS}
    told = {name: row(some) for name, some in by.items() if some}
    plans = len({one.plan for one in audits})
    document = {"code": mark, "seed": SEED, "plans": plans, "items": ITEMS, "corpora": told}
    TABLE.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    at = (
        f"{plans} benchmarks of {ITEMS} authored word problems, 20 siblings each, {WORDS // 1000} k words of "
        "docstrings and prose; audits of one benchmark share its null and planted copies and vary in corpus and leaks"
    )
    clean = [one for one in audits if one.leaks in NULLS]
    measured = {
        "power": {
            **told[QUOTED]["detected"],
            "at": "leak: detected, a share of .05 of the items leaked, half lightly reworded, half heavily; " + at,
        },
        "false_positive_rate": {
            **rate(sum(one.detected for one in clean), len(clean)),
            "at": "leak: detected without a leak; half of the corpora hold hard negatives of 8 items, their template "
            "or rewording with values that no item has; " + at,
        },
    }
    (FOLDER / "measured.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({"corpora": told, "measured": measured}, indent=1))


def drawn(number: int) -> None:
    """Scan one plan's parts unless they are kept, draw its audits, and keep what they said."""
    KEPT.mkdir(parents=True, exist_ok=True)
    encoder = Encoder()
    mark = code()
    path = KEPT / f"scanned-{number}-{mark}.pickle"
    if not path.exists():
        with tempfile.TemporaryDirectory() as folder:
            made, scanner = scanned(number, encoder, Path(folder))
            if number == 0:
                check_whole(made, scanner, encoder, Path(folder))
            path.write_bytes(pickle.dumps(made))
        print("scanned", number, flush=True)
    told: Scanned = pickle.loads(path.read_bytes())
    with (KEPT / f"audits-{number}-{mark}.jsonl").open("w", encoding="utf-8") as lines:
        for leaks, (_, _, count) in LEAKS.items():
            for draw in range(count):
                lines.write(json.dumps(asdict(audited(told, leaks, draw, encoder))) + "\n")
                lines.flush()
            print("audited", number, leaks, flush=True)


def kept() -> tuple[str, list[Audit]]:
    """Return the digest of the code that ran last, and the audits of it that were kept."""
    last = max(KEPT.glob("audits-*.jsonl"), key=lambda path: path.stat().st_mtime)
    mark = last.stem[-MARK:]
    paths = sorted(KEPT.glob(f"audits-*-{mark}.jsonl"))
    told: list[Mapping[str, Any]] = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    return mark, [Audit(**{name: _tuple(value) for name, value in one.items()}) for one in told]


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def main() -> None:
    """Draw the audits of the plans that are asked for, or tell what was kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plans", type=int, nargs="*", default=list(range(PLANS)))
    parser.add_argument("--tell", action="store_true", help="draw nothing; write what was kept")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if not asked.tell:
        for number in asked.plans:
            drawn(number)
    if asked.tell or len(asked.plans) == PLANS:
        write(*kept())


if __name__ == "__main__":
    main()
