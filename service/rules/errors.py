"""Every refusal that the API can speak: its reason, its gRPC code, and the caller's one next move.

A `Refusal` is a value that ends a call; `service.api.failures` turns it into a status with exactly one ErrorInfo.
Reasons are added here and in the comment of each RPC that raises them, or a test fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

DOMAIN = "assay.api"
"""`ErrorInfo.domain` of every error of this API."""


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One row of the table."""

    codes: tuple[str, ...]
    """Names of gRPC status codes; the first is used unless a refusal chooses another of them."""
    next_move: str
    """What the caller does now: the end of every message."""
    retry_s: float | None = None
    """RetryInfo's delay in seconds, where the same call may simply be sent again."""
    denies: bool = False
    """It is what a caller hears who reaches for what is not theirs, so it is logged as a denial whatever its code."""


_INVALID = ("INVALID_ARGUMENT",)
_PRECONDITION = ("FAILED_PRECONDITION",)

DENIED = ("UNAUTHENTICATED", "PERMISSION_DENIED")
"""Codes that deny whatever the reason."""

REASONS: Mapping[str, Reason] = {
    # Any method
    "NO_CREDENTIAL": Reason(
        codes=("UNAUTHENTICATED",),
        next_move="Present a client certificate of an enabled principal; do not retry without it.",
    ),
    "BAD_TOKEN": Reason(
        codes=("UNAUTHENTICATED",),
        next_move="Have the issuer make a fresh token for this service; do not retry with this one.",
    ),
    "TOKEN_USED": Reason(
        codes=("UNAUTHENTICATED",),
        next_move="Send a fresh token, or one that is bound to your certificate (cnf).",
    ),
    "NOT_PERMITTED": Reason(
        codes=("PERMISSION_DENIED",),
        next_move="Check the name and the principal; do not retry as it is.",
    ),
    "MALFORMED_MESSAGE": Reason(codes=_INVALID, next_move="Encode the message by the published protos."),
    "BAD_RESOURCE_NAME": Reason(codes=_INVALID, next_move="Correct the name; do not retry as it is."),
    "BAD_OFFSET": Reason(codes=_INVALID, next_move="Send a number that is not negative."),
    "DEADLINE_PASSED": Reason(
        codes=("DEADLINE_EXCEEDED",),
        next_move="Retry with a longer deadline; SubmitAudit with the SAME request_id.",
    ),
    "STORE_BUSY": Reason(codes=("UNAVAILABLE",), next_move="Retry after the delay in RetryInfo.", retry_s=1.0),
    "STORE_UNAVAILABLE": Reason(codes=("UNAVAILABLE",), next_move="Retry after the delay in RetryInfo.", retry_s=5.0),
    "SHUTTING_DOWN": Reason(
        codes=("UNAVAILABLE",), next_move="Connect again and go on where the stream stopped.", retry_s=1.0
    ),
    "INTERNAL": Reason(codes=("INTERNAL",), next_move="Quote the incident id to the operator."),
    # Limits and quotas
    "TOO_MANY_CALLS": Reason(
        codes=("RESOURCE_EXHAUSTED",), next_move="Retry after the delay in RetryInfo.", retry_s=1.0
    ),
    "TENANT_FULL": Reason(
        codes=("RESOURCE_EXHAUSTED",),
        next_move="Delete models that are no longer needed, or ask the operator for more room.",
        retry_s=3600.0,
    ),
    "TOO_MANY_AUDITS": Reason(
        codes=("RESOURCE_EXHAUSTED",),
        next_move="Wait for an audit to end, or cancel one; then retry with the same request_id.",
        retry_s=60.0,
    ),
    "GPU_TIME_SPENT": Reason(
        codes=("RESOURCE_EXHAUSTED",),
        next_move="Submit again after midnight UTC, or ask the operator for more.",
        retry_s=3600.0,
    ),
    "TOO_MANY_FILES": Reason(
        codes=("RESOURCE_EXHAUSTED",), next_move="Put the weights into fewer files; the limit is in Capabilities."
    ),
    "TOO_MANY": Reason(codes=_INVALID, next_move="Ask in parts."),
    "BLOB_TOO_LARGE": Reason(codes=("RESOURCE_EXHAUSTED",), next_move="Split the file; the limit is in Capabilities."),
    "TOO_MANY_UPLOADS": Reason(
        codes=("RESOURCE_EXHAUSTED",), next_move="Wait until another upload has ended, then retry.", retry_s=5.0
    ),
    "TOO_MANY_WATCHERS": Reason(codes=("RESOURCE_EXHAUSTED",), next_move="End another watch, then retry.", retry_s=5.0),
    "DISK_FULL": Reason(
        codes=("RESOURCE_EXHAUSTED",), next_move="Tell the operator to free space, then retry.", retry_s=60.0
    ),
    # Blobs
    "BAD_DIGEST": Reason(codes=_INVALID, next_move="Correct the named digest or size."),
    "BATCH_TOO_LARGE": Reason(codes=_INVALID, next_move="Split the batch, or use Write."),
    "DIGEST_MISMATCH": Reason(codes=_INVALID, next_move="Hash the file again; do not retry as it is."),
    "OFFSET_GAP": Reason(codes=_INVALID, next_move="Send each message at the end of the one before."),
    "PAST_SIZE": Reason(codes=_INVALID, next_move="Send exactly as many bytes as the name says."),
    "BAD_RANGE": Reason(codes=_INVALID, next_move="Name 1 byte to 64 MiB within the source, or send the bytes."),
    "OFFSET_MISMATCH": Reason(codes=_PRECONDITION, next_move='Go on at metadata "committed_size".'),
    "UPLOAD_BUSY": Reason(codes=("ABORTED",), next_move="Wait, ask QueryWriteStatus, then go on.", retry_s=1.0),
    "UPLOAD_IDLE": Reason(codes=("ABORTED",), next_move="Ask QueryWriteStatus, then go on.", retry_s=1.0),
    "UPLOAD_UNFINISHED": Reason(codes=("ABORTED",), next_move='Go on at metadata "committed_size".'),
    "BLOB_NOT_FOUND": Reason(
        codes=("NOT_FOUND",), next_move="Take the name from GetReport; nothing else is readable.", denies=True
    ),
    "OFFSET_PAST_END": Reason(codes=("OUT_OF_RANGE",), next_move="Read from an offset within the blob's size."),
    # Models
    "BAD_MANIFEST": Reason(codes=_INVALID, next_move="Correct the named entries and upload the new manifest."),
    "MISSING_BLOBS": Reason(
        codes=_PRECONDITION,
        next_move="Upload what PreconditionFailure names (a foreign model: its owner must), then call again.",
    ),
    "ETAG_MISMATCH": Reason(codes=("ABORTED",), next_move="Read it again, and decide with what it is now."),
    "MODEL_DELETED": Reason(
        codes=_PRECONDITION, next_move="Have an owner of this tenant take the deletion back (UndeleteModel)."
    ),
    "MODEL_IN_USE": Reason(codes=_PRECONDITION, next_move="Wait for its audits, or cancel them, then call again."),
    "MODEL_LIVE": Reason(codes=("ALREADY_EXISTS",), next_move="Go on: there is nothing to take back."),
    # Approvals
    "BAD_SIGNATURE": Reason(
        codes=_INVALID, next_move="Sign with a key that the operator has entered for the owner (approval-keys)."
    ),
    "BAD_APPROVAL": Reason(
        codes=_INVALID, next_move="Correct the named fields and sign again; `assay approvals sign` writes every one."
    ),
    "TOO_MANY_APPROVALS": Reason(
        codes=("RESOURCE_EXHAUSTED",), next_move="Revoke approvals that are no longer needed, or sign one of more runs."
    ),
    "ALREADY_REVOKED": Reason(codes=_PRECONDITION, next_move="Go on: nothing is allowed under it any more."),
    "APPROVAL_SPENT": Reason(
        codes=_PRECONDITION,
        next_move="Ask the model's owner for another approval; every run of this one is counted.",
        denies=True,
    ),
    "APPROVAL_MISMATCH": Reason(
        codes=_PRECONDITION,
        next_move="Ask for what is approved, or the model's owner for an approval of this.",
        denies=True,
    ),
    "BAD_ACCESS": Reason(codes=_INVALID, next_move="Name what the checks need, or leave it empty."),
    # Pages
    "BAD_PAGE_TOKEN": Reason(codes=_INVALID, next_move="Start again without a token, or repeat the other arguments."),
    "BAD_PAGE_SIZE": Reason(codes=_INVALID, next_move="Send 0 to 1000."),
    "BAD_FILTER": Reason(
        codes=_INVALID, next_move='Write "field = value" on state, model, check or label.KEY, joined by AND.'
    ),
    # Audits
    "BAD_REQUEST_ID": Reason(codes=_INVALID, next_move="Send a fresh UUID4 as text."),
    "REQUEST_ID_REUSED": Reason(codes=_INVALID, next_move="Choose a new request_id for other content."),
    "BAD_CHECKS": Reason(codes=_INVALID, next_move="Ask 1 to 64 checks."),
    "UNKNOWN_CHECK": Reason(
        codes=("INVALID_ARGUMENT", "NOT_FOUND"), next_move="Take name and version from ListChecks."
    ),
    "BAD_PARAMETERS": Reason(codes=_INVALID, next_move="Correct the named parameters; GetCheck has their schema."),
    "BAD_DATA_ROLE": Reason(codes=_INVALID, next_move="Send each role that a check needs once, and no other."),
    "BAD_BASE": Reason(
        codes=_INVALID, next_move="Name another base model, or a check that reads one; without a base leave it empty."
    ),
    "BAD_POLICY": Reason(
        codes=_INVALID,
        next_move="Correct the named policy or waivers; `assay submit --policy` sends the form asked for.",
    ),
    "BAD_SEED": Reason(
        codes=_INVALID, next_move="Leave the seed to the log, or name SEED_MODE_FIXED and the first report's own seed."
    ),
    "BAD_FIRST": Reason(codes=_INVALID, next_move="Ask exactly what the first report answers; `assay replicate` does."),
    "BAD_LIMITS": Reason(codes=_INVALID, next_move="Correct the named limits; 0 means the default."),
    "BAD_NONCE": Reason(codes=_INVALID, next_move="Send 32 random bytes."),
    "BAD_LABEL": Reason(codes=_INVALID, next_move="Correct the named labels."),
    "UNKNOWN_MODEL": Reason(
        codes=_PRECONDITION, next_move="Upload the model's files and its manifest first.", denies=True
    ),
    "ALREADY_FINISHED": Reason(codes=_PRECONDITION, next_move="Read the audit; it can no longer be cancelled."),
    "SEQUENCE_AHEAD": Reason(codes=("OUT_OF_RANGE",), next_move="Read last_sequence from GetAudit and watch from it."),
    # Schedules
    "BAD_CRON": Reason(
        codes=_INVALID, next_move="Correct the calendar; `assay-server cron EXPR ZONE` shows when one fires."
    ),
    "BAD_TIME_ZONE": Reason(codes=_INVALID, next_move="Name an IANA time zone, e.g. Europe/Berlin."),
    "BAD_SCHEDULE": Reason(codes=_INVALID, next_move="Correct the named field."),
    "SCHEDULE_EXISTS": Reason(codes=("ALREADY_EXISTS",), next_move="Choose another id, or update that schedule."),
    "TOO_MANY_SCHEDULES": Reason(codes=("RESOURCE_EXHAUSTED",), next_move="Delete a schedule, then create this one."),
    # Webhooks
    "BAD_WEBHOOK": Reason(codes=_INVALID, next_move="Correct the named field."),
    "FORBIDDEN_ADDRESS": Reason(codes=_INVALID, next_move="Name an https receiver on a public address."),
    "WEBHOOK_EXISTS": Reason(codes=("ALREADY_EXISTS",), next_move="Choose another id, or delete that one first."),
    "TOO_MANY_WEBHOOKS": Reason(codes=("RESOURCE_EXHAUSTED",), next_move="Delete a webhook, then create this one."),
    # Reports
    "NOT_SIGNED_YET": Reason(codes=_PRECONDITION, next_move="Watch the audit until COMPLETED, then call again."),
}
"""Reason -> code and next move."""


