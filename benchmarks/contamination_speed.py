"""Speed and memory of the check `contamination` against named tools: the table of its specification, section 13.

Run: `python -m benchmarks.contamination_speed_peers FOLDER`, then `FOLDER/bin/python -m benchmarks.contamination_speed`
(without the peers it measures the rest and says what was skipped). Writes contamination_speed.json beside itself. All
ratios come from one run, one thread, rounds interleaved; they are of CPU time, with wall time beside it, because other
work may share the machine. `--only NAME` measures one part again and keeps the others.
"""

from __future__ import annotations

import os

# Before numpy is imported: its BLAS counts its threads once.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import json
import platform
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import contamination_speed_scan as scans
from benchmarks.contamination_speed_peers import token_peers, versions
from benchmarks.contamination_speed_texts import benchmark, mixed, parts
from checks.contamination.encoder import Encoder
from checks.contamination.matching import MARGIN, candidates
from checks.contamination.normaliser import normalise
from checks.contamination.search import search
from checks.contamination.seeds import make_seeds
from checks.contamination.tokens import tokens
from checks.contamination.tokens_chains import Memory
from checks.contamination.windows import windows

TABLE = Path(__file__).with_suffix(".json")
ROUNDS = 3
MEGA = 10**6
TOKEN_BYTES, TROVE_BYTES = 4 * MEGA, MEGA // 8
"""Of documents that are read, and of those that slow peers read."""
FLOORS = {"rensa": 2.5, "datasketch": 8.0, "set": 2.5, "datatrove": 20.0}
"""Least ratio of a peer's time to the token stage's (section 13)."""
WINDOWS, PROBES, WIDTH = 10_000, 7_000, 384
FLOOR = 0.5
EMBEDDED = 240
"""Windows that are embedded, a quarter of each bin."""


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Return CPU and wall seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.process_time() - cpu, time.perf_counter() - wall


