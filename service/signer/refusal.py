"""Why the signer says no.

SignerError
├── Refused          an operation that was not done; carries a code that the scheduler can act on
├── KeyUnusable      there is no report key to sign with (`service.signer.keys`)
└── CannotServe      the socket cannot be opened, or the log is damaged or older than what was handed out
"""

from __future__ import annotations

from typing import Literal

Code = Literal[
    "BAD_REQUEST",  # the line is no request of ours
    "RATE_LIMITED",
    "UNKNOWN_AUDIT",
    "WRONG_STATE",  # the audit is not where this operation begins
    "STALE_TOKEN",
    "NOT_REGISTERED",
    "REGISTRATION_DIFFERS",  # database and signer disagree about what was fixed before the run
    "VOIDED",
    "ALREADY_SEALED",
    "NOT_SEALED",  # there is no report that could be withdrawn
    "BLOB_MISSING",
    "BLOB_CORRUPT",
    "REQUEST_REJECTED",
    "RECORD_REJECTED",  # the host's record is malformed or claims what its numbers do not say
    "CODE_DIFFERS",  # what ran is not what the installed catalogue names
    "BACKEND_REFUSED",  # a cell that isolates nothing, under a production key
    "LAYER_MISSING",  # a cell whose seal does not show every mandatory layer
    "CLOCK_SKEW",
    "DATABASE_UNAVAILABLE",
    "STORAGE_FAILED",
    "SELF_CHECK_FAILED",  # the report that was just made does not verify
    "INTERNAL",
]

RETRYABLE = frozenset(
    {"RATE_LIMITED", "BLOB_MISSING", "CLOCK_SKEW", "DATABASE_UNAVAILABLE", "STORAGE_FAILED", "INTERNAL"}
)
"""Codes that the same request may meet no more later: time or an operator heals them."""


class SignerError(Exception):
    """Root of what the signer raises on purpose."""


class CannotServe(SignerError):
    """The socket or the log cannot be opened; the message says why."""


class Refused(SignerError):
    """The signer did nothing.

    Args:
        code: for the scheduler.
        message: for an operator; names the item and what was expected.
        blob: digest of the blob whose bytes are lost, where that is why.
    """

    def __init__(self, code: Code, message: str, *, blob: str = "") -> None:
        super().__init__(message)
        self.code, self.blob = code, blob

    @property
    def retryable(self) -> bool:
        """Whether asking again later can succeed."""
        return self.code in RETRYABLE
