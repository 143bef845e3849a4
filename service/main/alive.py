"""A file that is touched while a role serves: what a supervisor that cannot call the role looks at."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

BEAT_S = 10.0
"""Seconds between two touches; who looks calls a file of a minute ago dead."""


@contextmanager
def beating(file: Path | None, *, every_s: float = BEAT_S) -> Iterator[Callable[[], None]]:
    """Yield what begins to touch a file, to be called once the role serves; at the end the file is removed.

    It tells that the process runs and can write, no more: a loop that dies takes its process along, and a step of a
    loop may rightly take hours.
    """
    ended = threading.Event()
    started: list[threading.Thread] = []

    def beat(path: Path) -> None:
        while not ended.wait(every_s):
            path.touch(mode=0o600)

    def begin() -> None:
        if file is None:
            return
        file.touch(mode=0o600)
        thread = threading.Thread(target=beat, args=(file,), name="alive", daemon=True)
        thread.start()
        started.append(thread)

    try:
        yield begin
    finally:
        ended.set()
        for thread in started:
            thread.join()
        if file is not None:
            file.unlink(missing_ok=True)
