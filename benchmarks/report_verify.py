"""The rows of the speed table of the report's specification, section 20, that are about verifying.

Run: `python -m benchmarks.report_verify [--folder DIR]`. Writes report_verify.json beside itself. Three rows, each with
both sides in turn in one run, median of 7 rounds, wall and CPU time:

- a whole `assay verify` of a report of 400 metrics under a trust root, without a model, against an interpreter that
  imports json and hashlib;
- the steps V01 to V14 in a process that has imported everything, against one plain `json.loads` and one P-256
  verification of the same bytes;
- V09 against hashlib over the same files in as many threads, and how far the process's memory rises meanwhile.

About a minute, and 512 MiB of disk in a temporary folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from assay import bundle, dsse, forged_parts, keys, manifest
from assay.manifest import HASH_THREADS
from assay.testing import Forge
from assay.verify import open_case, verify
from assay.verify.model_files import check_model_files

TABLE = Path(__file__).with_suffix(".json")
ROUNDS, METRICS = 7, 400
CALLS = 5
"""In-process calls of a round: one takes milliseconds."""
FILES, FILE_BYTES = 8, 64 * 1024 * 1024
CHUNK = 1024 * 1024
TARGETS = {"process / bare interpreter": 8.0, "in process / loads and verify": 8.0, "V09 / bare hashlib": 1.15}
"""Specification, section 20: at most, each of wall time."""
RISE_MAX_MIB = 64

Times = tuple[float, float]
"""Wall and CPU seconds."""


def forged(home: Path) -> tuple[Path, Forge]:
    """Write a report whose one answer holds 400 metrics."""
    forge = Forge(home, 1)
    answer = forge.answer({"layers": 2, "part": 0})
    answer["measured"]["coverage"] = {"layer": [str(layer) for layer in range(METRICS)]}
    answer["measured"]["metrics"] = [
        forged_parts.metric(str(layer), "0.512", "0.477", "0.547") for layer in range(METRICS)
    ]
    return forge.report(answers=[answer]), forge


def took(call: Callable[[], object], times: int = 1) -> Times:
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        call()
    return (time.perf_counter() - wall) / times, (time.process_time() - cpu) / times


def ran(command: list[str], environment: dict[str, str]) -> Times:
    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    wall, cpu = time.perf_counter(), spent()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - wall, spent() - cpu


def alternated(name: str, ours: Callable[[], Times], theirs: Callable[[], Times]) -> dict[str, Any]:
    """Return the medians of both sides, of their wall ratio and of their CPU ratio."""
    ours(), theirs()  # caches of files and of compiled modules are warm on both sides
    rounds = [(ours(), theirs()) for _ in range(ROUNDS)]
    return {
        "milliseconds": {
            side: {kind: round(1000 * median(one[which][at] for one in rounds), 2) for at, kind in enumerate(KINDS)}
            for which, side in enumerate(("ours", "theirs"))
        },
        name: round(median(ours[0] / theirs[0] for ours, theirs in rounds), 3),
        f"{name}, CPU": round(median(ours[1] / theirs[1] for ours, theirs in rounds), 3),
    }


KINDS = ("wall", "CPU")


def process(report: Path, forge: Forge, home: Path) -> dict[str, Any]:
    environment = {**os.environ, "XDG_STATE_HOME": str(home / "state"), "OPENBLAS_NUM_THREADS": "1"}
    command = [str(Path(sys.executable).with_name("assay")), "verify", str(report), "--trust-root"]
    return alternated(
        "process / bare interpreter",
        lambda: ran([*command, str(forge.trust_root)], environment),
        lambda: ran([sys.executable, "-I", "-c", "import json,hashlib"], environment),
    )


def in_process(report: Path, forge: Forge) -> dict[str, Any]:
    carried = bundle.read((report / bundle.FILE_NAME).read_bytes())
    public = keys.load_public(forge.key_file).public

    def theirs() -> None:
        json.loads(carried.payload)
        dsse.verify(public, dsse.PAYLOAD_TYPE, carried.payload, carried.signature)

    def ours() -> None:
        seen = verify(report, trust_root=forge.trust_root)
        assert seen.outcome == "verified", seen.render_text()

    return alternated("in process / loads and verify", lambda: took(ours, CALLS), lambda: took(theirs, CALLS))


def hashing(home: Path) -> dict[str, Any]:
    directory = home / "weights"
    directory.mkdir()
    for number in range(FILES):
        with (directory / f"model-{number}.safetensors").open("wb") as file:
            for _ in range(FILE_BYTES // CHUNK):
                file.write(os.urandom(CHUNK))
    case = open_case(home, model_dir=directory)
    case.manifest = manifest.build(directory)

    def bare(path: Path) -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def theirs() -> None:
        with ThreadPoolExecutor(HASH_THREADS) as pool:
            list(pool.map(bare, sorted(directory.iterdir())))

    Path("/proc/self/clear_refs").write_text("5")  # starts the peak of resident memory anew
    before = resident("VmRSS")
    table = alternated("V09 / bare hashlib", lambda: took(lambda: check_model_files(case)), lambda: took(theirs))
    return {"bytes": FILES * FILE_BYTES, "threads": HASH_THREADS, **table, "rise in MiB": resident("VmHWM") - before}


def resident(field: str) -> float:
    """Return a field of this process's memory, in MiB."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(f"{field}:"))
    return round(int(line.split()[1]) / 1024, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    with tempfile.TemporaryDirectory(dir=parser.parse_args().folder) as place:
        home = Path(place)
        report, forge = forged(home)
        size = (report / bundle.FILE_NAME).stat().st_size
        found = {
            "process": process(report, forge, home),
            "in process": in_process(report, forge),
            "V09": hashing(home),
        }
    ratios = {name: value for part in found.values() for name, value in part.items()}
    missed = [name for name, most in TARGETS.items() if ratios[name] > most]
    if found["V09"]["rise in MiB"] > RISE_MAX_MIB:
        missed.append("rise in MiB")
    table = {
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
        "metrics": METRICS,
        "bundle bytes": size,
        "targets": {**TARGETS, "rise in MiB": RISE_MAX_MIB},
        **found,
        "missed": missed,
    }
    TABLE.write_text(json.dumps(table, indent=1) + "\n")
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
