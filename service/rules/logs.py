"""Logs: one JSON object a line on standard error, control characters escaped, so that no text forges a line."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, TextIO

FIELDS = ("audit", "job", "attempt", "token", "worker", "item")
"""What a line may carry besides time, level, logger and text: names and numbers, never content."""


TEXT_MAX = 16_384
"""Characters of a text or a trace that a line carries: one caller's name or one deep trace never fills the disk."""


class JsonLines(logging.Formatter):
    """Formats a record as one line of ASCII JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its newline."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "at": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "text": _cut(record.getMessage()),
        }
        line |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info:
            line["trace"] = _cut(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=True, default=str).replace("\x7f", "\\u007f")


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}… ({len(text)} characters)"


_CHATTY = ("alembic.runtime.migration",)
"""Tells at each look at the revision which database it is; the health check looks every five seconds."""


def log_to(stream: TextIO | None = None, *, level: int = logging.INFO) -> None:
    """Send this process's log lines to a stream, by default standard error."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)


def escaped(text: str, *, cap: int = 4096) -> str:
    """Return the last `cap` characters of a text with everything but printable ASCII and newlines escaped."""
    kept = "".join(
        character if character == "\n" or (character.isascii() and character.isprintable()) else ascii(character)[1:-1]
        for character in text[-cap:]
    )
    return kept[-cap:]
