"""What the running call leaves in the log of access: one row with its mutation, or its share of a row of denials."""

from __future__ import annotations

import threading
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, replace

from service.rules.access import MUTATIONS
from service.rules.access_log import shown_object
from service.store import access_log
from service.store.access_log import Access
from service.store.engine import Store

KINDS_MAX = 256
"""Different (principal, method, reason) that are told apart within one second; the rest of a second shares one row for
each reason. Without it a thief of many certificates could write more rows than callers may make calls."""

FLUSH_S = 1.0
"""Seconds between two writings of denials: each kind leaves at most one row for each."""


@dataclass
class Entry:
    """What is known so far of a call that runs. Threads that work for the call share it."""

    method: str
    principal: str = ""
    object: str | None = None
    """None: nothing that the call has done so far is worth a row."""
    written: str | None = None
    """The object of the row that was written, if one was."""


_ENTRY: ContextVar[Entry | None] = ContextVar("entry", default=None)


def enter(method: str) -> Entry:
    """Begin the entry of a call, in this call's context."""
    entry = Entry(method)
    _ENTRY.set(entry)
    return entry


def current() -> Entry:
    """Return the entry of the running call. A LookupError means that it was served past the guard."""
    entry = _ENTRY.get()
    if entry is None:
        raise LookupError("no call runs here")
    return entry


def about(name: str) -> None:
    """Say what the running call's transaction changes, where its request does not name it."""
    entry = _ENTRY.get()
    if entry is not None:
        entry.object = shown_object(name)


class RunningCall:
    """The call in whose context a transaction runs, as the store's witness."""

    def due(self) -> Access | None:
        """See `Witness.due`: the row of a mutation, once for each object."""
        entry = _ENTRY.get()
        if entry is None or entry.method not in MUTATIONS or entry.object is None or entry.object == entry.written:
            return None
        return Access(principal=entry.principal, method=entry.method, object=entry.object)

    def wrote(self, access: Access) -> None:
        """See `Witness.wrote`."""
        entry = _ENTRY.get()
        if entry is not None:
            entry.written = access.object


class Denials:
    """Denials of the last second, alike ones counted together.

    Args:
        store: where rows go.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._guard = threading.Lock()
        self._counted: Counter[Access] = Counter()
        self._objects: dict[Access, str] = {}

    def note(self, entry: Entry, reason: str) -> None:
        """Count one denial."""
        with self._guard:
            kind = Access(principal=entry.principal, method=entry.method, object="", outcome=reason)
            self._count(kind, 1, entry.object or "")

    def _count(self, kind: Access, times: int, named: str) -> None:
        if kind not in self._counted and len(self._counted) >= KINDS_MAX:
            kind = replace(kind, principal="", method="")
        self._counted[kind] += times
        # One row may stand for many objects; then it names none.
        self._objects[kind] = named if self._objects.get(kind, named) == named else ""

    def flush(self) -> int:
        """Write what was counted; return how many rows. What cannot be written now is kept for the next time.

        Raises:
            StoreError: the store did not take the rows.
        """
        with self._guard:
            counted, self._counted = self._counted, Counter()
            objects, self._objects = self._objects, {}
        if not counted:
            return 0
        try:
            with self._store.begin() as connection:
                told = (replace(kind, times=times, object=objects[kind]) for kind, times in counted.items())
                access_log.append(connection, *told)
        except BaseException:
            with self._guard:
                for kind, times in counted.items():
                    self._count(kind, times, objects[kind])
            raise
        return len(counted)
