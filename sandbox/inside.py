"""The shim: trusted, and the first code inside a cell.

It puts the channels at fixed numbers, limits itself, says one line on the status channel and waits. Nothing of the
order is imported before the host, having looked at this process from outside, has answered.

Argument: one JSON object {"fds": {role: number}, "rlimits": {name: [soft, hard]}, "front": [...], "back": [...],
"module": str, "arguments": [...]}.
"""

from __future__ import annotations

import json
import os
import resource
import runpy
import sys
from typing import Any

RESULT, PROGRESS, STATUS, GO = 3, 4, 5, 6
OUT_OF_MEMORY = 75
"""Exit status that tells the host of a MemoryError that nobody caught."""


def _arrange(fds: dict[str, int]) -> None:
    """Put each channel at its number and close all others; the numbers that come in are far above."""
    for role, number in (("result", RESULT), ("progress", PROGRESS), ("status", STATUS), ("go", GO)):
        os.dup2(fds[role], number, inheritable=False)
    os.closerange(GO + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _limit(rlimits: dict[str, list[int]]) -> None:
    for name, (soft, hard) in rlimits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (soft, hard))


def _wait_for_go() -> None:
    os.write(STATUS, b'{"armed":true}\n')
    answer = os.read(GO, 1)
    os.close(STATUS)
    os.close(GO)
    if answer != b"g":
        os._exit(70)


def main() -> None:
    """Arm, wait, run the module."""
    plan: dict[str, Any] = json.loads(sys.argv[1])
    _arrange(plan["fds"])
    _limit(plan["rlimits"])
    _wait_for_go()
    sys.path[:] = [*plan["front"], *sys.path, *plan["back"]]
    sys.argv[:] = [plan["module"], *plan["arguments"]]
    try:
        runpy.run_module(plan["module"], run_name="__main__", alter_sys=True)
    except MemoryError:
        os.write(2, b"MemoryError: the cell's memory is used up\n")
        os._exit(OUT_OF_MEMORY)


if __name__ == "__main__":
    main()
