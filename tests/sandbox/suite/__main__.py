"""The attack matrix with all 45 cases: `python -m tests.sandbox.suite [--json] [--out FILE]`.

The last line is "n/n contained"; the exit code is not zero when a row is open or void, or a case has no row.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sandbox import matrix
from sandbox.bubblewrap import BubblewrapCell, BubblewrapSettings
from tests.sandbox.suite import named, results, walls
from tests.sandbox.suite.walls.__main__ import rows as walls_rows

CASES = tuple(f"S{number:02}" for number in range(1, 46))


def collect() -> tuple[list[dict[str, Any]], str | None]:
    """Return every row of both launchers, and why those of the unprivileged one are missing."""
    cell = BubblewrapCell(BubblewrapSettings(site_packages=()))
    try:
        rows, reason = matrix.collect(cell)
        rows += walls_rows()
        if os.geteuid() == 0:
            more, other = matrix.rows_unprivileged(cell.settings.bwrap, Path(walls.__file__).parent)
            rows += more
            reason = reason or other
    finally:
        cell.close()
    # No cell is launched by these: they are the same under either launcher.
    rows += [{"launcher": "any", **asdict(row)} for row in (*results.rows(), *named.rows())]
    return sorted(rows, key=lambda row: (row["id"], row["launcher"], row["kind"])), reason


def main() -> int:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    given = parser.parse_args()
    rows, reason = collect()
    text = json.dumps(matrix.document(rows, reason), indent=1, sort_keys=True) + "\n"
    if given.out:
        given.out.write_text(text)
    missing = sorted(set(CASES) - {row["id"] for row in rows})
    if given.json:
        sys.stdout.write(text)
        return int(bool(missing) or not matrix.held(rows, reason))
    for one in missing:
        sys.stdout.write(f"any   {one} has no row: nothing is shown\n")
    return max(matrix.write(rows, reason, here_only=False), int(bool(missing)))


if __name__ == "__main__":
    sys.exit(main())
