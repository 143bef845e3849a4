"""Spans of an audit's way: api, job, attempt, phases of its cells, seal. Nothing happens unless a tracer is installed.

The context lies in the job's row as a W3C traceparent, since the broker carries the job's id alone. Attributes are
names and numbers from `ATTRIBUTES`: no tenant, no parameter, no text of a caller or a cell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Protocol

ATTRIBUTES = frozenset({"audit", "job", "attempt", "exit_class"})
"""What a span may tell: ids that the service drew, numbers, and words of its own."""

SPANS = ("submit", "register", "attempt", "materialise", "cells", "store", "seal")
"""Every name that a span has."""

_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Tracer(Protocol):
    """Records spans; `service.main.traces` has the one that there is."""

    def span(self, name: str, parent: str, attributes: Mapping[str, str | int]) -> AbstractContextManager[str]:
        """Record what the block does; yield the span's traceparent.

        Args:
            name: one of `SPANS`.
            parent: traceparent of the span above; empty for the one that runs, or none.
            attributes: keys of `ATTRIBUTES`.
        """
        ...


_installed: Tracer | None = None

_current: ContextVar[str] = ContextVar("traceparent", default="")


def install(tracer: Tracer | None) -> None:
    """Have spans recorded from now on; None: no more."""
    global _installed
    _installed = tracer


def current() -> str:
    """Return the traceparent of the span that runs here; empty without one."""
    return _current.get()


def is_traceparent(text: str) -> bool:
    """Tell whether a text is a traceparent of version 00 (W3C Trace Context, section 3.2.2)."""
    return _TRACEPARENT.fullmatch(text) is not None


@contextmanager
def span(name: str, parent: str = "", **attributes: str | int) -> Iterator[None]:
    """Record what the block does, if a tracer is installed.

    Raises:
        KeyError: a name or an attribute that is not in its list: it might be somebody's text.
    """
    if name not in SPANS or not set(attributes) <= ATTRIBUTES:
        raise KeyError(f"span {name} with {sorted(attributes)}")
    if _installed is None:
        yield
        return
    with _installed.span(name, parent if is_traceparent(parent) else current(), attributes) as here:
        token = _current.set(here)
        try:
            yield
        finally:
            _current.reset(token)
