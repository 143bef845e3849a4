"""What a webhook tells: which steps of an audit, in which words, as which bytes (CloudEvents 1.0 in JSON). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from assay import canonical, moments

from service.rules.errors import Violation

TYPES: Mapping[str, str] = {
    "COMPLETED": "assay.audit.completed.v1",
    "FAILED": "assay.audit.failed.v1",
    "CANCELLED": "assay.audit.cancelled.v1",
    "AWAITING_APPROVAL": "assay.audit.approval_needed.v1",
}
"""State of an audit -> the CloudEvents type that tells it (specs: service, section 13); others are not told."""

SOURCE = "/assay.api.v1/audits"
"""CloudEvents `source`, a URI reference: with `id` it is unique within one service."""

WEBHOOKS_MAX = 20
"""Webhooks of one tenant: each may hold one of the scheduler's lanes."""

WAITS_TOLD_MAX = 20
"""Waits for approval of one asking tenant that a webhook of the owner is told of within a day: who may submit may not
make the service call strangers at will. The rest are in the list of audits."""

_ID = re.compile(r"[a-z0-9-]{4,63}")


@dataclass(frozen=True, kw_only=True)
class Told:
    """What is told of an audit: never a metric, a check's name or anything else that was measured or asked."""

    audit: str
    state: str
    report_sha256: str | None
    """Of the report's bundle; None where there is no report."""
    labels: Mapping[str, str]
    """None before the model's owner agreed: they are the asker's words."""
    told_at: int
    """Milliseconds since 1970: when the audit came into this state."""

    @property
    def event_id(self) -> str:
        """Names the event for ever. No dot: Standard Webhooks signs `id.timestamp.body`."""
        return f"{self.audit}-{self.type.split('.')[2].replace('_', '-')}"

    @property
    def type(self) -> str:
        """The CloudEvents type."""
        return TYPES[self.state]

    def body(self) -> bytes:
        """Return the canonical bytes that every try sends."""
        return canonical.dumps(
            {
                "specversion": "1.0",
                "id": self.event_id,
                "source": SOURCE,
                "type": self.type,
                "subject": f"audits/{self.audit}",
                "time": moments.from_ms(self.told_at),
                "datacontenttype": "application/json",
                "data": {
                    "audit": f"audits/{self.audit}",
                    "state": self.state,
                    "report_sha256": self.report_sha256,
                    "labels": dict(self.labels),
                },
            }
        )


def check_webhook(identifier: str, types: Sequence[str]) -> list[Violation]:
    """Return what is wrong with a new webhook's id and types; its URL is `addresses.target`'s business."""
    wrong = []
    if not _ID.fullmatch(identifier):
        wrong.append(Violation("webhook_id", "is not 4 to 63 of a-z, 0-9 and -", "BAD_WEBHOOK"))
    known = set(TYPES.values())
    for place, one in enumerate(types[: len(known) + 1]):
        if one not in known or one in types[:place]:
            what = f"is not one of {', '.join(sorted(known))}, each once at most"
            wrong.append(Violation(f"webhook.types[{place}]", what, "BAD_WEBHOOK"))
    return wrong
