"""What is written down about every audit, in order: kinds of entries, their details, and how a line of an export reads.

An entry is written in the transaction of the change that it tells, so the journal says what happened and not what was
meant to happen. `service.rules.consistency` checks one against the rules J1-J15 (specs: service, section 18).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

LINE_MAX = 64 * 1024
"""Bytes of one line; a report of 64 files is named in 5 KiB."""

KINDS: Mapping[str, frozenset[str]] = {
    "carried_over": frozenset(),
    "submitted": frozenset({"request_id", "principal", "attempts_max"}),
    "registered": frozenset(),
    "published": frozenset(),
    "leased": frozenset(),
    "ended": frozenset({"class"}),
    "fenced": frozenset(),
    "shards_inserted": frozenset({"of", "result_sha256"}),
    "finalised": frozenset({"result_sha256"}),
    "shard_dead": frozenset({"shard", "of"}),
    "sealed": frozenset({"files"}),
    "cancel_requested": frozenset(),
    "kill_confirmed": frozenset(),
    "lease_expired": frozenset(),
    "completed": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
    "leaf": frozenset({"leaf"}),
    "fired": frozenset({"schedule", "due_at"}),
    "delivery_owed": frozenset({"event_id", "webhook", "body_sha256"}),
    "delivered": frozenset({"event_id", "webhook", "body_sha256"}),
    "dead_letter": frozenset({"event_id", "webhook", "body_sha256"}),
    "approval_used": frozenset({"approval", "max_runs"}),
}
"""Kinds and the keys that each one's detail has. `shard_dead` and `delivery_owed` are not of the specification's list:
without them nobody could tell a lost shard from one that may be left out, nor a lost delivery from none. Nor is
`carried_over`: a migration writes it, and nothing else, as the first entry of an audit that is older than the
journal."""

MAY: Mapping[str, frozenset[str]] = {
    "finalised": frozenset({"shard", "of"}),
    "fired": frozenset({"outcome"}),
    "failed": frozenset({"reason"}),
    "cancelled": frozenset({"reason"}),
}
"""Keys that a detail may have besides."""

FIRST = frozenset({"submitted", "carried_over"})
TERMINAL = frozenset({"completed", "failed", "cancelled"})
LEAVES = frozenset({"report", "void"})

_FIELDS = ("seq", "audit", "sequence", "job", "attempt", "token", "kind", "at", "detail")
_NUMBERS = ("seq", "sequence", "attempt", "token", "at")
_AUDIT = re.compile(r"[0-9a-f]{32}|")
_JOB = re.compile(r"[0-9a-f]{32}(-s[0-9]{1,6}|-c)?|")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class JournalMalformed(ValueError):
    """A line is no entry; the message names the field."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One thing that happened."""

    seq: int
    """Rises through the whole journal; a transaction that was rolled back may leave a gap."""
    audit: str = ""
    """Empty where there is none: a fire that was skipped."""
    sequence: int = 0
    """Gapless within the audit, from 1."""
    job: str = ""
    attempt: int = 0
    """The attempt's number within the audit."""
    token: int = 0
    kind: str
    at: int = 0
    """Milliseconds since 1970, by the database's clock; J1 alone reads it, for how long a request id is kept."""
    detail: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """Return the entry as a line of an export, without its end."""
        told = {name: getattr(self, name) for name in _FIELDS}
        return json.dumps(told | {"detail": dict(self.detail)}, separators=(",", ":"), sort_keys=True)


Rule = str
"""J1 to J15."""


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One entry that breaks one rule."""

    rule: Rule
    audit: str
    seq: int
    """Of the entry at which it shows; with what is missing, the audit's last one."""

    def line(self) -> str:
        """Return it as a line of JSON, without its end."""
        return json.dumps({"rule": self.rule, "audit": self.audit, "seq": self.seq}, separators=(",", ":"))


def check_detail(kind: str, detail: Mapping[str, Any]) -> None:
    """Return if a detail is what its kind has.

    Raises:
        JournalMalformed: unknown kind, a key too few or too many, or a value of another type.
    """
    if kind not in KINDS:
        raise JournalMalformed(f"kind {kind[:40]!r} is unknown; known are {', '.join(sorted(KINDS))}")
    allowed = KINDS[kind] | MAY.get(kind, frozenset())
    wrong = {str(key)[:40] for key in (KINDS[kind] - detail.keys()) | (detail.keys() - allowed)}
    if wrong:
        raise JournalMalformed(f"{kind}: detail has too few or too many of: {', '.join(sorted(wrong))}")
    for key, value in detail.items():
        if not _TYPES.get(key, _is_text)(value):
            raise JournalMalformed(f"{kind}: detail.{key} is of another type, or too long")


def read_line(line: bytes) -> Entry:
    """Read one line of an export, strictly.

    Raises:
        JournalMalformed: it is no entry; the message names the field.
    """
    if len(line) > LINE_MAX:
        raise JournalMalformed(f"a line of {len(line)} bytes, at most {LINE_MAX} are one entry")
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise JournalMalformed(f"not JSON: {str(error)[:80]}") from None
    if type(found) is not dict or set(found) != set(_FIELDS):
        raise JournalMalformed(f"an entry has exactly the fields {', '.join(_FIELDS)}")
    for name in _NUMBERS:
        if not _is_count(found[name]):
            raise JournalMalformed(f"{name} is no whole number from 0 to 2^63 - 1")
    for name, alphabet in (("audit", _AUDIT), ("job", _JOB)):
        if type(found[name]) is not str or not alphabet.fullmatch(found[name]):
            raise JournalMalformed(f"{name} is no name of one")
    if type(found["kind"]) is not str or type(found["detail"]) is not dict:
        raise JournalMalformed("kind is no text, or detail no object")
    check_detail(found["kind"], found["detail"])
    return Entry(**found)


def digests_of(entry: Entry) -> tuple[str, ...]:
    """Return the digests of stored bytes that an entry refers to."""
    one = entry.detail.get("result_sha256")
    return (*([one] if one else []), *entry.detail.get("files", ()))


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_text(value: object) -> bool:
    return type(value) is str and len(value) <= 128


def _is_digest(value: object) -> bool:
    return type(value) is str and _DIGEST.fullmatch(value) is not None


def _are_digests(value: object) -> bool:
    return isinstance(value, list) and len(value) <= 1024 and all(map(_is_digest, value))


_TYPES: Mapping[str, Callable[[object], bool]] = {
    "attempts_max": _is_count,
    "shard": _is_count,
    "of": _is_count,
    "due_at": _is_count,
    "max_runs": _is_count,
    "result_sha256": _is_digest,
    "body_sha256": _is_digest,
    "files": _are_digests,
    "leaf": lambda value: isinstance(value, str) and value in LEAVES,
}
"""Types of values; a key that is not here is a text of at most 128 characters."""
