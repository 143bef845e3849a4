"""The attack matrix: every case under both launchers, root and an unprivileged user, as a table or as JSON."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sandbox.bubblewrap import BubblewrapCell
from sandbox.ground import planted
from sandbox.selfcheck import host_of, probes_sha256
from sandbox.suite import launches, run_cases

SYSTEM_PYTHON = Path("/usr/bin/python3")
NOBODY = "65534"
_LIMIT_S = 300
GOOD = frozenset({"denied", "contained", "killed", "not_applicable"})


def rows_here(cell: BubblewrapCell) -> list[dict[str, Any]]:
    """Return the rows of this process's own user: every case that needs nothing but this package.

    Raises:
        CellRefused: a layer could not be armed.
    """
    bare = BubblewrapCell(replace(cell.settings, site_packages=()))
    try:
        with planted(host_of(bare)) as ground:
            rows = run_cases(bare, ground=ground)
            rows += launches.rows(bare, ground)
    finally:
        bare.close()
    launcher = "root" if os.geteuid() == 0 else "user"
    return [{"launcher": launcher, **asdict(row)} for row in sorted(rows, key=lambda row: (row.id, row.kind))]


def rows_unprivileged(bwrap: Path, program: Path | None = None) -> tuple[list[dict[str, Any]], str | None]:
    """Run the cases once more as nobody, by the system's interpreter on a copy that everybody may read.

    Args:
        bwrap: absolute path.
        program: a folder to copy beside this package and to run as a module in place of `sandbox report`; it prints
            the same JSON.

    Returns:
        The rows, or the reason why there are none.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None or not SYSTEM_PYTHON.exists():
        return [], "skipped, because: " + ("no setpriv" if setpriv is None else f"no {SYSTEM_PYTHON}")
    root = Path(tempfile.mkdtemp(prefix="assay-matrix-"))
    try:
        root.chmod(0o755)
        for folder in (Path(__file__).parent, *([program] if program else [])):
            shutil.copytree(folder, root / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in root.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        module = [program.name] if program else ["sandbox", "report", "--json", "--here-only", "--bwrap", str(bwrap)]
        return _as_nobody(setpriv, root, module)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _as_nobody(setpriv: str, root: Path, module: list[str]) -> tuple[list[dict[str, Any]], str | None]:
    try:
        done = subprocess.run(
            [setpriv, "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", str(SYSTEM_PYTHON), "-s", "-S", "-B",
             "-m", *module],
            cwd=root, env={"LANG": "C.UTF-8"}, capture_output=True, timeout=_LIMIT_S, check=False,
        )  # fmt: skip
        rows: list[dict[str, Any]] = json.loads(done.stdout)["rows"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        return [], f"could not run: {error.__class__.__name__}"
    return rows, None


def collect(cell: BubblewrapCell, *, here_only: bool = False) -> tuple[list[dict[str, Any]], str | None]:
    """Return the rows of both launchers, and why those of the unprivileged one are missing.

    Raises:
        CellRefused: a layer could not be armed for this process's own user.
    """
    rows = rows_here(cell)
    if os.geteuid() != 0 or here_only:
        return rows, None
    more, reason = rows_unprivileged(cell.settings.bwrap)
    return [*rows, *more], reason


def document(rows: Sequence[Mapping[str, Any]], reason: str | None) -> dict[str, Any]:
    """Return the matrix as JSON values: no times, no pids."""
    return {
        "schema": "assay-matrix/v1",
        "probes_sha256": probes_sha256(),
        "cases": sorted({str(row["id"]) for row in rows}),
        "rows": [dict(row) for row in rows],
        "user": reason,
    }


def report(cell: BubblewrapCell, *, here_only: bool, as_json: bool) -> int:
    """Print the matrix of the cases that need nothing but this package; return 0 when every one held, 1 otherwise.

    Raises:
        CellRefused: a layer could not be armed for this process's own user.
    """
    rows, reason = collect(cell, here_only=here_only)
    if as_json:
        sys.stdout.write(json.dumps(document(rows, reason)) + "\n")
        return int(not held(rows, reason))
    return write(rows, reason, here_only=here_only)


def held(rows: Sequence[Mapping[str, Any]], reason: str | None) -> bool:
    """Tell whether no row is open or void, and the unprivileged launcher was not skipped for an error."""
    return all(row["word"] in GOOD for row in rows) and not (reason or "").startswith("could not")


def write(rows: Sequence[Mapping[str, Any]], reason: str | None, *, here_only: bool) -> int:
    """Print rows as lines, and how many held as the last one; return the exit code."""
    for row in rows:
        line = f"{row['launcher']:5} {row['id']:4} {row['kind']:9} {row['attack']}; control: {row['control']}"
        sys.stdout.write(f"{line}; expected: {row['expected']}; observed: {row['word']}, {row['observed']}\n")
    if os.geteuid() != 0 and not here_only:
        sys.stdout.write("root  skipped, because: not root\n")
    if reason:
        sys.stdout.write(f"user  {reason}\n")
    applicable = [row for row in rows if row["word"] != "not_applicable"]
    sys.stdout.write(f"{len(rows) - len(applicable)} rows not applicable, each with its reason\n")
    sys.stdout.write(f"{sum(row['word'] in GOOD for row in applicable)}/{len(applicable)} contained\n")
    return int(not held(rows, reason))
