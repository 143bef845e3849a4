"""What the audits of a soak run: an honest program, and attacks with the class of end that each must have."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

NORM = """
import array, json, math, os
order = json.load(open("in/order.json"))
rows = json.load(open("in/" + order["model"]["tensors"]["input"]))
first = min(rows, key=lambda row: row["name"])
inputs = {file["path"]: file["input"] for file in order["model"]["files"]}
data = open("in/" + inputs[first["file"]], "rb").read()
start = 8 + int.from_bytes(data[:8], "little")
numbers = array.array("f", data[start + first["begin"] : start + first["end"]])
text = "%.5f" % math.sqrt(sum(number * number for number in numbers))
metric = {
    "name": "norm", "value": text.rstrip("0").rstrip("."), "step": "0.00001", "unit": "1", "n": 1, "better": "none",
    "determinism": "tolerance", "tolerance": {"abs": "0.000001", "rel": "0"}, "labels": {}, "interval": None,
    "items_sha256": None, "margin": None, "multiplicity": None, "null": None, "p": None,
}
answer = {
    "check": "norm", "version": "1.0", "params": {}, "outcome": "measured", "valid": True, "reason": None, "step": None,
    "measured": {"coverage": {}, "metrics": [metric], "plots": [], "skipped": []}, "controls": [], "findings": [],
    "power": [], "skipped": [],
}
made = {
    "schema": "assay-cell-result/v1", "nonce": order["nonce"], "answers": [answer], "ingest": {"decisions": []},
    "facts": None,
}
os.write(3, json.dumps(made, separators=(",", ":"), sort_keys=True).encode())
"""
"""The norm of the first tensor, as `tests.service.worker.guest_checks` has it, without its imports of seconds."""

_RESULT = '{"schema":"assay-cell-result/v1","nonce":"%s","answers":[],"ingest":{"decisions":[]},"facts":null}'

PROGRAMS: Mapping[str, tuple[str, Mapping[str, int], str]] = {
    "fork bomb": (
        "import os, time\nn = 0\ntry:\n    while n < 200:\n        if os.fork() == 0: time.sleep(60)\n        n += 1\n"
        "except OSError: pass\nraise SystemExit(3)\n",
        {"processes": 16}, "CELL_CRASHED",
    ),
    "thread bomb": (
        "import threading, time\nfor _ in range(200):\n"
        "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n",
        {"processes": 16}, "CELL_CRASHED",
    ),
    "orphans": (
        "import os, signal, time\nif os.fork() == 0:\n    os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    if os.fork() == 0: time.sleep(60)\n    os._exit(0)\nos.wait()\nraise SystemExit(3)\n",
        {}, "CELL_CRASHED",
    ),
    "memory": ("kept = []\nwhile True: kept.append(bytearray(2**20))\n", {"memory_bytes": 2**28}, "MEMORY_LIMIT"),
    "wall": ("import time\ntime.sleep(60)\n", {"wall_s": 1}, "TIME_LIMIT"),
    "cpu": ("while True: pass\n", {"cpu_s": 1}, "TIME_LIMIT"),
    "log flood": ("import os\nwhile True: os.write(2, b'x' * 65536)\n", {"log_bytes": 1024}, "LIMIT_HIT"),
    "output cap": ("import os, time\nos.write(3, b' ' * 2000)\ntime.sleep(60)\n", {"result_bytes": 1024}, "LIMIT_HIT"),
    "crash": ("import os\nos.abort()\n", {}, "CELL_CRASHED"),
    "full scratch": (
        "f = open('/scratch/x', 'wb')\nwhile True: f.write(b'x' * 2**20)\n", {"scratch_bytes": 2**22}, "CELL_CRASHED",
    ),
    "stopped": ("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\nimport time; time.sleep(60)\n",
                {"wall_s": 1}, "TIME_LIMIT"),
    "lying result": (f"import os\nos.write(3, {_RESULT % ('0' * 64)!r}.encode())\n", {}, "RESULT_REJECTED"),
    "no JSON": ("import os\nos.write(3, b'{' * 1000)\n", {}, "RESULT_REJECTED"),
}  # fmt: skip
"""Programs in place of the checks: text, limits of the cell, class of the end."""


def _forbidden_key(model: Path) -> None:
    for name in ("config.json", "architecture.json"):
        if (model / name).exists():
            found = json.loads((model / name).read_text())
            (model / name).write_text(json.dumps({**found, "auto_map": {"AutoModel": "evil.Model"}}))


def _truncated(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def _pickle(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"\x80\x04\x95" + b"\0" * 64)


def _no_declaration(model: Path) -> None:
    for name in ("config.json", "architecture.json"):
        (model / name).unlink(missing_ok=True)


MODELS: Mapping[str, Callable[[Path], None]] = {
    "model: forbidden key": _forbidden_key,
    "model: truncated weights": _truncated,
    "model: pickle as weights": _pickle,
    "model: no declaration": _no_declaration,
}
"""What is done to a good model's folder; each is refused by the first cell."""
