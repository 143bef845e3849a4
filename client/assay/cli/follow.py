"""Watch an audit to its end, and say how it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.cli import codes, reading
from assay.cli.progress import Teller
from assay.cli.screen import SCREEN, clean
from assay.client_errors import Unreachable

if TYPE_CHECKING:
    from assay.client import AuditClient
    from assay.remote.values import Audit, Event


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How an audit ended."""

    audit: Audit
    predicate: dict[str, Any] | None = None
    """What the fetched report says, not verified; None where none was fetched."""

    @property
    def word(self) -> str:
        """The outcome; where service and report disagree, nothing is known."""
        if self.predicate is None or self.audit.word == reading.outcome_of(self.predicate["answers"]):
            return self.audit.word
        return "INCONCLUSIVE"

    @property
    def code(self) -> int:
        """The exit code."""
        return codes.of_outcome(self.audit.state, self.word)

    def line(self) -> str:
        """Return the one line that says it all."""
        return f"{self.word} {clean(self.audit.name)}" + (f" : {self._why()}" if self.code else "")

    def _why(self) -> str:
        wall_s = self.audit.limits.wall_s
        if self.predicate is not None and self.audit.word != self.word:
            return f"the service says {self.audit.word}, the report does not; run `assay verify`"
        if self.predicate is not None:
            answers = [one for one in self.predicate["answers"] if reading.state_of(one) != "measured"]
            return "; ".join(reading.why(one, wall_s) for one in answers)
        if self.audit.state != "COMPLETED":
            again = "sending it again could succeed" if self.audit.retryable else "sending it again would end the same"
            said = [self.audit.state_reason, self.audit.cancel_confirmation, self._classes()]
            return "; ".join(clean(one) for one in dict.fromkeys(said) if one) + (
                f"; {again}" if self.word == "FAILED" else ""
            )
        return self._classes() or "the report says why"

    def _classes(self) -> str:
        """Return how the last attempt ended, where that says more than that it ended."""
        last = self.audit.attempts[-1].exit_class if self.audit.attempts else None
        if last in (None, "OK"):
            return ""
        return f"{last} (wall limit {self.audit.limits.wall_s} s)" if last == "TIME_LIMIT" else str(last)


@contextmanager
def can_be_continued(name: str) -> Iterator[None]:
    """Say how to go on when watching breaks off; the audit itself goes on."""
    try:
        yield
    except KeyboardInterrupt:
        SCREEN.note(f"Interrupted. The audit goes on; continue with: assay watch {clean(name)}")
        raise
    except Unreachable as error:
        after = f" --after {error.last_sequence}" if error.last_sequence else ""
        SCREEN.note(f"Connection lost. The audit goes on; continue with: assay watch {clean(name)}{after}")
        raise


def follow(
    client: AuditClient, name: str, teller: Teller, after: int = 0, *, seen: Callable[[Event], None] | None = None
) -> Audit:
    """Tell an audit's events until it has ended, and return it as it is then; `seen` is told each event first."""
    with can_be_continued(name):
        for event in client.watch(name, after):
            if seen is not None:
                seen(event)
            teller.event(event)
        return client.get(name)


def fetch(client: AuditClient, audit: Audit, place: Path) -> Ending:
    """Fetch the report of an audit that has one, and read it."""
    if audit.state != "COMPLETED":
        return Ending(audit=audit)
    client.report(audit.reports[-1] if audit.reports else audit.name, place)
    return Ending(audit=audit, predicate=reading.read_predicate(place))
