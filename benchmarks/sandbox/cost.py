"""What a cell costs, as ratios to bare programs of the same run.

    python -m benchmarks.sandbox.cost --runs 30

Each number is a median, each ratio one of medians that were taken in turns; the load of the host stands beside them.
As root the start is measured through the staging step; run it once more as an unprivileged user for the other column.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import checks
import sandbox
from sandbox import BubblewrapCell, BubblewrapSettings, CodeMount, Input, Order, Slot, ingest, procfs
from sandbox.cell import Kind, canonical
from sandbox.inputs import held
from sandbox.reader import strict_json
from sandbox.reader.digest import file_sha256

RESULT = Path(__file__).parent
BARE = (sys.executable, "-I", "-S", "-B", "-c", "pass")
WORK = """
import os, time, torch
torch.set_num_threads(1)
torch.manual_seed(0)
a = torch.randn(512, 512)
began = time.process_time()
for _ in range(150):
    a = torch.tanh(a @ a / 512)
took = time.process_time() - began
os.write({}, str(took).encode())
"""
GIB, SHARDS = 2**30, 8


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30)
    options = parser.parse_args()
    told: dict[str, Any] = {
        "launcher": "root" if os.geteuid() == 0 else "unprivileged", "runs": options.runs, "cpus": os.cpu_count(),
        "kernel": platform.release(), "load_before": os.getloadavg()[0],
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as folder:
        place = Path(folder)
        place.chmod(0o755)
        cell = BubblewrapCell(BubblewrapSettings(site_packages=(), work_dir=place))
        try:
            told |= starts(cell, place, options.runs) | cancels(cell, place, options.runs) | memory(cell, place)
            told |= proofs(cell) | headers(options.runs) | reading(cell, place)
        finally:
            cell.close()
        if told["launcher"] == "root":
            told |= work(place)
    told["load_after"] = os.getloadavg()[0]
    path = RESULT / f"cost_{told['launcher']}.json"
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(told, indent=1))


def order_of(place: Path, text: str, *, kind: Kind = "check", inputs: tuple[Input, ...] = ()) -> Order:
    """Return an order for a program's text."""
    path = place / f"{hashlib.sha256(text.encode()).hexdigest()[:8]}.py"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)
    return Order(
        kind=kind, module="program", arguments=(), code=(CodeMount(name="program.py", source=path),), request=b"{}",
        nonce=secrets.token_hex(32), inputs=inputs, limits={"wall_s": 60},
    )  # fmt: skip


def timed(run: Callable[[], object]) -> float:
    """Return seconds of the wall clock."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def in_turns(runs: int, what: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median of each, taken one after the other so that the host's load is the same for all."""
    rows = [{name: timed(run) for name, run in what.items()} for _ in range(runs)]
    return {name: statistics.median(row[name] for row in rows) for name in what}


def starts(cell: BubblewrapCell, place: Path, runs: int) -> dict[str, Any]:
    """A fully armed cell of each kind, with its gate, that does nothing."""
    made = in_turns(
        runs,
        {
            "bare": lambda: subprocess.run(BARE, check=True, env={}),
            "ingest": lambda: cell.run(order_of(place, "pass", kind="ingest")),
            "check": lambda: cell.run(order_of(place, "pass")),
        },
    )
    return {
        "bare_ms": made["bare"] * 1e3,
        **{f"start_{kind}_ms": made[kind] * 1e3 for kind in ("ingest", "check")},
        **{f"start_{kind}_over_bare": made[kind] / made["bare"] for kind in ("ingest", "check")},
    }


def cancels(cell: BubblewrapCell, place: Path, runs: int) -> dict[str, float]:
    """From the cancel to the moment when nothing of a sleeping cell is left."""
    took = []
    for _ in range(runs):
        asked: list[float] = []

        def cancelled(asked: list[float] = asked) -> bool:
            asked.append(time.perf_counter())
            return True

        cell.run(order_of(place, "import time; time.sleep(60)"), cancelled=cancelled)
        took.append(time.perf_counter() - asked[0])
    return {"cancel_median_ms": statistics.median(took) * 1e3, "cancel_most_ms": max(took) * 1e3}


def memory(cell: BubblewrapCell, place: Path) -> dict[str, int]:
    """Anonymous memory of a cell that does nothing: bubblewrap's two processes and the interpreter."""
    seen: list[int] = []

    def look() -> bool:
        pids = [pid for pid in procfs.tree(os.getpid()) if pid != os.getpid()]
        seen.append(procfs.sample(pids).anonymous_bytes)
        return len(seen) > 2

    cell.run(order_of(place, "import time; time.sleep(60)"), cancelled=look)
    return {"idle_cell_anonymous_bytes": max(seen)}


