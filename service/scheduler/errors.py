"""What keeps an owed effect from happening now.

SchedulerError
 |- SignerUnavailable    nobody answers at the signer's socket
 `- SignerRefused        the signer answered no, with a code
"""

from __future__ import annotations


class SchedulerError(Exception):
    """Root of the scheduler's errors. `code` becomes the audit's `state_reason`."""

    code = "INTERNAL"


class SignerUnavailable(SchedulerError):
    """Nobody answers at the signer's socket; asked again for ever."""

    code = "SIGNER_UNAVAILABLE"


class SignerRefused(SchedulerError):
    """The signer answered no; asked again for ever, since an operator may repair the cause.

    Only a record that the signer refuses as such (`service.rules.states.UNSIGNABLE`) ends its audit.

    Args:
        code: the signer's own, e.g. CLOCK_SKEW.
        message: for operators.
        blob: digest of the blob whose bytes the signer found lost, where that is why.
    """

    def __init__(self, code: str, message: str, *, blob: str = "") -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.blob = code, blob
