"""Orders for cells that are measured, and how anything is timed."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import sandbox
from sandbox import CodeMount, Input, Order, Slot, ingest
from sandbox.cell import Kind, canonical
from sandbox.reader.digest import file_sha256

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
"""Matrix products on one thread; tells its CPU seconds on a descriptor."""

MODEL_BYTES, SHARDS = 2**30, 8


def clock() -> float:
    """Return seconds of the wall clock, from some moment."""
    return time.perf_counter()


def timed(run: Callable[[], object], of: Callable[[], float] = clock) -> float:
    """Return how many seconds a call takes."""
    began = of()
    run()
    return of() - began


def in_turns(runs: int, what: Mapping[str, Callable[[], object]], *, cpu: bool = False) -> dict[str, list[float]]:
    """Return the seconds of each, taken one after the other so that the host's load is the same for all.

    Args:
        runs: how often.
        what: calls by name.
        cpu: count this process's CPU time instead of the wall's.
    """
    of = time.process_time if cpu else clock
    rows = [{name: timed(run, of) for name, run in what.items()} for _ in range(runs)]
    return {name: [row[name] for row in rows] for name in what}


def order_of(place: Path, text: str, *, kind: Kind = "check") -> Order:
    """Return an order for a program's text."""
    path = place / f"{hashlib.sha256(text.encode()).hexdigest()[:8]}.py"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)
    return Order(
        kind=kind, module="program", arguments=(), code=(CodeMount(name="program.py", source=path),), request=b"{}",
        nonce=secrets.token_hex(32), limits={"wall_s": 60},
    )  # fmt: skip


def ingest_order(folder: Path) -> tuple[Order, int]:
    """Make a sparse model in shards; return the order of its ingest, and the bytes of its weights."""
    import checks

    folder.mkdir()
    config = {"model_type": "gpt2", "n_embd": 4, "n_layer": 1, "n_head": 1, "n_positions": 8, "vocab_size": 4}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    names = [f"model-{n}.safetensors" for n in range(SHARDS)]
    size = MODEL_BYTES // SHARDS
    for number, name in enumerate(names):
        entry = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
        header = json.dumps({f"t{number}": entry}).encode()
        with (folder / name).open("wb") as out:
            out.write(len(header).to_bytes(8, "little") + header)
            out.truncate(8 + len(header) + size)
    index = {"weight_map": {f"t{number}": name for number, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    paths = [*sorted(folder.iterdir()), Path(checks.__file__).parent / ingest.ARCHITECTURES]
    inputs = tuple(Input(name=one.name, source=one, sha256=file_sha256(one), size=one.stat().st_size) for one in paths)
    files = [{"path": one.name, "input": one.name, "sha256": one.sha256, "size": one.size} for one in inputs[:-1]]
    nonce = secrets.token_hex(32)
    order = Order(
        kind="ingest", module="sandbox.ingest", arguments=(),
        code=(CodeMount(name="sandbox", source=Path(sandbox.__file__).parent),), inputs=inputs,
        slots=tuple(Slot(name=name, max_bytes=cap, released=False) for name, cap in ingest.SLOTS.items()),
        request=canonical({"schema": ingest.REQUEST_SCHEMA, "nonce": nonce, "files": files}), nonce=nonce,
    )  # fmt: skip
    return order, MODEL_BYTES
