"""What stops an attempt on the host's side.

WorkerError
 |- HostFault(text)            disk, blob, installation: the attempt ends as HOST_FAULT and is tried again
 |   `- BlobLost(text)         a blob is not there: it is quarantined as well, so that its owner is asked for it
 |       `- BlobCorrupt(text)  its bytes are not what its name says: likewise
 |- Stopped(reason)            cancel, fence or drain: no result is wanted any more
 `- WorkerClosed(text)         this process must not lease again; a supervisor starts another
"""

from __future__ import annotations

from enum import StrEnum


class WorkerError(Exception):
    """Root of the worker's errors."""


class HostFault(WorkerError):
    """The host could not do its part; the text is for operators."""


class BlobLost(HostFault):
    """A blob's bytes are not there."""

    def __init__(self, text: str, sha256: str) -> None:
        super().__init__(text)
        self.sha256 = sha256


class BlobCorrupt(BlobLost):
    """A blob's bytes hash to something else than its name."""


class WorkerClosed(WorkerError):
    """This process must not lease again; the text says why and what to do."""


class Reason(StrEnum):
    """Why a running attempt must stop."""

    CANCEL = "cancel"
    DRAIN = "drain"
    FENCED = "fenced"
    """The database says that the lease is over."""
    STALE = "stale"
    """No beat has succeeded for 2L/3: the lease may be over, so this worker acts as if it were."""


class Stopped(WorkerError):
    """No result is wanted any more."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason
