"""The attack matrix: every case under both launchers, root and an unprivileged user, as a table or as JSON."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sandbox.bubblewrap import BubblewrapCell
from sandbox.selfcheck import run_cases

SYSTEM_PYTHON = Path("/usr/bin/python3")
NOBODY = "65534"
_LIMIT_S = 120
GOOD = frozenset({"denied", "contained", "killed", "not_applicable"})


def rows_here(cell: BubblewrapCell) -> list[dict[str, Any]]:
    """Return the rows of this process's own user."""
    launcher = "root" if os.geteuid() == 0 else "user"
    return [{"launcher": launcher, **asdict(row)} for row in run_cases(cell)]


def rows_unprivileged(bwrap: Path) -> tuple[list[dict[str, Any]], str | None]:
    """Run the cases once more as nobody, by the system's interpreter on a copy that everybody may read.

    Returns:
        The rows, or the reason why there are none.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None or not SYSTEM_PYTHON.exists():
        return [], "skipped, because: " + ("no setpriv" if setpriv is None else f"no {SYSTEM_PYTHON}")
    root = Path(tempfile.mkdtemp(prefix="assay-matrix-"))
    try:
        root.chmod(0o755)
        shutil.copytree(Path(__file__).parent, root / "sandbox", ignore=shutil.ignore_patterns("__pycache__"))
        for path in (root / "sandbox", *(root / "sandbox").rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        return _as_nobody(setpriv, root, bwrap)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _as_nobody(setpriv: str, root: Path, bwrap: Path) -> tuple[list[dict[str, Any]], str | None]:
    try:
        done = subprocess.run(
            [setpriv, "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", str(SYSTEM_PYTHON), "-s", "-S", "-B",
             "-m", "sandbox", "report", "--json", "--here-only", "--bwrap", str(bwrap)],
            cwd=root, env={"LANG": "C.UTF-8"}, capture_output=True, timeout=_LIMIT_S, check=False,
        )  # fmt: skip
        rows: list[dict[str, Any]] = json.loads(done.stdout)["rows"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        return [], f"could not run: {error.__class__.__name__}"
    return rows, None


def report(cell: BubblewrapCell, *, here_only: bool, as_json: bool) -> int:
    """Print the matrix; return 0 when every case held, 1 otherwise.

    Raises:
        CellRefused: a layer could not be armed for this process's own user.
    """
    rows = rows_here(cell)
    reason: str | None = None
    if os.geteuid() == 0 and not here_only:
        more, reason = rows_unprivileged(cell.settings.bwrap)
        rows += more
    held = sum(row["word"] in GOOD for row in rows)
    failed = held != len(rows) or (reason or "").startswith("could not")
    if as_json:
        sys.stdout.write(json.dumps({"schema": "assay-matrix/v1", "rows": rows, "user": reason}) + "\n")
        return int(failed)
    for row in rows:
        line = f"{row['launcher']:5} {row['id']:15} control: {row['control']:45} expected: {row['expected']:58}"
        sys.stdout.write(f"{line} observed: {row['word']}, {row['observed']}\n")
    if os.geteuid() != 0 and not here_only:
        sys.stdout.write("root  skipped, because: not root\n")
    if reason:
        sys.stdout.write(f"user  {reason}\n")
    applicable = [row for row in rows if row["word"] != "not_applicable"]
    sys.stdout.write(f"{sum(row['word'] in GOOD for row in applicable)}/{len(applicable)} contained\n")
    return int(failed)
