"""A bubblewrap cell with spares: orders of kind `check` start warm where one fits, all others as ever."""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sandbox import limits
from sandbox.bubblewrap import GATE_S, BubblewrapCell, BubblewrapSettings, arm, said
from sandbox.cell import Cancelled, CodeMount, OnStep, Order, Outcome, Proof, ignore, never
from sandbox.errors import CellRefused, SandboxError
from sandbox.inputs import REQUEST_NAME, Held, put_in
from sandbox.orders import check_order
from sandbox.supervise import Running
from sandbox.warm.look import look
from sandbox.warm.spare import Spare, make, shape_of

IMPORT_S = 60.0
"""How long a spare may take to import; a cold cell would take the same time for it."""
_TICK_S = 0.05
_LINE_MAX = 2**15
"""Bytes of module and arguments that go through a pipe in one piece; longer ones start cold."""


@dataclass(frozen=True)
class Started:
    """How many orders of kind `check` started warm, and how many cold."""

    warm: int
    cold: int


class WarmCell:
    """Runs orders as the cell beneath does, and keeps spares for those of kind `check`.

    A spare takes an order's place in memory while the host is idle: it is made when a run has ended, not beside it.

    Args:
        cell: makes every cell, warm or cold.
        spares: how many wait at most; as many as orders run at once.
        preload: modules that a spare imports: the release's own and its libraries. None of them may start a process
            or leave a file open: the gate refuses such a cell.
        code: what spares are made with before the first order was seen; empty makes the first order start cold.
    """

    def __init__(
        self, cell: BubblewrapCell, *, spares: int, preload: tuple[str, ...], code: tuple[CodeMount, ...] = ()
    ) -> None:
        self._cell = cell
        self._most = spares
        self._preload = preload
        self._like: Order | None = _like(code) if code else None
        self._spares: list[Spare] = []
        self._lock = threading.Lock()
        self._warm = self._cold = 0
        self._closed = False

    @property
    def settings(self) -> BubblewrapSettings:
        """Those of the cell beneath."""
        return self._cell.settings

    @property
    def kill_bound_s(self) -> float:
        """See `BubblewrapCell.kill_bound_s`."""
        return self._cell.kill_bound_s

    @property
    def started(self) -> Started:
        """What was counted so far."""
        return Started(self._warm, self._cold)

    def version(self) -> str:
        """Return bubblewrap's version; see `BubblewrapCell.version`."""
        return self._cell.version()

    def prove(self) -> Proof:
        """Prove the wall with fresh cells; spares of before are discarded, and made again afterwards.

        Raises:
            CellRefused: selfcheck_open, selfcheck_void, or a layer that could not be armed.
        """
        self.discard()
        proof = self._cell.prove()
        self._fill()
        return proof

    def expect(self, order: Order) -> None:
        """Have spares for orders like this one, now."""
        self._like = order
        self._fill()

    def run(
        self, order: Order, *, on_step: OnStep = ignore, cancelled: Cancelled = never, held: Held | None = None
    ) -> Outcome:
        """Run one order; see `sandbox.cell.Cell.run`."""
        if order.kind != "check":
            return self._cell.run(order, on_step=on_step, cancelled=cancelled, held=held)
        check_order(order)
        caps = limits.resolve(order, self.settings.cpus)
        try:
            spare = self._take(order, caps)
            outcome = self._use(spare, order, caps, on_step, cancelled, held) if spare else None
            if outcome is not None:
                self._warm += 1
                return outcome
            self._cold += 1
            return self._cell.run(order, on_step=on_step, cancelled=cancelled, held=held)
        finally:
            self._like = order
            self._fill()

    def close(self) -> None:
        """End the spares and the cell beneath."""
        with self._lock:
            self._closed = True
        self.discard()
        self._cell.close()

    def _use(
        self,
        spare: Spare,
        order: Order,
        caps: Mapping[str, int],
        on_step: OnStep,
        cancelled: Cancelled,
        held: Held | None,
    ) -> Outcome | None:
        """Run the order in the spare; None where the spare died before it was told anything of the order."""
        with spare.taken(caps, order.steps, on_step) as run:
            status = _imported(run, cancelled)
            if status is None:
                return None
            put_in(order, spare.ready, spare.launch.uid, held)
            _tell(run, order, caps, spare.launch.caps)
            said(run, 1)
            launch = replace(spare.launch, order=order, caps=caps)
            look(run, {*(one.name for one in order.inputs), REQUEST_NAME}, spare.ready.root / "in")
            return self._cell.follow(run, launch, spare.ready, arm(run, launch, status), cancelled)

    def _take(self, order: Order, caps: Mapping[str, int]) -> Spare | None:
        """Return a spare that fits, the oldest first, and discard those that do not: spares follow the last order."""
        if len(_line(order, {})) > _LINE_MAX:
            return None
        shape = shape_of(order, caps, self.settings)
        with self._lock:
            fitting = [one for one in self._spares if one.fits(shape, caps)]
            stale = [one for one in self._spares if one not in fitting]
            self._spares = fitting[1:]
        for one in stale:
            one.discard()
        return fitting[0] if fitting else None

    def _fill(self) -> None:
        """Start what is missing. A spare that cannot be made costs time, and no more: the next order starts cold."""
        with self._lock:
            if self._like is None or self._closed:
                return
            try:
                while len(self._spares) < self._most:
                    self._spares.append(make(self._cell, self._like, self._preload))
            except SandboxError:
                return

    def discard(self) -> None:
        """End the spares that wait; the next order starts cold."""
        with self._lock:
            spares, self._spares = self._spares, []
        for one in spares:
            one.discard()


def _like(code: tuple[CodeMount, ...]) -> Order:
    return Order(kind="check", module="none", code=code, request=b"", nonce=secrets.token_hex(32))


def _imported(run: Running, cancelled: Cancelled) -> bytes | None:
    """Return the shim's line on its layers, once the spare has imported everything.

    None where it died, took too long or was cancelled: a cold cell finds out why.
    """
    deadline = time.monotonic() + IMPORT_S
    while not run.drain.status.count(b"\n"):
        run.drain.pump(_TICK_S)
        if run.ended() or cancelled() or time.monotonic() > deadline:
            return None
    return None if run.ended() else said(run)


def _tell(run: Running, order: Order, caps: Mapping[str, int], before: Mapping[str, int]) -> None:
    """Hand the order's limits, module and arguments to the shim."""
    was = limits.rlimits(before)
    # What stays as it is may not be set again: the inner filter forbids it for core dumps.
    lower = {name: pair for name, pair in limits.rlimits(caps).items() if was[name] != pair}
    try:
        os.write(run.pipes.host["go"], _line(order, lower))
    except OSError:
        raise CellRefused("not_armed", "the spare ended before the start") from None


def _line(order: Order, rlimits: Mapping[str, tuple[int, int]]) -> bytes:
    told = {"rlimits": rlimits, "module": order.module, "arguments": list(order.arguments)}
    return json.dumps(told).encode() + b"\n"


assert IMPORT_S > GATE_S
