"""The log of access as a chain: each row's hash covers the row and the hash of the row before.

What the chain shows: that no row between the first and the head was removed, put elsewhere or altered by anyone who did
not rewrite everything after it. What it cannot show by itself: that rows at the end were cut off, or that all was
written anew by someone who writes the database. For both, keep the head (seq and hash) outside and hand it to `check`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from assay import canonical, strict_json
from assay.errors import Malformed

FIRST = "0" * 64
"""What stands for the hash before the first row."""

LINE_MAX = 4096
"""Bytes of a row of an export; the widest row has under 1 KiB."""

OBJECT_MAX = 128
"""Characters of an object's name: the column's width."""

_OBJECT = re.compile(r"[a-z][a-z0-9/._+-]{0,127}")
"""Names of this API. Whatever else a caller sends as a name is not repeated in the log."""

_SHA256 = re.compile(r"[0-9a-f]{64}")

_NUMBERS = ("seq", "at", "times")
_TEXTS = ("principal", "method", "object", "outcome", "previous_sha256", "sha256")


class AccessLogMalformed(Exception):
    """A line is no row of the log; the message says why."""


@dataclass(frozen=True, kw_only=True)
class AccessRow:
    """One row: who did what, or was denied it. It carries neither parameters nor credentials."""

    seq: int
    """From 1, without a gap."""
    at: int
    """Milliseconds since 1970 by the database's clock."""
    principal: str
    """Empty where nobody could be told from the credential."""
    method: str
    object: str
    """Name of what was changed or asked for; empty where the call was denied before it was read."""
    outcome: str
    """"OK", or the refusal's reason."""
    times: int
    """1; of denials, how many alike of the same second the row stands for; of reads, of the same minute."""
    previous_sha256: str
    sha256: str

    def line(self) -> str:
        """Return the row as a line of an export, without its end."""
        return canonical.dumps({name: getattr(self, name) for name in (*_NUMBERS, *_TEXTS)}).decode()

    def expected_sha256(self) -> str:
        """Return the hash that the row must have, given the hash before it that it names."""
        told = {name: getattr(self, name) for name in (*_NUMBERS, "principal", "method", "object", "outcome")}
        return hashlib.sha256(bytes.fromhex(self.previous_sha256) + canonical.dumps(told)).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Break:
    """Something that does not hold together."""

    rule: str
    """gap, order, unlinked, altered, or head."""
    seq: int
    """The row at which it shows."""

    def line(self) -> str:
        """Return it as a line of JSON."""
        return canonical.dumps({"rule": self.rule, "seq": self.seq}).decode()


def chained(*, seq: int, at: int, previous: str, what: dict[str, Any]) -> AccessRow:
    """Return the row that follows the one with hash `previous`.

    Args:
        seq: its number.
        at: its time, in milliseconds since 1970.
        previous: hash of the row before, or `FIRST`.
        what: principal, method, object, outcome and times.
    """
    unhashed = AccessRow(seq=seq, at=at, previous_sha256=previous, sha256="", **what)
    return AccessRow(**{**vars(unhashed), "sha256": unhashed.expected_sha256()})


def read_line(data: bytes) -> AccessRow:
    """Read a line of an export.

    Raises:
        AccessLogMalformed: it is none.
    """
    try:
        value = strict_json.loads(data.rstrip(b"\n"), LINE_MAX)
    except Malformed as error:
        raise AccessLogMalformed(str(error)) from None
    if not isinstance(value, dict) or set(value) != {*_NUMBERS, *_TEXTS}:
        raise AccessLogMalformed(f"a row has exactly the keys {', '.join((*_NUMBERS, *_TEXTS))}")
    if not all(isinstance(value[name], int) and not isinstance(value[name], bool) for name in _NUMBERS):
        raise AccessLogMalformed(f"{', '.join(_NUMBERS)} are whole numbers")
    if not all(isinstance(value[name], str) for name in _TEXTS):
        raise AccessLogMalformed(f"{', '.join(_TEXTS)} are texts")
    if not all(_SHA256.fullmatch(value[name]) for name in ("sha256", "previous_sha256")):
        raise AccessLogMalformed("a hash is not 64 lower-case hex digits")
    return AccessRow(**value)


class ChainChecker:
    """Walks the rows from first to last, one at a time.

    Args:
        head: (seq, hash) of a row that must be there as it was when somebody noted it down.
    """

    def __init__(self, head: tuple[int, str] | None = None) -> None:
        self._head = head
        self.seq = 0
        """Number of the last row so far."""
        self.sha256 = FIRST
        """Hash of the last row so far."""

    def feed(self, row: AccessRow) -> Iterator[Break]:
        """Yield what is wrong about the next row."""
        if row.seq > self.seq + 1:
            yield Break(rule="gap", seq=row.seq)
        elif row.seq <= self.seq:
            yield Break(rule="order", seq=row.seq)
        if row.previous_sha256 != self.sha256:
            yield Break(rule="unlinked", seq=row.seq)
        if row.sha256 != row.expected_sha256():
            yield Break(rule="altered", seq=row.seq)
        if self._head is not None and row.seq == self._head[0] and row.sha256 == self._head[1]:
            self._head = None
        self.seq, self.sha256 = row.seq, row.sha256

    def close(self) -> Iterator[Break]:
        """Yield what is wrong about the end: the head that was noted down is not among the rows."""
        if self._head is not None:
            yield Break(rule="head", seq=self._head[0])


def check(rows: Iterable[AccessRow], head: tuple[int, str] | None = None) -> tuple[Break, ...]:
    """Return everything that is wrong about a chain."""
    checker = ChainChecker(head)
    found = [one for row in rows for one in checker.feed(row)]
    return (*found, *checker.close())


def shown_object(name: str) -> str:
    """Return an object's name as the log keeps it: a name of this API as it is, anything else as nothing."""
    return name if _OBJECT.fullmatch(name) else ""


def object_of(request: Any) -> str:
    """Return the name of what a request is about; of its parameters nothing is taken."""
    fields = request.DESCRIPTOR.fields_by_name
    for field in ("name", "resource_name", "parent"):
        if field in fields:
            return shown_object(getattr(request, field))
    for field, kind in (("manifest_sha256", "models"), ("schedule_id", "schedules"), ("webhook_id", "webhooks")):
        if field in fields:
            return shown_object(f"{kind}/{getattr(request, field)}")
    for field in ("schedule", "webhook"):
        if field in fields:
            return shown_object(getattr(request, field).name)
    return shown_object(request.audit.model) if "audit" in fields else ""
