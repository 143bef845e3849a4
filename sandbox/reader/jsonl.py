"""Rows of a JSONL data file, one strict object a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sandbox.reader import strict_json
from sandbox.reader.error import ReaderError

LINE_CAP = 2**20


def rows(path: Path, *, line_cap: int = LINE_CAP) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, row) of each line.

    Args:
        path: UTF-8 file; each line is one JSON object; finite fractions are allowed.
        line_cap: most bytes of one line, newline included.

    Raises:
        ReaderError: a json_* code, `line_cap` or `row_not_object`, at `line:<number>`; `file_unreadable`
            for the file.
    """
    try:
        with path.open("rb") as stream:
            number = 0
            while line := stream.readline(line_cap + 1):
                number += 1
                if len(line) > line_cap:
                    raise ReaderError("line_cap", f"line:{number}")
                yield number, _row(line, number, line_cap)
    except OSError as error:
        raise ReaderError("file_unreadable", f"key:{error.__class__.__name__}") from None


def _row(line: bytes, number: int, line_cap: int) -> dict[str, Any]:
    body = line.removesuffix(b"\n").removesuffix(b"\r")
    try:
        row = strict_json.loads(body, cap=line_cap, fractions=True)
    except ReaderError as error:
        raise ReaderError(error.code, f"line:{number}") from None
    if not isinstance(row, dict):
        raise ReaderError("row_not_object", f"line:{number}")
    return row
