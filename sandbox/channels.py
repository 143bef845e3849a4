"""The pipes between host and cell, and what the host accepts from each.

Every channel is a pipe: a regular file could be reopened from inside, a socket could carry descriptors.
"""

from __future__ import annotations

import fcntl
import os
import re
import selectors
import time
from collections.abc import Mapping

from sandbox.cell import STEP_PARTS, OnStep, Why
from sandbox.limits import FLOOD_FACTOR

FROM_CELL = ("stdout", "stderr", "result", "progress", "status", "info")
"""`info` carries bubblewrap's own words about the processes it made."""
_HIGH = 200
"""Numbers of the child's ends start here, above every number that the shim puts something at."""
_READ = 2**16
_STATUS_MAX = 2**16
_STEP_LINE = re.compile(rb"(\d{1,2}) (\d{1,15}) (\d{1,15})")
_STEP_LINE_MAX = 64
_STEP_PAUSE_S = 1.0
_SHOWN_OF = 100
"""Parts of a step are told as hundredths: people read them as per cent."""


class Pipes:
    """Six pipes out of a cell and one into it. The host's ends do not block and close on exec."""

    def __init__(self) -> None:
        self.host: dict[str, int] = {}
        self.child: dict[str, int] = {}
        for name in FROM_CELL:
            theirs_read, theirs_write = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(theirs_read, False)
            self.host[name], self.child[name] = theirs_read, _high(theirs_write)
        go_read, go_write = os.pipe2(os.O_CLOEXEC)
        self.host["go"], self.child["go"] = go_write, _high(go_read)
        self.inodes = {name: os.fstat(number).st_ino for name, number in self.child.items()}

    def close_child(self) -> None:
        """Close the child's ends in the host, so that the end of the cell is the end of each stream."""
        while self.child:
            os.close(self.child.popitem()[1])

    def close(self) -> None:
        """Close everything."""
        self.close_child()
        while self.host:
            os.close(self.host.popitem()[1])


def _high(number: int) -> int:
    try:
        return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _HIGH)
    finally:
        os.close(number)


class Ring:
    """The last bytes of a stream, and how many there were."""

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self.total = 0
        self._bytes = bytearray()

    def add(self, piece: bytes) -> None:
        """Take a piece; forget what is older than the ring."""
        self.total += len(piece)
        self._bytes += piece
        del self._bytes[: max(0, len(self._bytes) - self.kept)]

    def lines(self, prefix: str) -> str:
        """Return printable ASCII, everything else escaped, with a prefix on each line."""
        text = self._bytes.decode("ascii", "backslashreplace").replace("\r", "\\r")
        safe = ("".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in line) for line in text.splitlines())
        return "".join(f"{prefix}| {line}\n" for line in safe)


class Steps:
    """Progress: ASCII lines `<step index> <done> <owed>`; what is malformed, too frequent or not new is dropped.

    The numbers are the program's, so they stay here: what is told is the step and how many twentieths of it are done,
    each time more than before. What that can carry is charged (`sandbox.budget.progress_bits`).
    """

    def __init__(self, steps: tuple[str, ...], on_step: OnStep) -> None:
        self._steps = steps
        self._on_step = on_step
        self._told = (-1, 0)
        self._told_at = float("-inf")
        self._rest = b""

    def add(self, piece: bytes) -> None:
        """Take a piece of the stream and tell of the whole lines in it."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        self._rest = self._rest[: _STEP_LINE_MAX + 1]
        for line in lines:
            match = _STEP_LINE.fullmatch(line)
            if match and len(line) <= _STEP_LINE_MAX:
                self._tell(*(int(one) for one in match.groups()))

    def _tell(self, index: int, done: int, owed: int) -> None:
        part = STEP_PARTS * min(done, owed) // owed if owed else 0
        if index >= len(self._steps) or (index, part) <= self._told:
            return
        now = time.monotonic()
        if index > self._told[0] or now - self._told_at >= _STEP_PAUSE_S:
            self._told, self._told_at = (index, part), now
            self._on_step(self._steps[index], part * _SHOWN_OF // STEP_PARTS, _SHOWN_OF)


class Drain:
    """Reads all channels of one cell at once, each under its cap."""

    def __init__(self, pipes: Pipes, limits: Mapping[str, int], steps: Steps) -> None:
        self.rings = {name: Ring(limits["log_bytes"]) for name in ("stdout", "stderr")}
        self.result = bytearray()
        self.status = bytearray()
        self.info = bytearray()
        self.why: Why | None = None
        self._cap = limits["result_bytes"]
        self._steps = steps
        self._pipes = pipes
        self._selector = selectors.DefaultSelector()
        self.open: set[str] = set()
        for name in FROM_CELL:
            self._selector.register(pipes.host[name], selectors.EVENT_READ, name)
            self.open.add(name)

    def watch(self, descriptor: int) -> None:
        """Also wake up when this descriptor (a pidfd) becomes readable."""
        self._selector.register(descriptor, selectors.EVENT_READ, None)

    def pump(self, timeout: float) -> None:
        """Take in what has arrived, waiting at most `timeout` seconds for something."""
        for key, _events in self._selector.select(max(0.0, timeout)):
            if key.data is not None:
                self._take(key.data, key.fd)

    def finish(self, deadline: float) -> bool:
        """Read until every channel has ended; False when one is still open at the deadline."""
        for key in list(self._selector.get_map().values()):
            if key.data is None:
                self._selector.unregister(key.fd)
        while self.open and time.monotonic() < deadline:
            self.pump(0.05)
        return not self.open

    def close(self) -> None:
        """Let go of the selector; the pipes have another owner."""
        self._selector.close()

    def _take(self, name: str, descriptor: int) -> None:
        try:
            piece = os.read(descriptor, _READ)
        except BlockingIOError:
            return
        if not piece:
            self._selector.unregister(descriptor)
            self.open.discard(name)
        elif name in self.rings:
            self.rings[name].add(piece)
            if self.rings[name].total > FLOOD_FACTOR * self.rings[name].kept:
                self.why = self.why or "log_flood"
        elif name == "result":
            self.result += piece[: self._cap + 1 - len(self.result)]
            if len(self.result) > self._cap:
                self.why = self.why or "output_cap"
        elif name == "progress":
            self._steps.add(piece)
        else:
            held = self.status if name == "status" else self.info
            held += piece[: _STATUS_MAX - len(held)]

    def log_tail(self) -> str:
        """Return both logs for the operator."""
        return self.rings["stdout"].lines("out") + self.rings["stderr"].lines("err")