@dataclass(frozen=True)
class Violation:
    """One thing wrong with one field of a request."""

    field: str
    """Path of the field from the request's root, e.g. "audit.checks[0].version"."""
    description: str
    reason: str


@dataclass(frozen=True)
class Missing:
    """One blob that the caller has not sent."""

    sha256: str
    size: int | None
    """Bytes; None when the caller named only the digest."""
    collection: str = "blobs/sha256"

    @classmethod
    def model(cls, sha256: str) -> Missing:
        """Return a foreign model that lacks bytes: which of its files does is not told."""
        return cls(sha256, None, "models")

    @property
    def subject(self) -> str:
        """Its resource name."""
        return f"{self.collection}/{self.sha256}" + (f"/{self.size}" if self.size is not None else "")


class Refusal(Exception):
    """A call ends with this reason. Nothing that the call asked for was done.

    Args:
        reason: a key of `REASONS`.
        message: what was wrong, one sentence without its next move.
        code: one of the reason's codes, by default the first.
        metadata: every dynamic word of the message, for machines.
        violations: what is wrong with which field.
        missing: blobs to upload.
        quota: subject of the limit that was hit.
        retry_s: RetryInfo's delay where it is known better than the table's, in seconds.

    Raises:
        KeyError: the reason has no row in the table.
        ValueError: the code is none of the reason's.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        code: str | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        missing: Sequence[Missing] = (),
        quota: str | None = None,
        retry_s: float | None = None,
    ) -> None:
        row = REASONS[reason]
        if code is not None and code not in row.codes:
            raise ValueError(f"{reason} is not spoken with {code}")
        super().__init__(f"{message} {row.next_move}")
        self.reason = reason
        self.code = code or row.codes[0]
        self.message = f"{message} {row.next_move}"
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.missing = tuple(missing)
        self.quota = quota
        self.retry_s = row.retry_s if retry_s is None else retry_s
        self.is_denial = row.denies or self.code in DENIED


def not_permitted() -> Refusal:
    """Return the one refusal for a foreign object, an absent one, and a method that the role may not call."""
    return Refusal("NOT_PERMITTED", "This principal may not do this, or the object does not exist.")


def refuse_fields(violations: Sequence[Violation]) -> Refusal:
    """Return one refusal for all violations of a request; its reason is the first one's."""
    first = violations[0]
    rest = len(violations) - 1
    more = f" ({rest} more in the details.)" if rest else ""
    return Refusal(
        first.reason,
        f"{first.field}: {first.description}.{more}",
        metadata={"field": first.field, "description": first.description, **({"more": str(rest)} if rest else {})},
        violations=violations,
    )