def proofs(cell: BubblewrapCell) -> dict[str, float]:
    """The self-check, all kinds."""
    took = timed(cell.prove)
    bare = statistics.median(timed(lambda: subprocess.run(BARE, check=True, env={})) for _ in range(5))
    return {"prove_s": took, "prove_over_bare": took / bare}


def headers(runs: int) -> dict[str, float]:
    """A header of 20 000 tensors, read strictly and by `json`."""
    rows = {f"h.{n}.weight": {"dtype": "F32", "shape": [1], "data_offsets": [4 * n, 4 * n + 4]} for n in range(20_000)}
    data = json.dumps(rows).encode()
    made = in_turns(
        min(runs, 10), {"strict": lambda: strict_json.loads(data, cap=2**24), "json": lambda: json.loads(data)}
    )
    return {"header_strict_over_json": made["strict"] / made["json"], "header_bytes": len(data)}


def work(place: Path, rounds: int = 5) -> dict[str, float]:
    """CPU seconds of the same matrix products in a cell and outside; wall time would be the neighbours' as well."""
    cell = BubblewrapCell(BubblewrapSettings(work_dir=place, cpus=1))
    rows: list[tuple[float, float]] = []
    try:
        for _ in range(rounds):
            inside = cell.run(order_of(place, WORK.format(3))).result
            bare = subprocess.run([sys.executable, "-c", WORK.format(1)], check=True, capture_output=True).stdout
            rows.append((float(inside or b"nan"), float(bare)))
    finally:
        cell.close()
    inner, outer = (statistics.median(row[side] for row in rows) for side in (0, 1))
    return {"torch_cpu_s_inside": inner, "torch_cpu_s_outside": outer, "torch_inside_over_outside": inner / outer}


def reading(cell: BubblewrapCell, place: Path) -> dict[str, float]:
    """The ingest cell on a sparse model of 1 GiB in 8 shards, less its start, against SHA-256 of the same bytes."""
    folder = place / "model"
    folder.mkdir()
    config = {"model_type": "gpt2", "n_embd": 4, "n_layer": 1, "n_head": 1, "n_positions": 8, "vocab_size": 4}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    names = [f"model-{n}.safetensors" for n in range(SHARDS)]
    size = GIB // SHARDS
    for number, name in enumerate(names):
        entry = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
        header = json.dumps({f"t{number}": entry}).encode()
        with (folder / name).open("wb") as out:
            out.write(len(header).to_bytes(8, "little") + header)
            out.truncate(8 + len(header) + size)
    index = {"weight_map": {f"t{number}": name for number, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    table = Path(checks.__file__).parent / ingest.ARCHITECTURES
    hashed = timed(lambda: [file_sha256(folder / name) for name in names])
    paths = [*sorted(folder.iterdir()), table]
    inputs = tuple(Input(name=one.name, source=one, sha256=file_sha256(one), size=one.stat().st_size) for one in paths)
    files = [{"path": one.name, "input": one.name, "sha256": one.sha256, "size": one.size} for one in inputs[:-1]]
    nonce = secrets.token_hex(32)
    order = Order(
        kind="ingest", module="sandbox.ingest", arguments=(),
        code=(CodeMount(name="sandbox", source=Path(sandbox.__file__).parent),), inputs=inputs,
        slots=tuple(Slot(name=name, max_bytes=cap, released=False) for name, cap in ingest.SLOTS.items()),
        request=canonical({"schema": ingest.REQUEST_SCHEMA, "nonce": nonce, "files": files}), nonce=nonce,
    )  # fmt: skip
    with held(inputs, place, cell.settings.cell_uid if os.geteuid() == 0 else None) as kept:
        outcomes = [cell.run(order, held=kept)]
        assert outcomes[0].result is not None, outcomes[0].log_tail
        made = in_turns(7, {
            "read": lambda: cell.run(order, held=kept),
            "start": lambda: cell.run(order_of(place, "pass", kind="ingest")),
        })  # fmt: skip
    less = made["read"] - made["start"]
    refused = json.loads(outcomes[0].result)["refused"]
    return {
        "model_bytes": GIB, "sha256_s": hashed, "ingest_less_start_s": less, "ingest_over_sha256": less / hashed,
        "model_refused": refused,
    }  # fmt: skip


if __name__ == "__main__":
    main()
