"""Exit codes, in one place.

0  yes: measured and every control held; verified; done
1  no: a signature, digest or claim is wrong
2  could not tell: inconclusive, refused, failed, cancelled, and every unexpected error
3  usage, configuration, or an input that cannot be accepted as it is
4  unreachable, timed out, or over a limit that passes: retry
130  interrupted
"""

from __future__ import annotations

from typing import Any

from assay.client_errors import LocalInputRefused, NoConfig, ServerRefused, TimedOut, Unreachable
from assay.errors import Misused, Wrong

YES, NO, COULD_NOT_TELL, MISUSED, RETRY, INTERRUPTED = 0, 1, 2, 3, 4, 130

_FAULTS_OF_THE_SERVICE = frozenset({"INTERNAL", "UNKNOWN", "DATA_LOSS", "UNIMPLEMENTED"})


def of_error(error: BaseException) -> int:
    """Return the exit code of what ended a command."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, Wrong):
        return NO
    if isinstance(error, LocalInputRefused | NoConfig | Misused):
        return MISUSED
    if isinstance(error, Unreachable | TimedOut):
        return RETRY
    if isinstance(error, ServerRefused):
        if error.code in ("RESOURCE_EXHAUSTED", "ABORTED"):
            return RETRY
        return COULD_NOT_TELL if error.code in _FAULTS_OF_THE_SERVICE else MISUSED
    return COULD_NOT_TELL


def of_outcome(state: str, outcome: str | None) -> int:
    """Return the exit code of an audit: only a measured one whose controls held is a yes."""
    return YES if (state, outcome) == ("COMPLETED", "MEASURED") else COULD_NOT_TELL


def error_json(error: BaseException) -> dict[str, Any]:
    """Return an error as plain JSON, schema assay-error/v1."""
    body: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, ServerRefused):
        body |= {"code": error.code, "reason": error.reason, "metadata": error.metadata}
        body["violations"] = [{"field": one.field, "description": one.description} for one in error.violations]
    if isinstance(error, LocalInputRefused):
        body["problems"] = [{"item": one.item, "message": one.message} for one in error.problems]
    if isinstance(error, Unreachable):
        body["last_sequence"] = error.last_sequence
    return {"schema": "assay-error/v1", "error": body, "exit": of_error(error)}
