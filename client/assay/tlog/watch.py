"""Rules of `assay log watch` and of V15: what a log may never do, decided on bytes that somebody else fetched.

A watcher remembers the newest checkpoint, note and all. A later one must extend it; the entries between are read from
bundles and must lead from the old root to the new one, so that nothing of a log's tiles is believed. Two signed notes
that contradict each other are kept in the error: they convict the log's key, whoever holds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from assay import canonical, moments
from assay.errors import CouldNotTell, Malformed, Wrong
from assay.shape import COUNT, TEXT, check, exactly
from assay.tlog import entries, notes, tiles, tree
from assay.tlog.entries import Entry
from assay.tlog.leaves import Leaf, LogKey, check_good, open_signed
from assay.tlog.notes import Checkpoint
from assay.tlog.tiles import WIDTH, Fetch, TileTree

STATE = "assay-log-state/v1"

STATE_MAX = 16 * 1024 * 1024
"""Bytes of a state file: the note, and the numbers of about 10^6 requests without an end."""

_SHAPE = {
    "schema": exactly(STATE),
    "checkpoint": TEXT,
    "at": TEXT,
    "open": [COUNT],
    "counts": {"requests": COUNT, "reports": COUNT, "voids": COUNT, "withdrawals": COUNT, "unknown": COUNT},
}


class Forked(Wrong):
    """The log signed two heads that cannot both be true.

    Args:
        message: what contradicts what.
        evidence: the two signed notes.
    """

    def __init__(self, message: str, evidence: tuple[bytes, bytes]) -> None:
        super().__init__(message)
        self.evidence = evidence


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many entries of which kind a watcher has seen."""

    requests: int = 0
    reports: int = 0
    voids: int = 0
    withdrawals: int = 0
    unknown: int = 0
    """Of kinds that this client does not know."""


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """What a watcher knows about one log."""

    note: bytes
    """The newest checkpoint seen, signed."""
    head: Checkpoint
    at: str = ""
    """Of the newest entry."""
    open: tuple[int, ...] = ()
    """Requests that neither a report nor a void has ended: the file drawer, counted."""
    counts: Counts = Counts()


def dump_state(state: Remembered) -> bytes:
    """Return a state file."""
    value: dict[str, Any] = {"schema": STATE, "checkpoint": state.note.decode(), "at": state.at}
    return canonical.dumps(value | {"open": list(state.open), "counts": vars(state.counts)}) + b"\n"


def load_state(data: bytes) -> Remembered:
    """Read a state file, which this client wrote.

    Raises:
        CouldNotTell: it is damaged; without it nobody can tell whether the log was rewritten.
    """
    try:
        value = canonical.loads_canonical(data.removesuffix(b"\n"), STATE_MAX)
        check(value, _SHAPE)
        note = value["checkpoint"].encode()
        head, _ = notes.read_checkpoint(note)
    except (Malformed, UnicodeEncodeError) as error:
        raise CouldNotTell(f"the state file is damaged, move it away to start anew: {error}") from None
    counts = Counts(**{name: value["counts"][name] for name in _SHAPE["counts"]})  # type: ignore[attr-defined]
    return Remembered(note=note, head=head, at=value["at"], open=tuple(value["open"]), counts=counts)


def watch(fetch: Fetch, logs: Sequence[LogKey], remembered: Remembered | None) -> Remembered:
    """Read a log's newest checkpoint and every entry since the remembered one; return what to remember next.

    Raises:
        Forked: the log contradicts the remembered checkpoint.
        Wrong: a signature fails, a file does not fit, or an entry breaks a rule of the log.
        CouldNotTell: a file is absent.
    """
    note = tiles.checkpoint(fetch)
    head, signed = open_signed(note, logs, tiles.CHECKPOINT)
    known = remembered or Remembered(note=b"", head=Checkpoint(head.origin, 0, tree.EMPTY))
    check_head(known, head, note)
    read, first = TileTree(fetch, head.size), known.head.size
    if read.root(first) != known.head.root:
        text = f"the log of {head.size} entries does not extend the remembered one of {first}"
        raise Forked(text, (known.note, note))
    counted = count(known, (entry for _, entry in walk(read, first, head)))
    if counted.at:
        check_good(signed, moments.parse(counted.at), tiles.CHECKPOINT)
    return replace(counted, note=note, head=head)


def check_head(known: Remembered, head: Checkpoint, note: bytes) -> None:
    """Compare two heads of one log by size and root alone.

    Raises:
        Wrong: another log.
        Forked: the newer head is smaller, or of one size with another root.
    """
    if head.origin != known.head.origin:
        raise Wrong(f"the log is {head.origin}, remembered is {known.head.origin}")
    if head.size < known.head.size:
        raise Forked(f"the log went back from {known.head.size} to {head.size} entries", (known.note, note))
    if head.size == known.head.size and head.root != known.head.root:
        raise Forked(f"the log has two roots of size {head.size}", (known.note, note))


