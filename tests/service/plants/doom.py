"""Named points at which a process of a real tree dies, and what else is done to it from inside.

A tree is started with a folder in PYTHONPATH that holds `sitecustomize.py` (see `write`), so every role of it loads
this module before its own code. A point is armed by a file of its name in a plan's folder. The process that comes to
the point first takes the file away and is SIGKILLed there; all others pass.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]

POINTS = (
    "worker.before_lease",
    "worker.after_lease",
    "worker.before_finalise",
    "worker.after_commit",
    "api.before_commit",
    "api.after_commit",
    "signer.after_register",
    "signer.after_seal",
    "scheduler.before_completed",
)
"""Where a process dies."""

CLOCKS = ("worker", "scheduler")
"""Roles whose clock is moved by the milliseconds that the file `clock.ROLE` holds."""


def write(folder: Path, plan: Path) -> str:
    """Write the module that each role loads; return what PYTHONPATH must be."""
    folder.mkdir(exist_ok=True)
    plan.mkdir(exist_ok=True)
    text = f"from pathlib import Path\n\nfrom tests.service.plants import doom\n\ndoom.begin(Path({str(plan)!r}))\n"
    (folder / "sitecustomize.py").write_text(text, encoding="utf-8")
    return os.pathsep.join([str(folder), str(ROOT), str(ROOT / "client")])


def begin(plan: Path) -> None:
    """Prepare this process for its points, if it is a role of a tree."""
    words = sys.orig_argv
    role = words[words.index("service.main") + 1] if "service.main" in words[:-1] else ""
    if role == "signer":
        while (plan / "signer.away").exists():
            time.sleep(0.05)
    if role in CLOCKS:
        _shift(plan / f"clock.{role}")
    if role in _ARMED:
        _ARMED[role](plan)


def meet(plan: Path, point: str) -> None:
    """Die here if somebody armed the point and nobody died of it yet."""
    try:
        (plan / point).rename(plan / f"{point}.met")
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _shift(file: Path) -> None:
    """Move what this process takes for the time; the monotonic clock, by which leases live, stays as it is."""
    from service.store import engine

    real = time.time

    def offset_ms() -> int:
        try:
            return int(file.read_text())
        except (FileNotFoundError, ValueError):
            return 0

    class Shifted(dict[str, str]):
        """On SQLite the database's clock is the caller's; on PostgreSQL it is the server's, which nobody moves."""

        def __getitem__(self, key: str) -> str:
            asked = super().__getitem__(key)
            return f"{asked} + {offset_ms()}" if key == "sqlite" else asked

    engine.CLOCKS = Shifted(engine.CLOCKS)
    time.time = lambda: real() + offset_ms() / 1000


def _around(owner: Any, name: str, plan: Path, before: str | None, after: str | None) -> None:
    """Put points before and after a function's call."""
    real = getattr(owner, name)

    def called(*arguments: Any, **named: Any) -> Any:
        if before is not None:
            meet(plan, before)
        made = real(*arguments, **named)
        if after is not None and made is not None:
            meet(plan, after)
        return made

    setattr(owner, name, called)


def _after_commit(owner: Any, name: str, plan: Path, point: str) -> None:
    """Put a point behind the commit of the transaction in which a function was called with success."""
    from service.store.engine import Store

    step, begin = getattr(owner, name), Store.begin
    reached: set[int] = set()

    def noted(connection: Any, *arguments: Any, **named: Any) -> Any:
        made = step(connection, *arguments, **named)
        if made is not None:
            reached.add(id(connection))
        return made

    @contextmanager
    def watched(self: Store) -> Iterator[Any]:
        with begin(self) as connection:
            reached.discard(id(connection))
            yield connection
            is_it = id(connection) in reached
        if is_it:
            meet(plan, point)

    setattr(owner, name, noted)
    Store.begin = watched  # type: ignore[method-assign]


def _worker(plan: Path) -> None:
    from service.store import jobs

    _after_commit(jobs, "lease", plan, "worker.after_lease")
    _after_commit(jobs, "finalise", plan, "worker.after_commit")
    _around(jobs, "lease", plan, "worker.before_lease", None)
    _around(jobs, "finalise", plan, "worker.before_finalise", None)


def _api(plan: Path) -> None:
    from service.api.submit import Submitter
    from service.store import submissions

    _around(submissions, "accept", plan, None, "api.before_commit")
    _around(Submitter, "submit", plan, None, "api.after_commit")


def _signer(plan: Path) -> None:
    from service.signer import process

    answer = process.answer

    def told(desk: Any, asked: Any) -> dict[str, Any]:
        made = answer(desk, asked)
        meet(plan, f"signer.after_{asked['op']}")
        return made

    process.answer = told


def _scheduler(plan: Path) -> None:
    from service.store import audits

    _around(audits, "seal", plan, "scheduler.before_completed", None)


_ARMED: dict[str, Callable[[Path], None]] = {"worker": _worker, "api": _api, "signer": _signer, "scheduler": _scheduler}
