"""What the running call leaves in the log of access: a row with its mutation, or its share of a row of others alike."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from service.rules.access import MUTATIONS, READS
from service.rules.access_log import shown_object
from service.rules.errors import Refusal
from service.store import access_log
from service.store.access_log import Access
from service.store.engine import Store

KINDS_MAX = 256
"""Different (principal, method, reason) that are told apart within one second; the rest of a second shares one row for
each reason. Without it a thief of many certificates could write more rows than callers may make calls."""

FLUSH_S = 1.0
"""Seconds between two writings of denials: each kind leaves at most one row for each."""

READ_KINDS_MAX = 1024
"""The same of (principal, method) that were read within a minute. Only who was let in is counted, so nobody grows it by
names that do not exist; it bounds how long one writing holds the database."""

READS_S = 60.0
"""Seconds between two writings of reads. A client that asks all day leaves 1,440 rows for each method it calls, and a
process that is killed loses a minute."""


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


class _Batch:
    """Calls since the last writing, alike ones counted together.

    Args:
        store: where rows go.
        kinds_max: different ones that are told apart.
    """

    def __init__(self, store: Store, kinds_max: int) -> None:
        self._store = store
        self._kinds_max = kinds_max
        self._guard = threading.Lock()
        self._counted: Counter[Access] = Counter()
        self._objects: dict[Access, str] = {}

    def _note(self, entry: Entry, outcome: str) -> None:
        kind = Access(principal=entry.principal, method=entry.method, object="", outcome=outcome)
        with self._guard:
            self._count(kind, 1, entry.object or "")

    def _count(self, kind: Access, times: int, named: str) -> None:
        if kind not in self._counted and len(self._counted) >= self._kinds_max:
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


class Denials(_Batch):
    """Denials of the last second.

    Args:
        store: where rows go.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store, KINDS_MAX)

    def note(self, entry: Entry, reason: str) -> None:
        """Count one denial."""
        self._note(entry, reason)


class Reads(_Batch):
    """Reads of the last minute.

    Args:
        store: where rows go.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store, READ_KINDS_MAX)

    def note(self, entry: Entry) -> None:
        """Count a call, if its method reads."""
        if entry.method in READS:
            self._note(entry, access_log.OK)

    @contextmanager
    def stream(self, entry: Entry) -> Iterator[None]:
        """Count a stream when it ends, however it ends: who breaks it off has read. A denial has its own row."""
        denied = False
        try:
            yield
        except Refusal as refusal:
            denied = refusal.is_denial
            raise
        finally:
            if not denied:
                self.note(entry)