def walk(read: TileTree, first: int, head: Checkpoint) -> Iterator[tuple[int, bytes]]:
    """Yield index and bytes of the entries from `first` on. Nothing is proven before the walk has ended.

    The hashes left of `first` come from tiles and the others from the entries; together they must give the head's
    root, which proves both.

    Raises:
        Wrong: they do not.
        CouldNotTell: a file is absent.
    """
    edge = tree.frontier(read.node, first)
    for bundle in range(first // WIDTH, -(-head.size // WIDTH)):
        for entry in read.bundle(bundle)[max(0, first - bundle * WIDTH) :]:
            yield edge.size, entry
            edge.push(tree.leaf_hash(entry))
    if edge.root() != head.root:
        raise Wrong(f"the entries of the log from {first} on do not lead to its root of size {head.size}")


def count(known: Remembered, fresh: Iterable[bytes]) -> Remembered:
    """Follow the entries after the remembered ones: requests open, reports and voids end them.

    Raises:
        Wrong: an entry is malformed, older than the one before it, or ends what is no open request.
    """
    numbers, at, seen = vars(known.counts).copy(), known.at, set(known.open)
    for index, data in enumerate(fresh, known.head.size):
        entry = read_entry(data, index)
        if entry is None:
            numbers["unknown"] += 1
            continue
        if entry.at < at:
            raise Wrong(f"entry {index} of the log is of {entry.at}, older than the one before it")
        at = entry.at
        if entry.kind == "request":
            seen.add(index)
            numbers["requests"] += 1
        elif entry.kind in ("report", "void"):
            if entry.prev not in seen:
                raise Wrong(f"entry {index} of the log ends entry {entry.prev}, which is no open request")
            seen.remove(entry.prev)
            numbers[entry.kind + "s"] += 1
        elif entry.kind == "withdrawal":
            numbers["withdrawals"] += 1
    return replace(known, at=at, open=tuple(sorted(seen)), counts=Counts(**numbers))


def read_entry(data: bytes, index: int) -> Entry | None:
    """Read an entry of a log; None for a kind that this client does not know.

    Raises:
        Wrong: it is malformed.
    """
    try:
        return entries.parse(data)
    except CouldNotTell:
        return None
    except Malformed as error:
        raise Wrong(f"entry {index} of the log is malformed: {error}") from None


def check_report(fetch: Fetch, logs: Sequence[LogKey], report: Leaf, remembered: Remembered | None) -> Remembered:
    """V15: hold a report's leaf against the whole log as it is now, and return what to remember.

    Raises:
        Forked: the report's or the remembered checkpoint is no past of this log.
        Wrong: the report was withdrawn, or its request has a second end.
        CouldNotTell: a file of the log is absent.
    """
    if remembered is not None and remembered.head.origin != report.origin:
        raise Wrong(f"the report is in log {report.origin}, remembered is {remembered.head.origin}")
    newest = watch(fetch, logs, remembered)
    claimed = Remembered(note=report.note, head=report.checkpoint)
    check_head(claimed, newest.head, newest.note)
    read = TileTree(fetch, newest.head.size)
    path = tree.consistency_path(read.node, report.size, newest.head.size)
    try:
        tree.check_consistency(report.size, report.root, newest.head.size, newest.head.root, path)
    except Wrong as error:
        raise Forked(f"the report's checkpoint is no past of this log: {error}", (claimed.note, newest.note)) from None
    check_ends(read, report, newest.head)
    return newest


def check_ends(read: TileTree, report: Leaf, head: Checkpoint) -> None:
    """Look for what came after the request: a second end of it, or a withdrawal of the report.

    Raises:
        Wrong: there is one.
        CouldNotTell: an entry is of a kind that this client does not know, so it may be one.
    """
    asked = report.entry.prev
    if asked is None or asked >= report.index:
        raise Wrong(f"the report's leaf names no request before it: {asked}")
    against: list[str] = []
    unread: list[int] = []
    for index, data in walk(read, asked, head):
        entry = read_entry(data, index)
        if index == report.index:
            continue
        if entry is None:
            unread.append(index)
            continue
        if entry.kind == "withdrawal" and (entry.prev == report.index or entry.commit == report.entry.commit):
            against.append(f"the report was withdrawn at {entry.at} (entry {index}, reason {entry.reason})")
        if entry.kind in ("report", "void") and entry.prev == asked:
            against.append(f"the report's request has a second end: the {entry.kind} in entry {index}")
    if against:
        raise Wrong(against[0])
    if unread:
        more = f" and {len(unread) - 1} more" if len(unread) > 1 else ""
        said = "may speak against the report: this client does not know their kind; look with a newer one"
        raise CouldNotTell(f"entry {unread[0]} of the log{more} {said}")
