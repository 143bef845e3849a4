"""What the log's leaves say: canonical JSON of at most 512 bytes, with exactly the fields of its kind.

| kind | `commit` | further fields |
|---|---|---|
| request | SHA-256 of request.json | tag |
| report, replication | SHA-256 of the envelope's PAE bytes | tag, `key` that signed, `prev` index of the request |
| void | the `commit` of the request that ends here | tag, `prev` index of the request, `reason` |
| withdrawal | the `commit` of the report withdrawn | tag, `prev` index of the report, `reason` |
| trust-root | SHA-256 of the root's signed bytes | |

`tag` links all leaves of one model for who knows its salt, and for nobody else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from assay import canonical, moments
from assay.errors import CouldNotTell, Malformed, shown
from assay.manifest import is_sha256
from assay.strict_json import INTEGER_MAX

ENTRY_MAX = 512
"""Bytes of an entry (specification, section 9): a log with no room for text carries no text."""

VERSION = 1
"""Of the form of entries (specification, section 9: `v:1`)."""

VOID_REASONS = frozenset({"cancelled", "failed", "poisoned", "revoked"})
"""Why a request ended without a report (specification, section 4)."""

_EXTRA = {
    "request": ("tag",),
    "report": ("tag", "key", "prev"),
    "replication": ("tag", "key", "prev"),
    "void": ("tag", "prev", "reason"),
    "withdrawal": ("tag", "prev", "reason"),
    "trust-root": (),
}
"""Fields of each kind besides v, kind, at and commit."""

KINDS = frozenset(_EXTRA)

_OPTIONAL = ("tag", "key", "prev", "reason")
_REASON = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One leaf of the log. Making one checks it: Malformed names the field."""

    kind: str
    at: str
    """When the log's writer appended it: RFC 3339, whole seconds."""
    commit: str
    tag: str | None = None
    key: str | None = None
    prev: int | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in _EXTRA:
            raise Malformed("entry_kind", "kind", f"no such kind: {shown(self.kind)}")
        moments.parse(self.at, "at")
        for name in ("commit", *_OPTIONAL):
            value = getattr(self, name)
            owed = name == "commit" or name in _EXTRA[self.kind]
            if (value is not None) != owed:
                raise Malformed("entry_field", name, f"a {self.kind} entry has {'this' if owed else 'no such'} field")
            if value is not None and not _fits(name, value, self.kind):
                raise Malformed("entry_field", name, f"{shown(value)} does not belong into a {self.kind} entry")

    @property
    def data(self) -> bytes:
        """The canonical bytes, which are hashed into the leaf."""
        value = {"v": VERSION, "kind": self.kind, "at": self.at, "commit": self.commit}
        return canonical.dumps(value | {name: getattr(self, name) for name in _EXTRA[self.kind]})


def parse(data: bytes) -> Entry:
    """Read an entry strictly.

    Raises:
        Malformed: over 512 bytes, not canonical, or not exactly the fields of its kind.
        CouldNotTell: a version or kind that this client does not know.
    """
    value = canonical.loads_canonical(data, ENTRY_MAX)
    if not isinstance(value, dict):
        raise Malformed("entry_form", "", "an entry is an object")
    version, kind = value.get("v"), value.get("kind")
    if type(version) is not int or not isinstance(kind, str):
        raise Malformed("entry_form", "v" if type(version) is not int else "kind", "an entry has a version and a kind")
    if version != VERSION or kind not in KINDS:
        raise CouldNotTell(f"log entries of version {version} and kind {shown(kind)} are newer than this client")
    fields: dict[str, Any] = {name: found for name, found in value.items() if name != "v"}
    owed = {"kind", "at", "commit", *_EXTRA[kind]}
    if set(fields) != owed:
        stray = min(set(fields) ^ owed)
        raise Malformed("entry_field", shown(stray), f"a {kind} entry has exactly the fields {', '.join(sorted(owed))}")
    return Entry(**fields)


def is_reason(word: str) -> bool:
    """Say whether a word can stand in the log as the reason of a withdrawal."""
    return bool(_REASON.fullmatch(word))


def _fits(name: str, value: object, kind: str) -> bool:
    if name == "prev":
        return type(value) is int and 0 <= value <= INTEGER_MAX
    if name == "reason":
        return value in VOID_REASONS if kind == "void" else isinstance(value, str) and is_reason(value)
    return is_sha256(value)
