"""From `--check`, `--check-json` and `--param` to the checks of a request."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay import strict_json
from assay.cli.options import pair, value
from assay.client_errors import LocalInputRefused, Problem, refuse
from assay.errors import Malformed

if TYPE_CHECKING:
    from assay.catalogue import CheckEntry

FILE_MAX = 1024 * 1024


@dataclass
class Asked:
    """One check as it was asked for."""

    name: str
    parameters: dict[str, Any] = field(default_factory=dict)


def read_checks(checks: Sequence[str], files: Sequence[Path], parameters: Sequence[str]) -> list[Asked]:
    """Read what was asked for.

    Args:
        checks: `NAME` or `NAME:key=value,key=value`.
        files: JSON, `{"check": NAME, "parameters": {…}}` or a list of such.
        parameters: `NAME.key=value`, added to the one check of that name.

    Raises:
        LocalInputRefused: a form is wrong, or a parameter names no check or two.
    """
    asked = [_read_check(text) for text in checks]
    for file in files:
        asked += _read_file(file)
    if not asked:
        raise refuse("--check", "is missing: name at least one check; `assay checks` lists them")
    for text in parameters:
        left, right = pair("--param", text)
        name, dot, key = left.partition(".")
        matching = [one for one in asked if one.name == name]
        if not dot or not key:
            raise refuse(f"--param {text}", "has not the form CHECK.KEY=VALUE")
        if len(matching) != 1:
            why = "is not asked" if not matching else "is asked twice; use --check NAME:key=value"
            raise refuse(f"--param {text}", f"the check {name} {why}")
        _set(matching[0], key, right)
    return asked


def check_names(asked: Sequence[Asked], known: Sequence[CheckEntry], roles: Sequence[str] = ()) -> dict[str, str]:
    """Compare names of checks, parameters and data roles with a catalogue, before anything is sent.

    Returns:
        The media type that each role of the asked checks takes.

    Raises:
        LocalInputRefused: naming each unknown one and what is nearest.
    """
    from assay.preflight.roles import media_types

    by_name = {check.name: check for check in known}
    problems = []
    for one in asked:
        check = by_name.get(one.name)
        if check is None:
            problems.append(Problem(item=f"check {one.name}", message=_STRANGE + _nearest(one.name, by_name)))
            continue
        keys = check.params.get("properties")
        if not isinstance(keys, dict):
            continue
        for key in one.parameters:
            if key not in keys:
                problems.append(Problem(item=f"parameter {one.name}.{key}", message="is unknown" + _nearest(key, keys)))
    types = media_types(by_name[one.name] for one in asked if one.name in by_name)
    if all(one.name in by_name for one in asked):  # a role may belong to the check that is misspelt
        for role in roles:
            if role not in types:
                problems.append(
                    Problem(item=f"data role {role}", message="is read by no asked check" + _nearest(role, types))
                )
    if problems:
        raise LocalInputRefused(problems)
    return types


_STRANGE = "is unknown: neither built in, nor on the operator's list of third-party checks (third_party)"


def _nearest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    listed = ", ".join(sorted(known)) or "none"
    return f"; did you mean {close[0]}? Known: {listed}" if close else f"; known: {listed}"


def _read_check(text: str) -> Asked:
    name, colon, rest = text.partition(":")
    asked = Asked(name.removeprefix("checks/"))
    if not asked.name or (colon and not rest):
        raise refuse(f"--check {text}", "has not the form NAME or NAME:key=value,key=value")
    for part in _split(rest):
        key, right = pair("--check", part)
        _set(asked, key, right)
    return asked


def _split(text: str) -> Iterator[str]:
    """Split at commas outside of brackets and quotes."""
    depth, quoted, start = 0, False, 0
    for place, letter in enumerate(text):
        if letter == '"' and text[place - 1 : place] != "\\":
            quoted = not quoted
        elif not quoted and letter in "[{":
            depth += 1
        elif not quoted and letter in "]}":
            depth -= 1
        elif letter == "," and not quoted and depth == 0:
            yield text[start:place]
            start = place + 1
    if text[start:]:
        yield text[start:]


def _set(asked: Asked, key: str, text: str) -> None:
    if key in asked.parameters:
        raise refuse(f"parameter {asked.name}.{key}", "is given twice")
    asked.parameters[key] = value(text)


def _read_file(path: Path) -> list[Asked]:
    try:
        read = strict_json.loads(path.read_bytes(), FILE_MAX, fractions=True)
    except OSError as error:
        raise refuse(str(path), f"cannot be read: {error.strerror}") from None
    except Malformed as error:
        raise refuse(str(path), f"is not strict JSON: {error}") from None
    entries = read if isinstance(read, list) else [read]
    for entry in entries:
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("check"), str)
            or not isinstance(entry.get("parameters", {}), dict)
            or set(entry) - {"check", "parameters"}
        ):
            raise refuse(str(path), 'holds something else than {"check": NAME, "parameters": {…}} or a list of such')
    return [Asked(entry["check"].removeprefix("checks/"), dict(entry.get("parameters", {}))) for entry in entries]
