"""What a person or a pipe gets to read. Text of others is made printable before it comes here."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any, TextIO

from assay.errors import shown


class Screen:
    """Standard output and standard error.

    A reader that went away or a full disk never turns one failure into another: it is remembered, and only a success
    becomes "could not tell".
    """

    def __init__(self) -> None:
        self.lost = False
        for stream in (sys.stdout, sys.stderr):
            # A terminal that cannot show a letter gets its escape, not an exception.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")

    def command(self, text: str) -> None:
        """Write a line that a CI runner obeys; what it holds was made harmless for that (`assay.gate.neutral`)."""
        self._result(text)

    def out(self, text: str = "") -> None:
        """Write a line of the result."""
        self._result(_no_command(text))

    def _result(self, text: str) -> None:
        if sys.stdout is None:
            self.lost = True  # closed before we started: Python then prints to nowhere, and complains about nothing
            return
        self._write(sys.stdout, text)

    def note(self, text: str) -> None:
        """Write a line beside the result: progress, hints, errors."""
        if sys.stderr is not None:
            self._write(sys.stderr, _no_command(text))

    def json(self, value: Any) -> None:
        """Write one JSON document on one line; control characters are escaped by JSON itself."""
        # In JSON these three letters stand in a string only, where a runner would still take them for a command.
        self.out(json.dumps(value, allow_nan=False).replace("##[", "#\\u0023["))

    def _write(self, stream: TextIO, text: str) -> None:
        try:
            print(text, file=stream, flush=True)
        except OSError:
            self.lost = self.lost or stream is sys.stdout
            # What the interpreter flushes at its end must not fail again.
            null = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(null, stream.fileno())
            except OSError:
                return  # a captured stream has no descriptor, and nothing to flush
            finally:
                os.close(null)


_COMMAND = re.compile(r"^(\s*)::", re.MULTILINE)


def _no_command(text: str) -> str:
    """Break up what a CI runner would obey: "::" at the start of a line, and "##[" anywhere in it."""
    return _COMMAND.sub(r"\1: :", text).replace("##[", "## [")


SCREEN = Screen()


def clean(value: object, limit: int = 512) -> str:
    """Return a text of others, printable and shortened."""
    return shown(value if isinstance(value, str) else str(value), limit)


def bytes_text(count: int) -> str:
    """Return a number of bytes for a person."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"
