"""Scans of whole files: what comparing and merging take of them, two processes against one, memory as they grow.

Each scan whose memory is told runs in a process of its own: `python -m benchmarks.contamination_speed_scan PLAN
ORDINALS` scans shards of a pickled plan and prints one line of JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import pickle
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.contamination_speed_texts import benchmark, mixed, stream, write
from checks.contamination import scan_meaning, verifier
from checks.contamination.plan import PARTS, Plan, ScanParameters
from checks.contamination.planning import Asked, Roles, prepare
from checks.contamination.scan import Scanner, scan
from checks.contamination.shards import shards, stored
from checks.contamination.sketch import Sketch, empty, merge

SKETCHES = 200
MEGA = 10**6
GIVEN_MB, PER_PROBE_KB = 1200, 2
"""Peak memory that is allowed (section 13)."""


def planned(corpus: Path, items: int, siblings: int, shard_bytes: int, parameters: ScanParameters) -> Plan:
    """Return a plan without plants."""
    asked = Asked(siblings=siblings, plant_share=0)
    cut = shards([stored(corpus)], shard_bytes)
    return prepare(Roles(benchmark(items)), cut, seed=1, asked=asked, parameters=parameters).plan


def merging(folder: Path) -> Mapping[str, Any]:
    """Return what merging 200 sketches takes of scanning their shards, with leaks in every one."""
    items = benchmark(400)
    texts = mixed(6 * MEGA)
    for at in range(0, len(texts), 8):  # so that sketches hold entries
        texts[at] += "\n\n" + items[at // 8 % len(items)].question
    corpus = folder / "merged.jsonl"
    write(texts, corpus)
    size = -(-corpus.stat().st_size // SKETCHES)
    plan = planned(corpus, 400, 4, size, ScanParameters(embed="off"))
    scanner = Scanner(plan)
    begun = time.process_time()
    sketches = [scan(one, plan, scanner=scanner) for one in plan.shards]
    scanned = time.process_time()
    whole = reduce(merge, sketches, empty(plan.plan_sha256, plan.parameters.keep))
    pairwise = time.process_time()
    tree = _tree(sketches)
    done = time.process_time()
    if whole.to_bytes() != tree.to_bytes():
        raise AssertionError("two trees of merges gave other bytes")
    return {
        "sketches": len(sketches), "shard_bytes": size, "probes": len(plan.probes),
        "entries": sum(len(rows) for rows in whole.best.values()),
        "scan_cpu_s": round(scanned - begun, 3), "merge_cpu_s": round(pairwise - scanned, 3),
        "tree_cpu_s": round(done - pairwise, 3), "share": round((done - pairwise) / (scanned - begun), 4),
        "share_one_by_one": round((pairwise - scanned) / (scanned - begun), 4), "ceiling": 0.02,
    }  # fmt: skip


def _tree(sketches: Sequence[Sketch]) -> Sketch:
    held = list(sketches)
    while len(held) > 1:
        held = [reduce(merge, held[at : at + 2]) for at in range(0, len(held), 2)]
    return held[0]


def comparing(folder: Path, encoder: Any) -> Mapping[str, Any]:
    """Return what `compare` takes of a scan with embedding, and of one by words alone, at one leak in 16 documents."""
    items = benchmark(60)
    texts = mixed(MEGA // 40, seed=2)
    for at in range(0, len(texts), 16):
        texts[at] += "\n\n" + items[at // 16 % len(items)].question
    corpus = folder / "compared.jsonl"
    write(texts, corpus)
    told: dict[str, Any] = {"ceiling": 0.10}
    for embed in ("all", "off"):
        plan = planned(corpus, 60, 4, 2**40, ScanParameters(embed=embed))
        counted = _Timed(verifier.compare)
        with mock.patch.object(verifier, "compare", counted), mock.patch.object(scan_meaning, "compare", counted):
            scanner = Scanner(plan, encoder=encoder if embed == "all" else None)
            begun = time.process_time()
            scan(plan.shards[0], plan, scanner=scanner)
            whole = time.process_time() - begun
        told[embed] = {
            "scan_cpu_s": round(whole, 3), "compare_cpu_s": round(counted.seconds, 3), "pairs": counted.calls,
            "pairs_per_s": round(counted.calls / max(counted.seconds, 1e-9)),
            "share": round(counted.seconds / whole, 4),
        }  # fmt: skip
    return told


class _Timed:
    """A function that counts its calls and their CPU time."""

    def __init__(self, made: Callable[..., Any]) -> None:
        self._made = made
        self.calls, self.seconds = 0, 0.0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        begun = time.process_time()
        found = self._made(*arguments, **named)
        self.seconds += time.process_time() - begun
        self.calls += 1
        return found


def two_processes(folder: Path) -> Mapping[str, Any]:
    """Return the wall time of two shards one after the other over that of both at once, each in its own process."""
    corpus = folder / "halves.jsonl"
    write(stream(12 * MEGA), corpus)
    size = -(-corpus.stat().st_size // 2)
    path = _kept(planned(corpus, 100, 4, size, ScanParameters(embed="off")), folder)
    turns: list[Mapping[str, float]] = []
    for _ in range(2):
        one = [_ended(_started(path, str(at))) for at in (0, 1)]
        begun = time.perf_counter()
        running = [_started(path, str(at)) for at in (0, 1)]
        two = [_ended(process) for process in running]
        together = time.perf_counter() - begun
        cpu = [sum(each["cpu_s"] for each in side) for side in (one, two)]
        turns.append({"wall": sum(each["wall_s"] for each in one) / together, "cpu": cpu[0] / cpu[1]})
    return {
        "speed_up_wall": round(float(np.median([turn["wall"] for turn in turns])), 2),
        "speed_up_wall_best": round(max(turn["wall"] for turn in turns), 2),
        "cpu_alone_over_together": round(float(np.median([turn["cpu"] for turn in turns])), 2),
        "floor": 1.7, "load": [round(each, 1) for each in os.getloadavg()],
        "note": "with other work on both cores the wall ratio is a lower bound; where CPU seconds do not grow "
        "(cpu_alone_over_together near 1), two processes on idle cores take half the time",
    }  # fmt: skip


def memory(folder: Path, sizes: Sequence[int]) -> Mapping[str, Any]:
    """Return peak memory and CPU time of scans of growing corpora, as fresh processes, one shard each."""
    rows = []
    for size in sizes:
        corpus = folder / f"grown-{size}.jsonl"
        write(stream(size), corpus)
        plan = planned(corpus, 200, 4, 2**40, ScanParameters(embed="off"))
        rows.append({"stored_mb": round(corpus.stat().st_size / MEGA, 1), **_ended(_started(_kept(plan, folder), "0"))})
        rows[-1]["allowed_mb"] = round(GIVEN_MB + PER_PROBE_KB * len(plan.probes) / 1000)
        corpus.unlink()
    words, seconds = (np.log([row[name] for row in rows]) for name in ("words", "cpu_s"))
    return {
        "rows": rows,
        "last_over_second": round(rows[-1]["peak_mb"] / rows[1]["peak_mb"], 3), "ceiling": 1.10,
        "cpu_slope": round(float(np.polyfit(words, seconds, 1)[0]), 3), "slope_band": [0.95, 1.05],
    }  # fmt: skip


def embedded_memory(folder: Path) -> Mapping[str, Any]:
    """Return the same of two corpora, some 16 documents of each embedded: encoder and torch are in these."""
    rows = []
    for size, fraction in ((10 * MEGA, 40), (30 * MEGA, 13)):
        corpus = folder / "embedded.jsonl"
        write(stream(size), corpus)
        parameters = ScanParameters(embed="sample", sample_fraction=fraction)
        plan = planned(corpus, 12, 4, 2**40, parameters)
        rows.append({"stored_mb": round(corpus.stat().st_size / MEGA, 1), **_ended(_started(_kept(plan, folder), "0"))})
    return {"rows": rows, "last_over_first": round(rows[1]["peak_mb"] / rows[0]["peak_mb"], 3), "parts": PARTS}


def scale(folder: Path) -> Mapping[str, Any]:
    """Return what 1000 items with 4 siblings each over 200 000 short documents take, per shard of 16 MB."""
    corpus = folder / "scale.jsonl"
    count = write(_short(200_000), corpus)
    plan = planned(corpus, 1000, 4, 16 * 2**20, ScanParameters(embed="off"))
    told = _ended(_started(_kept(plan, folder), "1"))
    shards_, bytes_ = len(plan.shards), corpus.stat().st_size
    return {
        "documents": count, "stored_mb": round(bytes_ / MEGA, 1), "probes": len(plan.probes), "shards": shards_,
        "off": {**told, "all_shards_cpu_s": round(told["cpu_s"] * bytes_ / (16 * 2**20), 1)},
    }  # fmt: skip


def _short(count: int) -> Any:
    yield from itertools.islice(stream(2**40, letters=420), count)


def _kept(plan: Plan, folder: Path) -> Path:
    path = folder / "plan.pickle"
    path.write_bytes(pickle.dumps(plan))
    return path


def _started(plan: Path, ordinals: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", __spec__.name, str(plan), ordinals]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a scan ended with {process.returncode}")
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def _main(path: Path, ordinals: Sequence[int]) -> None:
    plan: Plan = pickle.loads(path.read_bytes())
    encoder = None
    if plan.parameters.embed != "off":
        import torch

        from checks.contamination.encoder import Encoder

        torch.set_num_threads(1)
        encoder = Encoder(coarse=plan.parameters.coarse)
    scanner = Scanner(plan, encoder=encoder)
    wall, cpu = time.perf_counter(), time.process_time()
    made = [scan(plan.shards[at], plan, scanner=scanner) for at in ordinals]
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    counts = [one for sketch in made for one in sketch.shards.values()]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    words, embedded = sum(one.words for one in counts), sum(one.embedded for one in counts)
    told = {"words": words, "windows_embedded": embedded, "cpu_s": cpu, "wall_s": wall, "peak_mb": peak}
    print(json.dumps({name: round(value, 3) for name, value in told.items()}))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), [int(one) for one in sys.argv[2].split(",")])