def token_stage() -> Mapping[str, Any]:
    """Return MB/s of the token stage and of its peers over the same documents, and their ratios."""
    questions = [item.question for item in benchmark(1000)]
    seeds = make_seeds([normalise(one).words for one in questions])
    peers, skipped = token_peers(questions)
    texts = mixed(TOKEN_BYTES)

    def ours(held: list[str], memory: Memory) -> object:
        return search(tokens(held, memory), seeds)

    rates: dict[str, list[tuple[float, float]]] = {}
    for _ in range(ROUNDS):
        rates.setdefault("ours", []).append(_rate(lambda: ours(texts, Memory()), texts))
        for name, peer in peers.items():
            slow = name.startswith(("datatrove", "datasketch"))
            held = texts[: max(len(texts) * TROVE_BYTES // TOKEN_BYTES, 1)] if slow else texts
            rates.setdefault(name, []).append(_rate(lambda peer=peer, held=held: peer(held), held))  # type: ignore[misc]
    best = {name: max(cpu for cpu, _ in told) for name, told in rates.items()}
    kinds = {kind: _parted(held, peers) for kind, held in parts(MEGA).items()}
    return {
        "documents": len(texts), "bytes": sum(len(one.encode()) for one in texts), "needles": len(questions),
        "mb_per_cpu_s": {name: round(value, 2) for name, value in best.items()},
        "mb_per_wall_s": {name: round(max(wall for _, wall in told), 2) for name, told in rates.items()},
        "ratios": {
            name: _row(best["ours"] / value, FLOORS[name.split()[0]]) for name, value in best.items() if name != "ours"
        },
        "by_kind_mb_per_cpu_s": kinds, "skipped": skipped,
        "method": "best of interleaved rounds; ours with normaliser, search of seeds included, no number remembered "
        "from a round before; peers make shingles or hashes and search nothing, but for datatrove",
    }  # fmt: skip


def _parted(held: list[str], peers: Mapping[str, Callable[[Any], object]]) -> Mapping[str, float]:
    told = {"ours": max(_rate(lambda: tokens(held, Memory()), held)[0] for _ in range(2))}
    for name in ("rensa RMinHash(128), split", "rensa RMinHash(128), words"):
        if name in peers:
            told[name] = max(_rate(lambda name=name: peers[name](held), held)[0] for _ in range(2))  # type: ignore[misc]
    return {name: round(value, 2) for name, value in told.items()}


def _rate(run: Callable[[], object], texts: list[str]) -> tuple[float, float]:
    size = sum(len(one.encode()) for one in texts) / MEGA
    cpu, wall = timed(run)
    return size / cpu, size / wall


def embedding() -> Mapping[str, Any]:
    """Return word pieces a second of our encoder, BertModel and SentenceTransformer on the same windows."""
    texts = _windows()
    fp32, bf16 = Encoder(), Encoder(coarse="bf16")
    pieces = sum(map(len, fp32.pieces(texts)))
    runs: dict[str, Callable[[], Any]] = {
        "ours fp32": lambda: fp32.embed(texts),
        "transformers BertModel": _bert(fp32.folder, texts),
        "ours bf16": lambda: bf16.embed(texts),
    }
    skipped: dict[str, str] = {}
    try:
        runs["sentence-transformers"] = _sentences(fp32.folder, texts)
    except Exception as error:
        skipped["sentence-transformers"] = f"{type(error).__name__}: {error}".splitlines()[0]
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            taken[name].append(timed(run))
    cpu = {name: min(one for one, _ in told) for name, told in taken.items()}
    short = texts[:40]
    alone = min(timed(lambda: [fp32.embed_alone(text) for text in short])[0] for _ in range(2))
    there = runs["transformers BertModel"]()
    if np.abs(there - fp32.embed(texts)).max() > 1e-5:
        raise AssertionError("BertModel gives other vectors")
    return {
        "windows": len(texts), "pieces": pieces,
        "pieces_per_cpu_s": {name: round(pieces / value) for name, value in cpu.items()},
        "pieces_per_wall_s": {name: round(pieces / min(wall for _, wall in told)) for name, told in taken.items()},
        "against BertModel": _row(cpu["transformers BertModel"] / cpu["ours fp32"], 0.95),
        "against sentence-transformers": _row(cpu["sentence-transformers"] / cpu["ours fp32"], 0.95)
        if "sentence-transformers" in cpu else None,
        "bf16 against fp32": _row(cpu["ours fp32"] / cpu["ours bf16"], 1.8),
        "alone_pieces_per_cpu_s": round(sum(map(len, fp32.pieces(short))) / alone),
        "equal_lengths_in_a_batch": _equal_lengths(fp32), "skipped": skipped,
    }  # fmt: skip


def _windows() -> list[str]:
    found: dict[int, list[str]] = {24: [], 48: [], 96: [], 192: []}
    for text in mixed(MEGA // 2, seed=3):
        read = normalise(text)
        for size, held in found.items():
            if len(held) < EMBEDDED // len(found):
                held += [one.text for one in windows(read, size) if one.end - one.begin == size][:2]
    return [one for held in found.values() for one in held[: EMBEDDED // len(found)]]


def _bert(folder: Path, texts: list[str]) -> Callable[[], Any]:
    """Return BertModel over batches of like length, as many texts as in its users' examples: 32."""
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(str(folder)).eval(), AutoTokenizer.from_pretrained(str(folder))

    def run() -> Any:
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        out = np.empty((len(texts), WIDTH), dtype=np.float32)
        with torch.no_grad():
            for first in range(0, len(order), 32):
                places = order[first : first + 32]
                held = tokenizer(
                    [texts[at] for at in places], padding=True, truncation=True, max_length=256, return_tensors="pt"
                )
                hidden, mask = model(**held).last_hidden_state, held["attention_mask"][:, :, None]
                out[places] = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1).numpy()
        return out

    return run


def _sentences(folder: Path, texts: list[str]) -> Callable[[], Any]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    return lambda: model.encode(texts, batch_size=32, show_progress_bar=False)


def _equal_lengths(encoder: Encoder) -> Mapping[str, Any]:
    """Return whether texts of one length, run together without padding, have the bits that they have alone."""
    from checks.contamination.encoder import forward

    texts = [normalise(item.question).window_text for item in benchmark(160)]
    ids = encoder.pieces(texts)
    groups: dict[int, list[int]] = {}
    for at, one in enumerate(ids):
        groups.setdefault(len(one), []).append(at)
    together = np.empty((len(texts), WIDTH), dtype=np.float32)

    def batched() -> None:
        with torch.no_grad():
            for held in groups.values():
                together[held] = forward(encoder._weights, [ids[at] for at in held]).numpy()

    fast = timed(batched)[0]
    begun = time.process_time()
    alone = np.stack([encoder.embed_alone(text) for text in texts])
    slow = time.process_time() - begun
    return {
        "texts": len(texts), "in_a_batch": sum(len(held) for held in groups.values() if len(held) > 1),
        "bit_equal": int((together == alone).all(axis=1).sum()), "times_faster": round(slow / fast, 2),
    }  # fmt: skip


def matching() -> Mapping[str, Any]:
    """Return time and peak memory of the match against numpy's whole table and a full sort of it."""
    rng = np.random.default_rng(5)
    probes = rng.standard_normal((PROBES, WIDTH)).astype(np.float32)
    held = rng.standard_normal((WINDOWS, WIDTH)).astype(np.float32)
    held[::10] = probes[rng.integers(0, PROBES, WINDOWS // 10)] + 0.9 * held[::10]
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    held /= np.linalg.norm(held, axis=1, keepdims=True)

    def sorted_table() -> tuple[np.ndarray, np.ndarray]:
        table = held @ probes.T
        return table, np.argsort(-table, axis=1)

    found, (table, order) = candidates(held, probes, FLOOR), sorted_table()
    ranked = np.take_along_axis(table, order, axis=1)
    window, rank = np.nonzero(ranked >= FLOOR)
    wanted = set(zip(window.tolist(), order[window, rank].tolist(), strict=True))
    kept = found.cosines >= FLOOR
    ours = set(zip(found.windows[kept].tolist(), found.probes[kept].tolist(), strict=True))
    del table, order, ranked
    cpu: dict[str, list[float]] = {"ours": [], "table and sort": [], "table alone": []}
    for _ in range(2):
        cpu["ours"].append(timed(lambda: candidates(held, probes, FLOOR))[0])
        cpu["table and sort"].append(timed(sorted_table)[0])
        cpu["table alone"].append(timed(lambda: held @ probes.T)[0])
    peaks = [_peak(lambda: candidates(held, probes, FLOOR)), _peak(sorted_table), _peak(lambda: held @ probes.T)]
    best = {name: min(told) for name, told in cpu.items()}
    return {
        "pairs": len(wanted), "same_pairs": wanted == ours, "margin": MARGIN,
        "cpu_s": {name: round(value, 3) for name, value in best.items()},
        "time_of_table_and_sort": round(best["ours"] / best["table and sort"], 3),
        "time_of_table_alone": round(best["ours"] / best["table alone"], 3), "time_ceiling": 1.2,
        "peak_mb": dict(zip(best, (round(one / MEGA, 1) for one in peaks), strict=True)),
        "memory_of_table_and_sort": round(peaks[0] / peaks[1], 4),
        "memory_of_table_alone": round(peaks[0] / peaks[2], 4), "memory_ceiling": 0.1,
    }  # fmt: skip


def _peak(run: Callable[[], object]) -> int:
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def _row(ratio: float, floor: float) -> Mapping[str, Any]:
    return {"ratio": round(ratio, 2), "floor": floor, "met": bool(ratio >= floor)}


def main() -> None:
    """Measure every part, or one, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only")
    only = parser.parse_args().only
    torch.set_num_threads(1)
    told = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured: dict[str, Callable[[], Mapping[str, Any]]] = {
            "token_stage": token_stage,
            "embedding": embedding,
            "matching": matching,
            "comparing": lambda: scans.comparing(folder, Encoder()),
            "merging": lambda: scans.merging(folder),
            "two_processes": lambda: scans.two_processes(folder),
            "memory": lambda: scans.memory(folder, (2 * MEGA, 10 * MEGA, 20 * MEGA, 40 * MEGA)),
            "memory_embedding": lambda: scans.embedded_memory(folder),
            "scale": lambda: scans.scale(folder),
        }
        for part, run in measured.items():
            if only in (None, part):
                told[part] = {**run(), "load": round(os.getloadavg()[0], 1)}
                print(part, json.dumps(told[part], indent=1), flush=True)
                told["machine"] = {"processor": platform.machine(), "cores": os.cpu_count()}
                told["versions"] = {**versions(), "python": platform.python_version()}
                TABLE.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
