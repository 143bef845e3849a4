"""Data files, checked line by line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from assay import strict_json
from assay.client_errors import LocalInputRefused, Problem, refuse
from assay.errors import Malformed

LINE_CAP = 2**20
"""Bytes of one line, as the reader in the cell has it."""

PROBLEMS_MAX = 20
"""Enough to see a pattern; a file of another format is wrong on every line."""

BINARY = (".parquet", ".safetensors", ".npz")
"""Suffixes of data that has no lines; the check that asked for it judges it."""

JSONL = "application/jsonl"


@dataclass(frozen=True, kw_only=True)
class CheckedData:
    """One data file that may be sent."""

    role: str
    path: Path
    media_type: str
    """Empty where only the check knows."""
    rows: int
    """Lines; 0 for binary data."""


def check_data(role: str, path: Path) -> CheckedData:
    """Check one data file.

    Raises:
        LocalInputRefused: unreadable, empty, or a line that is not one strict JSON object; each is named.
    """
    if not path.is_file():
        raise refuse(str(path), f"is no file; --data {role}=FILE names the data of role {role}")
    if path.suffix.lower() in BINARY:
        return CheckedData(role=role, path=path, media_type="", rows=0)
    problems: list[Problem] = []
    rows = 0
    try:
        with path.open("rb") as file:
            while (line := file.readline(LINE_CAP + 1)) and len(problems) < PROBLEMS_MAX:
                rows += 1
                wrong = _line_problem(line)
                if wrong:
                    problems.append(Problem(item=f"{path}, line {rows}", message=wrong))
                if len(line) > LINE_CAP:
                    break
    except OSError as error:
        raise refuse(str(path), f"cannot be read: {error.strerror}") from None
    if not rows:
        problems.append(Problem(item=str(path), message="is empty; one JSON object a line is expected"))
    if problems:
        raise LocalInputRefused(problems)
    return CheckedData(role=role, path=path, media_type=JSONL, rows=rows)


def _line_problem(line: bytes) -> str | None:
    if len(line) > LINE_CAP:
        return f"is longer than {LINE_CAP} bytes, the limit of one line; is this JSON Lines?"
    body = line.removesuffix(b"\n").removesuffix(b"\r")
    if not body.strip():
        return "is empty; remove the line"
    try:
        value = strict_json.loads(body, LINE_CAP, fractions=True)
    except Malformed as error:
        return f"is not strict JSON: {error.message} [{error.code} at {error.at or 'the line'}]; correct the line"
    if not isinstance(value, dict):
        return "is JSON, but no object; each line is one {…}"
    return None
