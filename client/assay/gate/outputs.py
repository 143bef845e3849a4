"""Writes a gate result to files. What cannot be written turns a yes into "could not tell", and nothing else changes.

A file appears whole or not at all, and all of them are written whatever the outcome: a gate that failed is the one
whose results are wanted.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from assay.errors import Misused, shown
from assay.gate import junit, markdown, sarif
from assay.gate.gate import COULD_NOT_TELL, GateResult


def _json(result: GateResult) -> bytes:
    return json.dumps(result.to_json(), indent=1, allow_nan=False).encode() + b"\n"


FORMATS: Mapping[str, Callable[[GateResult], bytes]] = MappingProxyType(
    {
        "junit": junit.render,
        "sarif": sarif.render,
        "md": lambda result: markdown.render(result).encode(),
        "json": _json,
    }
)
"""What `--out` can name."""


def parse(options: Sequence[str]) -> dict[str, Path]:
    """Read `--out` options of the form FORMAT=FILE.

    Raises:
        Misused: no such format, no file, or a format or file twice.
    """
    found: dict[str, Path] = {}
    for option in options:
        name, equals, file = option.partition("=")
        if name not in FORMATS or not equals or not file:
            raise Misused(f"--out {shown(option)}: expected FORMAT=FILE, FORMAT one of {', '.join(FORMATS)}")
        if name in found or Path(file) in found.values():
            raise Misused(f"--out {shown(option)}: the format or the file is named twice")
        found[name] = Path(file)
    return found


def apart(files: Mapping[str, Path], inputs: Iterable[Path | None]) -> None:
    """Refuse outputs that would replace what is decided on, through links as well.

    Args:
        files: by format.
        inputs: every file and folder that was named; None for what was not.

    Raises:
        Misused: an output is one of them, or lies inside, or is the file of another output.
    """
    taken = [told for one in inputs if one is not None for told in _ways(one)]
    seen: set[Path] = set()
    for name, file in files.items():
        at, ways = f"--out {name}={shown(str(file), 200)}", _ways(file)
        for way in ways:
            if any(way == one or one in way.parents for one in taken):
                raise Misused(f"{at}: it would replace what is decided on; choose another")
        if ways & seen:
            raise Misused(f"{at}: another output goes to the same file")
        seen |= ways


def _ways(file: Path) -> set[Path]:
    """Return where a path leads: the entry that a rename replaces, and what it points to."""
    try:
        whole = file.absolute()
        return {whole.parent.resolve() / whole.name, whole.resolve()}
    except (OSError, RuntimeError):  # a loop of links
        return {file.absolute()}


def write(result: GateResult, files: Mapping[str, Path]) -> tuple[str, ...]:
    """Write every output, and return one message for each that could not be written."""
    failed: list[str] = []
    for name, file in files.items():
        try:
            _write_whole(file, FORMATS[name](result))
        except Exception as error:  # a renderer's defect must neither hide the other outputs nor change a no
            why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            failed.append(f"cannot write {name} to {shown(str(file), 200)}: {why}")
    return tuple(failed)


def final_code(result: GateResult, failed: Sequence[str]) -> int:
    """Return the exit code, set once: a failed write turns 0 into 2 and leaves every other code as it is."""
    return COULD_NOT_TELL if failed and result.exit_code == 0 else result.exit_code


def _write_whole(file: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name[:32]}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o644)  # mkstemp's 0600 would keep another user's upload step out
        Path(name).replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
