"""What a client of a service can meet. No gRPC type leaks: these are all there is.

AssayError
├── LocalInputRefused   something on the caller's own machine cannot be sent; nothing was
├── NoConfig            which service is meant is not known
├── ServerRefused       the service said no, with a reason and the next move
├── Unreachable         no service answered there, or it went away: retry
└── TimedOut            the deadline passed first: retry, with the same request_id
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from assay.errors import AssayError, shown

VIOLATIONS_SHOWN = 40
"""As many as a service sends in one refusal."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong with an input on this machine."""

    item: str
    """The file, option or key, with its line where it has lines."""
    message: str
    """What is wrong and what to do."""

    def __str__(self) -> str:
        return f"{shown(self.item, 200)}: {shown(self.message, 400)}"


class LocalInputRefused(AssayError):
    """Inputs on this machine cannot be audited. Found before a byte was sent.

    Args:
        problems: all of them, not only the first.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


def refuse(item: str, message: str) -> LocalInputRefused:
    """Return the refusal of one item."""
    return LocalInputRefused([Problem(item=item, message=message)])


class NoConfig(AssayError):
    """No configuration names the service, or it cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One field of a request that the service refused."""

    field: str
    """Path from the request's root, e.g. "audit.checks[0].version"."""
    description: str


class ServerRefused(AssayError):
    """The service answered, and said no. Nothing that the call asked for was done.

    Args:
        code: gRPC status code by name, e.g. "INVALID_ARGUMENT".
        reason: machine-readable word, e.g. "UNKNOWN_CHECK"; the code's name if the service gave none.
        message: the service's words, with the next move.
        violations: what is wrong with which field.
        metadata: every dynamic word of the message.
    """

    def __init__(
        self,
        code: str,
        reason: str,
        message: str,
        violations: Sequence[Violation] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        lines = [f"{shown(reason)}: {shown(message, 1000)}"]
        # A service with one thing to say puts it into the message already.
        told = [one for one in violations if not (one.field in message and one.description in message)]
        lines += [f"  {shown(v.field, 200)}: {shown(v.description, 400)}" for v in told[:VIOLATIONS_SHOWN]]
        super().__init__("\n".join(lines))
        self.code = code
        self.reason = reason
        self.message = message
        self.violations = tuple(violations)
        self.metadata = dict(metadata or {})


class Unreachable(AssayError):
    """No service answered, or the connection broke and patience ran out. Retrying is safe.

    Args:
        message: which address, and what was seen.
        last_sequence: where a watch stopped; watch again from there.
    """

    def __init__(self, message: str, *, last_sequence: int | None = None) -> None:
        super().__init__(message)
        self.last_sequence = last_sequence


class TimedOut(AssayError):
    """The caller's deadline passed. A submission may be repeated with the same request_id."""
