"""Waivers: who accepts which one outcome, why, and until when. A waiver lives in the release repository.

Source: section 11 of the report's specification. A waiver names a fingerprint and exactly one outcome; it lasts at most
a year, is valid through its last day (UTC), and is printed wherever the verdict is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Literal, cast

from assay.policy.fields import Fields
from assay.policy.fingerprint import DIGITS
from assay.policy.loader import Document, Node, Refused

SCHEMA = "assay-waivers/v1"

LIFE_MAX = timedelta(days=365)
"""Longest life of a waiver (specification, section 11): whoever wants it longer has to say so again."""

_FINGERPRINT = re.compile(f"[0-9a-f]{{{DIGITS}}}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Waiver:
    """One accepted outcome."""

    fingerprint: str
    outcome: Literal["fail", "inconclusive"]
    reason: str
    approver: str
    created: date
    expires: date
    """Last day on which it holds, UTC."""
    model: str | None
    """Manifest digest that it is limited to; None for any build."""
    line: int = field(compare=False, default=1)

    def holds(self, today: date) -> bool:
        """Tell whether it is in force on a day (UTC)."""
        return self.created <= today <= self.expires

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "fingerprint": self.fingerprint,
            "outcome": self.outcome,
            "reason": self.reason,
            "approver": self.approver,
            "created": self.created.isoformat(),
            "expires": self.expires.isoformat(),
            "model": self.model,
        }


def parse(document: Document) -> tuple[Waiver, ...]:
    """Read a waiver file.

    Raises:
        Refused: an unknown or missing field, a life over 365 days, or the same fingerprint and outcome twice.
    """
    top = Fields.of(document, document.root, "a waiver file", ("schema", "waivers"))
    if top.need("schema", top.scalar("schema")).text != SCHEMA:
        top.refuse("schema", f"is {SCHEMA}; this client reads no other")
    found = top.each("waivers", lambda node: _waiver(document, node))
    seen: set[tuple[str, str]] = set()
    for waiver in found:
        key = (waiver.fingerprint, waiver.outcome)
        if key in seen:
            raise Refused(document.file, waiver.line, f"{waiver.fingerprint} is waived twice for {waiver.outcome}")
        seen.add(key)
    return found


def _waiver(document: Document, node: Node) -> Waiver:
    known = ("fingerprint", "outcome", "reason", "approver", "created", "expires", "model")
    fields = Fields.of(document, node, "a waiver", known)
    fingerprint = fields.need("fingerprint", fields.scalar("fingerprint"))
    if not _FINGERPRINT.fullmatch(fingerprint.text):
        fields.refuse("fingerprint", f"is {DIGITS} lower-case hexadecimal digits")
    created = fields.need("created", fields.day("created"))
    expires = fields.need("expires", fields.day("expires"))
    if expires < created or expires - created > LIFE_MAX:
        fields.refuse("expires", f"lies from the day of `created` to {LIFE_MAX.days} days after it")
    outcome = fields.need("outcome", fields.choice("outcome", ("fail", "inconclusive")))
    return Waiver(
        fingerprint=fingerprint.text,
        outcome=cast(Literal["fail", "inconclusive"], outcome),
        reason=fields.need("reason", fields.text("reason")),
        approver=fields.need("approver", fields.text("approver")),
        created=created,
        expires=expires,
        model=fields.sha256("model"),
        line=node.line,
    )
