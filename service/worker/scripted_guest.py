"""The program of a scripted cell: does one thing, as its argument says. Standard library only; see `scripted`.

It asks the kernel for its own death when the worker's launching thread ends, as a real cell's launcher does: no cell
may outlive its worker.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

RESULT = 3
"""Descriptor of the result channel (specs: sandbox)."""
RESULT_CAP = 2**20
PR_SET_PDEATHSIG = 1
NEVER_S = 86_400.0


def main() -> None:
    """Do what the argument says."""
    told = json.loads(sys.argv[1])
    die_with(int(told["parent"]))
    verb, number = told["verb"], float(told["number"])
    if verb == "crash":
        os.kill(os.getpid(), int(number))
    elif verb == "hang":
        time.sleep(NEVER_S)
    elif verb == "oom":
        bytearray(2**46)
    elif verb == "forks":
        fork(int(number))
    elif verb == "big":
        write(b"x" * (2 * RESULT_CAP))
    elif verb == "garbage":
        write(os.urandom(256))
    else:
        time.sleep(number)
        write(json.dumps(document(told["reasons"], of_model=verb == "refuse")).encode())


def die_with(parent: int) -> None:
    """Ask for SIGKILL at the parent's death; end at once if it is dead already."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def fork(count: int) -> None:
    """Start processes that wait, and wait with them."""
    for _ in range(count):
        if os.fork() == 0:
            break
    time.sleep(NEVER_S)


def document(reasons: dict[str, str], *, of_model: bool) -> dict[str, Any]:
    """Return a result in which every check refuses."""
    order = json.loads(Path("in/order.json").read_bytes())
    answers = [
        {
            "check": one["name"],
            "version": one["version"],
            "params": one["params"],
            "outcome": "refused",
            "valid": False,
            "reason": "ingest:not_on_list" if of_model else reasons[one["name"]],
            "step": None,
            "measured": None,
            "controls": [],
            "findings": [],
            "skipped": [],
            "power": [],
        }
        for one in order["checks"]
    ]
    return {
        "schema": "assay-cell-result/v1",
        "nonce": order["nonce"],
        "answers": answers,
        "ingest": {"decisions": []},
        "facts": None,
    }


def write(content: bytes) -> None:
    """Write to the result channel."""
    with os.fdopen(RESULT, "wb") as channel:
        channel.write(content)


if __name__ == "__main__":
    main()
