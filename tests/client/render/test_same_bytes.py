"""Statement and page are the same bytes under another Python, another locale and another hash seed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest
from assay.testing import Forge

from tests.client.render.planted import full, replicated, source_of

CLIENT = Path(__file__).parents[3] / "client"

OTHERS = ("python3.12", "python3.13", "python3.14")
"""Interpreters beside the one that runs the tests; the client asks for 3.11 or newer."""

WRITE = """
import json, locale, sys
from assay import canonical, catalogue
from assay.render.page import render
from assay.render.rules import Rules
from assay.render.source import Source
locale.setlocale(locale.LC_ALL, "")
given = json.load(open(sys.argv[1], encoding="utf-8"))
given["entries"] = {name: catalogue.parse_entry(one) for name, one in given["entries"].items()}
given["doubts"] = tuple(map(tuple, given["doubts"]))
given["rules"] = Rules(**given["rules"])
sys.stdout.buffer.write(canonical.dumps(given["statement"]) + b"\\n" + render(Source(**given)))
"""


@pytest.fixture
def given(forge: Forge, tmp_path: Path) -> Path:
    """Return a file with what a page is made of: the client's own readers of keys are no part of this."""
    source = source_of(forge, full(forge))
    file = tmp_path / "given.json"
    told = {
        "statement": source.statement,
        "bundle_sha256": source.bundle_sha256,
        "entries": {name: one.raw for name, one in source.entries.items()},
        "request": source.request,
        "doubts": source.doubts,
        "rules": asdict(source.rules),
        "replicated": replicated(),
    }
    file.write_text(json.dumps(told))
    return file


def write(python: str, given: Path, **change: str) -> bytes:
    environment = {**os.environ, "PYTHONPATH": str(CLIENT), "PYTHONDONTWRITEBYTECODE": "1", **change}
    command = [python, "-c", WRITE, str(given)]
    ended = subprocess.run(command, env=environment, cwd=given.parent, capture_output=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout


@cache
def another_python() -> str | None:
    """Return an interpreter of another minor version; one that is there and does not start is none."""
    # Version managers keep interpreters side by side, and only one of them on PATH.
    beside = [str(path) for path in sorted(Path(sys.base_prefix).parent.glob("3.1[2-9]*/bin/python3"))]
    ask = f"import sys; sys.exit(not (3, 11) <= sys.version_info[:2] != {tuple(sys.version_info[:2])})"
    for path in [*map(shutil.which, OTHERS), *beside]:
        if path and subprocess.run([path, "-c", ask], capture_output=True, check=False).returncode == 0:
            return path
    return None


def turkish(folder: Path) -> dict[str, str]:
    """Return the setting of a locale in which I has no i and 0.5 is 0,5; nothing where it cannot be made."""
    if shutil.which("localedef") is None:
        return {}
    made = subprocess.run(
        ["localedef", "-i", "tr_TR", "-f", "UTF-8", str(folder / "tr_TR.UTF-8")], capture_output=True, check=False
    )
    return {"LOCPATH": str(folder), "LC_ALL": "tr_TR.UTF-8"} if made.returncode == 0 else {}


def test_hash_seed_and_locale_change_no_byte(given: Path, tmp_path: Path) -> None:
    # C is not UTF-8: a file or pipe opened without an encoding would differ, and so would lower() and strftime().
    plain = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    tongues = [{"LC_ALL": "C"}, {"LC_ALL": "C.UTF-8"}, turkish(tmp_path)]
    settings = [{"PYTHONHASHSEED": str(at % 2), **plain, **one} for at, one in enumerate(tongues) if one]
    (same,) = {write(sys.executable, given, **one) for one in settings}
    assert b"<!DOCTYPE html>" in same
    assert not same.isascii(), "a page without a letter outside ASCII shows nothing of encodings"


def test_another_python_writes_the_same_bytes(given: Path) -> None:
    python = another_python()
    if python is None:
        pytest.skip(f"no second interpreter on this machine: none of {', '.join(OTHERS)} starts")
    assert write(python, given) == write(sys.executable, given)
