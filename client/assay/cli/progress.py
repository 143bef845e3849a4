"""Progress beside the result, on standard error: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from assay.cli.screen import SCREEN, bytes_text, clean

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from assay.remote.values import Audit, Event

PHASES = (
    "materialising", "ingesting", "starting", "loading", "sweep", "measuring", "controls", "judging", "storing",
    "sealing",
)  # fmt: skip
"""Phases that an audit may tell, in their order."""

LINE_EVERY_S = 5.0
"""Plain upload lines: enough to see it move, few enough for a build log."""


class Teller(Protocol):
    """Tells a person how it goes."""

    def upload(self, done: int, total: int) -> None:
        """Tell that so many bytes of so many have arrived."""

    def event(self, event: Event) -> None:
        """Tell an event of the audit."""


def event_text(event: Event) -> str | None:
    """Return an event in words; None for one that says nothing to a person."""
    detail = {key: clean(value, 120) for key, value in event.detail.items()}
    if event.kind == "state_changed":
        return detail["state"] + (f" ({detail['reason']})" if detail.get("reason") else "")
    if event.kind == "registered":
        return f"registered: request sha256:{detail['request_sha256']}"
    if event.kind == "attempt_started":
        return f"attempt {detail['number']} of job {detail['job']} started"
    if event.kind == "attempt_ended":
        return f"attempt {detail['number']} of job {detail['job']} ended {detail['exit_class']}"
    if event.kind == "phase_reached":
        named = _phase(event)
        return f"{named} {detail['done']}/{detail['owed']}" if event.detail["owed"] else named
    if event.kind == "planned":
        return f"planned: {detail['shards']} shards, plan sha256:{detail['plan_sha256']}"
    if event.kind == "shard_done":
        return f"shard {detail['done']} of {detail['of']} done"
    if event.kind == "shard_dead":
        return f"shard:{detail['shard']} is dead, {detail['dead']} of {detail['of']}"
    return None


def queue_text(audit: Audit) -> str:
    """Return in words how many jobs are before one that waits for a worker; empty for any other."""
    before = audit.queue_estimate
    if audit.state != "QUEUED" or audit.registered_at is None or before < 0:
        return ""
    return f"about {before} {'job' if before == 1 else 'jobs'} before it (an estimate)"


def _phase(event: Event) -> str:
    """Return a phase's name, with its shard: those run side by side."""
    phase, job = clean(event.detail["phase"], 40), clean(event.detail.get("job", ""), 40)
    return f"{job} {phase}" if job.startswith("shard:") else phase


class PlainTeller:
    """One line for each thing that happens."""

    def __init__(self) -> None:
        self._told_at = 0.0
        self._told = -1

    def upload(self, done: int, total: int) -> None:
        """Tell at the start, at the end and now and then."""
        now = time.monotonic()
        ended = done == total and self._told != done
        if total and (self._told < 0 or ended or now - self._told_at >= LINE_EVERY_S):
            SCREEN.note(f"upload {bytes_text(done)} of {bytes_text(total)}")
            self._told_at, self._told = now, done

    def event(self, event: Event) -> None:
        """Tell an event with its number, so that a log shows where to go on."""
        text = event_text(event)
        if text:
            SCREEN.note(f"{event.sequence:>4} {text}")


class BarTeller:
    """Bars of rich; all text is passed as text, never as markup."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def upload(self, done: int, total: int) -> None:
        """Move the upload's bar."""
        if total:
            self._move("upload", done, total, f"{bytes_text(done)} of {bytes_text(total)}")

    def event(self, event: Event) -> None:
        """Move a phase's bar, or write a line above the bars."""
        text = event_text(event)
        if text is None:
            return
        if event.kind == "phase_reached":
            done, owed = (event.detail[key] for key in ("done", "owed"))
            if event.detail.get("job", "").startswith("shard:"):
                return  # hundreds of them: one bar tells how many are done
            self._move(_phase(event), int(done), int(owed) or None, f"{done}/{owed}" if owed else "")
        elif event.kind == "shard_done":
            done, of = int(event.detail["done"]), int(event.detail["of"])
            self._move("shards", done, of, f"{done} of {of}")
        else:
            self._bars.console.print(text, markup=False, highlight=False, emoji=False)

    def _move(self, name: str, done: int, total: int | None, text: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task("", total=total, name=name, amount=text)
        self._bars.update(self._tasks[name], completed=done, total=total, amount=text)


@contextmanager
def teller() -> Iterator[Teller]:
    """Yield what fits standard error."""
    if not sys.stderr.isatty():
        yield PlainTeller()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns: list[Any] = [
        TextColumn("{task.fields[name]:>14}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[amount]}", markup=False),
        TimeElapsedColumn(),
    ]
    with Progress(*columns, console=Console(stderr=True)) as bars:
        yield BarTeller(bars)
