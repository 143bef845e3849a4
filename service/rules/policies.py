"""Policies and waivers that are registered with an audit: named by digest, held against the catalogue by content."""

from __future__ import annotations

from collections.abc import Iterator

from assay.api.v1 import audits_pb2
from assay.catalogue import Catalogue
from assay.errors import Malformed
from assay.policy import language, registered

from service.rules import names
from service.rules.errors import Violation
from service.rules.names import BlobName, shown

UNKNOWN_TOLD = 20
"""Unknown names of one policy that are told at once; the rest is counted."""


def read_named(asked: audits_pb2.Audit) -> tuple[BlobName | None, BlobName | None, list[Violation]]:
    """Read which policy and waivers a request names.

    Returns:
        Policy, waivers, and what is wrong with their names.
    """
    found: dict[str, BlobName] = {}
    wrong = []
    for field in ("policy", "waivers"):
        if not asked.HasField(field):
            continue
        named = getattr(asked, field)
        if not names.is_digest(named.sha256, named.size):
            wrong.append(Violation(f"audit.{field}", "is not 64 lower-case hex digits and a size", "BAD_DIGEST"))
        elif not 0 < named.size <= registered.BYTES_MAX:
            text = f"has {named.size} bytes, from 1 to {registered.BYTES_MAX} are taken"
            wrong.append(Violation(f"audit.{field}", text, "BAD_POLICY"))
        else:
            found[field] = BlobName(named.sha256, named.size)
    if asked.HasField("waivers") and not asked.HasField("policy"):
        wrong.append(Violation("audit.waivers", "waivers need a policy that they are for", "BAD_POLICY"))
    return found.get("policy"), found.get("waivers"), wrong


def check_policy(data: bytes, catalogue: Catalogue) -> Iterator[Violation]:
    """Yield what is wrong with the bytes of a policy: its form, and every name that the catalogue does not know."""
    try:
        policy = registered.read_policy(data)
    except Malformed as error:
        yield Violation("audit.policy", shown(str(error), 300), "BAD_POLICY")
        return
    unknown = [text for _, text in language.unknown_names(policy, catalogue)]
    for text in unknown[:UNKNOWN_TOLD]:
        yield Violation("audit.policy", shown(text, 300), "BAD_POLICY")
    if len(unknown) > UNKNOWN_TOLD:
        yield Violation("audit.policy", f"{len(unknown) - UNKNOWN_TOLD} more names are unknown", "BAD_POLICY")


def check_waivers(data: bytes) -> Iterator[Violation]:
    """Yield what is wrong with the bytes of a waiver file."""
    try:
        registered.read_waivers(data)
    except Malformed as error:
        yield Violation("audit.waivers", shown(str(error), 300), "BAD_POLICY")
