"""The transparency log's rows of the speed table of the report's specification, section 20.

Run: `python -m benchmarks.report_log [--folder DIR]`. Writes report_log.json beside itself. Every ratio is taken in one
run, both sides in turn, median of 7 rounds. An append is held against three bare fsynced writes of files of the same
sizes in the same folder (the partial bundle, the partial tile, the checkpoint); a proof's check against as many bare
SHA-256 calls as it has hashes, and one. About two minutes, and 300 MB of disk in a temporary folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from assay.tlog import notes, tree
from assay.tlog.edge import Edge
from assay.tlog.entries import Entry
from assay.tlog.log import Log
from assay.tlog.notes import Checkpoint
from assay.tlog.proofs import read_proof
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

TABLE = Path(__file__).with_suffix(".json")
ORIGIN = "log.assay.example"
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(32))
SIZES = (1_000, 100_072, 1_000_168)
"""10^3, 10^5 and 10^6, moved so that each ends in a tile of 232 hashes: equal bytes are written at each."""

ROUNDS, APPENDS, CHECKS = 7, 3, 2_000
TARGETS = {"append / three bare writes": 1.5, "append at 10^6 / at 10^3": 1.2, "inclusion / bare hashes": 4.0}
"""Specification, section 20: at most."""


def entry(index: int) -> Entry:
    digest = hashlib.sha256(b"%d" % index).hexdigest()
    return Entry(kind="report", at="2026-01-02T03:04:05Z", commit=digest, tag=digest, key=digest, prev=index)


def written(folder: Path, size: int) -> Path:
    """Write a log of some size without syncing it."""
    edge = Edge()

    def flush(files: list[tuple[str, bytes]]) -> None:
        for name, data in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)

    form = entry(0).data
    for index in range(size):
        # One entry's bytes with another digest in it: building each from its fields would take minutes.
        edge.push(form.replace(b"5feceb66", b"%08x" % index, 1))
        if len(edge.full) > 64:
            flush(edge.full)
            edge.full.clear()
    flush(edge.files())
    note = notes.sign(Checkpoint(ORIGIN, size, edge.root()).text, PRIVATE, ORIGIN)
    flush([("checkpoint", note)])
    return folder


def bare(folder: Path, sizes: list[int], *, folders: bool) -> None:
    """Write and sync a file of each size; with `folders`, sync the folder after each, as a durable name needs."""
    for number, size in enumerate(sizes):
        with (folder / f"bare-{number}-{time.perf_counter_ns()}").open("wb") as file:
            file.write(bytes(size))
            file.flush()
            os.fsync(file.fileno())
        if folders:
            descriptor = os.open(folder, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


def took(call: Callable[[], object], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def appends(home: Path) -> dict[str, object]:
    logs = {size: Log(written(home / str(size), size), ORIGIN, PRIVATE) for size in SIZES}
    aside = home / "bare"
    aside.mkdir()
    os.sync()
    seconds: dict[str, list[float]] = {name: [] for name in (*map(str, SIZES), "bare", "bare and folders")}
    for number in range(ROUNDS * APPENDS):
        one = entry(number)
        width = 232 + number + 1
        sizes = [width * (2 + len(one.data)), width * 32, 180]
        for size, log in logs.items():
            seconds[str(size)].append(took(partial(log.append, one), 1))
        seconds["bare"].append(took(partial(bare, aside, sizes, folders=False), 1))
        seconds["bare and folders"].append(took(partial(bare, aside, sizes, folders=True), 1))
    opened = {}
    for size, log in logs.items():
        log.close()
        start = time.perf_counter()
        Log(home / str(size), ORIGIN, PRIVATE).close()
        opened[str(size)] = round(time.perf_counter() - start, 4)
    middle = {
        name: median(median(values[round_ * APPENDS : (round_ + 1) * APPENDS]) for round_ in range(ROUNDS))
        for name, values in seconds.items()
    }
    return {
        "milliseconds": {name: round(1000 * value, 2) for name, value in middle.items()},
        "append / three bare writes": round(middle[str(SIZES[-1])] / middle["bare"], 3),
        "append / three bare writes and their folders": round(middle[str(SIZES[-1])] / middle["bare and folders"], 3),
        "append at 10^6 / at 10^3": round(middle[str(SIZES[-1])] / middle[str(SIZES[0])], 3),
        "seconds to open": opened,
    }


def inclusion(home: Path) -> dict[str, object]:
    size = SIZES[-1]
    with Log(home / str(size), ORIGIN, PRIVATE) as log:
        proof = read_proof(log.prove(123_456))
        head, _ = notes.read_checkpoint(proof.checkpoint)
    leaf = tree.leaf_hash(proof.entry)
    content = b"\x01" + bytes(64)
    count = (head.size - 1).bit_length() + 1

    def hashes() -> None:
        for _ in range(count):
            hashlib.sha256(content).digest()

    def check() -> None:
        tree.check_inclusion(leaf, proof.index, head.size, proof.hashes, head.root)

    rounds = [(took(check, CHECKS), took(hashes, CHECKS)) for _ in range(ROUNDS)]
    return {
        "hashes": len(proof.hashes),
        "microseconds": [round(1e6 * median(side), 2) for side in zip(*rounds, strict=True)],
        "inclusion / bare hashes": round(median(ours / theirs for ours, theirs in rounds), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="a folder on the disk that is to be measured")
    with tempfile.TemporaryDirectory(dir=parser.parse_args().folder) as home:
        found = {"append": appends(Path(home)), "inclusion": inclusion(Path(home))}
    ratios = {name: value for part in found.values() for name, value in part.items() if name in TARGETS}
    table = {
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
        "targets": TARGETS,
        **found,
        "missed": [name for name, most in TARGETS.items() if float(str(ratios[name])) > most],
    }
    TABLE.write_text(json.dumps(table, indent=1) + "\n")
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
