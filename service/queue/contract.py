"""The queue only knocks: a message is a job's id and nothing else, and the lease in the database decides.

QueueError
 `- QueueUnavailable    the broker cannot be reached now; the reconciler knocks again later

A lost, doubled, late or foreign message is harmless, so no implementation promises any of that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Handler = Callable[[str], None]
"""Told a job's id. Whatever it raises ends `Source.run`: the process must end, and a supervisor starts it again."""

JOB_ID_MAX = 40
"""Longest job id; a longer text in the queue is no job of ours."""


class QueueError(Exception):
    """Root of the queue's errors."""


class QueueUnavailable(QueueError):
    """The broker cannot be reached now. Nothing is lost: the reconciler knocks again later."""


class Knocker(Protocol):
    """The scheduler's side."""

    def publish(self, job_id: str, capability: str) -> None:
        """Tell some worker of this capability that a job may be leased; takes about a second at most.

        Raises:
            QueueUnavailable: the broker did not take it.
        """
        ...

    def depth(self, capability: str) -> int | None:
        """Return how many messages wait, or None where workers look at the database themselves.

        Raises:
            QueueUnavailable: the broker did not answer.
        """
        ...


class Source(Protocol):
    """The worker's side."""

    def run(self, handler: Handler) -> None:
        """Call the handler for every knock, in as many threads as there are slots, until `stop`.

        Blocks the calling thread, which must be the process's main thread, and returns when no handler runs any
        more. Raises what a handler raised.
        """
        ...

    def stop(self) -> None:
        """Take no more messages; safe from any thread, a signal handler included."""
        ...


def is_job_id(body: object) -> bool:
    """Say whether a message's body could be a job's id."""
    return isinstance(body, str) and 0 < len(body) <= JOB_ID_MAX and body.isascii() and body.isprintable()
