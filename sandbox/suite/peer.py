"""One of two programs that run at once: it leaves traces in every place and looks for the other's.

Arguments: "mine:" and its own name, the other's name, whether it is inside a cell, then the folders of shared memory,
scratch and slots.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time

WAIT_S = 0.25
"""How long each looks. From when to when is told, by the clock that both share: who did not look at the same time has
proven nothing."""


def main() -> None:
    """Leave traces, look, tell."""
    mine, other, inside, shm, scratch, out = sys.argv[1:]
    mine = mine.partition(":")[2]
    places = {"shm": shm, "scratch": scratch, "slots": out}
    for folder in places.values():
        try:
            with open(f"{folder}/{mine}", "w") as stream:
                stream.write(mine)
        except OSError:
            continue
    held = _listening(mine)
    seen = dict.fromkeys((*places, "processes", "abstract"), False)
    began = time.monotonic()
    deadline = began + (WAIT_S if inside else 3 * WAIT_S)
    while time.monotonic() < deadline:
        for name, folder in places.items():
            seen[name] |= os.path.exists(f"{folder}/{other}")
        seen["processes"] |= _runs(other)
        seen["abstract"] |= _answers(other)
        time.sleep(0.01)
    told = json.dumps({"seen": seen, "looked": [began, time.monotonic()]})
    sys.stdout.write(told)
    if inside:
        os.write(3, told.encode())
    del held


def _listening(mine: str) -> socket.socket | None:
    """Take an abstract name; None where no socket may be made."""
    try:
        held = socket.socket(socket.AF_UNIX)
        held.bind("\0" + mine)
        held.listen()
    except OSError:
        return None
    return held


def _runs(other: str) -> bool:
    """Look for the other's process by the word that stands in its command line alone."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as stream:
                    if f"mine:{other}".encode() in stream.read():
                        return True
            except OSError:
                continue
    return False


def _answers(other: str) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(0.05)
            one.connect("\0" + other)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
