"""Data files: rows are checked line by line, one JSON document whole, and bytes for being what the role takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from assay import media, strict_json
from assay.client_errors import LocalInputRefused, Problem, refuse
from assay.errors import Malformed
from assay.media import PICKLE_FORMAT, PICKLES, Container

LINE_CAP = 2**20
"""Bytes of one line, as the reader in the cell has it."""

PROBLEMS_MAX = 20
"""Enough to see a pattern; a file of another format is wrong on every line."""

BINARY = (".parquet", ".safetensors", ".npz")
"""Suffixes of data that has no lines, for roles that no catalogue at hand names."""

TEXT = (".jsonl", ".ndjson", ".json", ".csv", ".txt")
"""Suffixes of what is no tensor."""

JSONL = media.ROWS

_TAKES: dict[str, tuple[frozenset[Container], str]] = {
    media.SAFETENSORS: (frozenset({"safetensors"}), "a safetensors file"),
    media.NPZ: (frozenset({"npz"}), "an npz file of plain arrays"),
    media.BYTES: (frozenset({"safetensors", "npz"}), "tensors as safetensors or npz"),
}
_CALLED = {"safetensors": "a safetensors file", "npz": "an npz file", "zip": "a zip", "npy": "a npy file"}


@dataclass(frozen=True, kw_only=True)
class CheckedData:
    """One data file that may be sent."""

    role: str
    path: Path
    media_type: str
    """As the catalogue says; empty where neither it nor the file tells."""
    rows: int
    """Lines; 0 for what has none."""


def check_data(role: str, path: Path, media_type: str = "") -> CheckedData:
    """Check one data file.

    Args:
        role: what the file is sent as.
        path: the file.
        media_type: what the role takes, as the catalogue says (`assay.preflight.roles`); empty where no catalogue at
            hand names the role: then the file tells.

    Raises:
        LocalInputRefused: unreadable, empty, over its cap, a pickle, another container than the role takes, or a line
            that is not one strict JSON object; each is named.
    """
    if not path.is_file():
        raise refuse(str(path), f"is no file; --data {role}=FILE names the data of role {role}")
    try:
        size, container = path.stat().st_size, media.container_of(path)
        if container == "pickle" or path.suffix.lower() in PICKLES:
            raise refuse(str(path), PICKLE_FORMAT)
        if media_type == media.ROWS:
            if container is not None:
                raise refuse(str(path), f"is {_named(container)}; role {role} takes rows, one JSON object a line")
        elif media_type:
            return _bytes(role, path, media_type, size, container)
        elif container is not None or path.suffix.lower() in BINARY or _is_document(path, size):
            return CheckedData(role=role, path=path, media_type="", rows=0)
        return _rows(role, path)
    except OSError as error:
        raise refuse(str(path), f"cannot be read: {error.strerror}") from None


def _bytes(role: str, path: Path, media_type: str, size: int, container: Container | None) -> CheckedData:
    """Check a file whose role is not rows.

    Raises:
        LocalInputRefused: empty, over its cap, or not what the role takes.
    """
    cap = media.cap_of(media_type)
    takes, named = _TAKES.get(media_type, (frozenset(), media_type))
    if not size:
        raise refuse(str(path), f"is empty; role {role} takes {named if media_type != media.JSON else 'one document'}")
    if cap is not None and size > cap:
        raise refuse(str(path), f"has {size} bytes; role {role} takes at most {cap} ({media_type})")
    if media_type == media.JSON:
        if container is not None:
            raise refuse(str(path), f"is {_named(container)}; role {role} takes one JSON document")
        wrong = _document_problem(path, size)
    else:
        wrong = _container_problem(role, path, media_type, container, takes, named)
    if wrong:
        raise refuse(str(path), wrong)
    return CheckedData(role=role, path=path, media_type=media_type, rows=0)


def _container_problem(
    role: str, path: Path, media_type: str, container: Container | None, takes: frozenset[Container], named: str
) -> str:
    """Return why a file is not what a role of tensors takes; empty where it may be.

    Bytes without a mark stay the check's business where the role takes any; a file of rows is told apart.
    """
    if container in takes or (container is None and media_type not in _TAKES):
        return ""
    if container is not None:
        return "" if media_type not in _TAKES else f"is {_named(container)}; role {role} takes {named}"
    if media_type == media.BYTES and path.suffix.lower() not in TEXT and not _begins_as_rows(path):
        return ""
    what = "is text" if path.suffix.lower() in TEXT or _begins_as_rows(path) else "is of another format"
    return f"{what}; role {role} takes {named} ({media_type})"


def _begins_as_rows(path: Path) -> bool:
    with path.open("rb") as file:
        return _line_problem(file.readline(LINE_CAP + 1)) is None


def _is_document(path: Path, size: int) -> bool:
    return path.suffix.lower() == ".json" and not _document_problem(path, size)


def _document_problem(path: Path, size: int) -> str:
    """Return why a file is not one strict JSON document; empty if it is one."""
    if size > media.JSON_MAX:
        return f"has {size} bytes; one JSON document has at most {media.JSON_MAX}"
    try:
        strict_json.loads(path.read_bytes(), media.JSON_MAX, fractions=True)
    except Malformed as error:
        return f"is not one strict JSON document: {error.message} [{error.code} at {error.at or 'the document'}]"
    return ""


def _named(container: Container) -> str:
    return _CALLED.get(container, f"a {container} file")


def _rows(role: str, path: Path) -> CheckedData:
    problems: list[Problem] = []
    rows = 0
    with path.open("rb") as file:
        while (line := file.readline(LINE_CAP + 1)) and len(problems) < PROBLEMS_MAX:
            rows += 1
            wrong = _line_problem(line)
            if wrong:
                problems.append(Problem(item=f"{path}, line {rows}", message=wrong))
            if len(line) > LINE_CAP:
                break
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
