"""Which data may be sent for which role: what the checks declare in the catalogue, and nothing that a client says."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from assay import media
from assay.api.v1 import audits_pb2
from assay.catalogue import CheckEntry

from service.rules import names
from service.rules.errors import Violation
from service.rules.names import BlobName, shown

FILES_MAX = 256
"""Most files of a role that may be sent in many: each is an input of a cell, and a line of the signed request."""


@dataclass(frozen=True, kw_only=True)
class AskedData:
    """One data input."""

    role: str
    blob: BlobName
    media_type: str
    rows: int


def read_data(
    asked: audits_pb2.Audit, entries: list[CheckEntry], *, complete: bool
) -> tuple[tuple[AskedData, ...], list[Violation]]:
    """Match the data sent with the roles that the checks declare.

    A role that nobody needs is told only when all checks are known (`complete`): it may belong to a misspelt one.
    """
    roles = {role["name"]: role for entry in entries for role in entry.raw["data_roles"]}
    sent, wrong = [], list(_disputed(entries))
    seen: Counter[str] = Counter()
    for position, one in enumerate(asked.data):
        field = f"audit.data[{position}]"
        media_type = roles.get(one.role, {}).get("media_type", "")
        many = bool(roles.get(one.role, {}).get("many", False))
        if seen[one.role] and not many:
            wrong.append(Violation(f"{field}.role", f"role {shown(one.role, 64)!r} is sent twice", "BAD_DATA_ROLE"))
        elif many and seen[one.role] == FILES_MAX:
            text = f"role {one.role!r} is sent in more than {FILES_MAX} files: join some"
            wrong.append(Violation(f"{field}.role", text, "BAD_DATA_ROLE"))
        elif one.role in roles:
            wrong += _of_role(one, media_type, field)
        elif complete:
            text = f"no asked check needs data of role {shown(one.role, 64)!r}{_near(one.role, roles)}"
            wrong.append(Violation(f"{field}.role", text, "BAD_DATA_ROLE"))
        if not names.is_digest(one.blob.sha256, one.blob.size):
            wrong.append(Violation(f"{field}.blob", "is not 64 lower-case hex digits and a size", "BAD_DIGEST"))
        if one.rows < 0:
            wrong.append(Violation(f"{field}.rows", "is negative", "BAD_DATA_ROLE"))
        seen[one.role] += 1
        sent.append(
            AskedData(
                role=one.role, blob=BlobName(one.blob.sha256, one.blob.size), media_type=media_type, rows=one.rows
            )
        )
    return tuple(sent), wrong + list(_roles_not_sent(entries, set(seen)))


def _of_role(one: audits_pb2.DataInput, media_type: str, field: str) -> Iterator[Violation]:
    """Hold what is sent against what the catalogue says that its role takes; the client's word counts for nothing."""
    if one.media_type not in ("", media_type):
        text = f"role {one.role!r} takes {media_type}, not {shown(one.media_type, 64)!r}"
        yield Violation(f"{field}.media_type", text, "BAD_DATA_ROLE")
    cap = media.cap_of(media_type)
    if cap is not None and one.blob.size > cap:
        text = f"has {one.blob.size} bytes; role {one.role!r} takes at most {cap} ({media_type})"
        yield Violation(f"{field}.blob", text, "BAD_DATA_ROLE")
    if media_type != media.ROWS and one.rows > 0:
        text = f"role {one.role!r} takes {media_type}, which has no rows"
        yield Violation(f"{field}.rows", text, "BAD_DATA_ROLE")


def _disputed(entries: list[CheckEntry]) -> Iterator[Violation]:
    """What is sent for a role is sent once for all: two checks that want it in different forms cannot share it."""
    wanted: dict[str, tuple[str, str]] = {}
    for entry in entries:
        for role in entry.raw["data_roles"]:
            told = role["media_type"] + (" in many files" if role.get("many", False) else "")
            first, form = wanted.setdefault(role["name"], (entry.name, told))
            if form != told:
                text = f"{first} reads role {role['name']!r} as {form}, {entry.name} as {told}"
                yield Violation("audit.checks", f"{text}: ask them in two audits", "BAD_CHECKS")


def _near(word: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word[:64], known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def _roles_not_sent(entries: list[CheckEntry], seen: set[str]) -> Iterator[Violation]:
    for entry in {entry.name: entry for entry in entries}.values():
        for role in entry.raw["data_roles"]:
            if role["required"] and role["name"] not in seen:
                yield Violation(
                    "audit.data", f"check {entry.name!r} needs data of role {role['name']!r}", "BAD_DATA_ROLE"
                )
