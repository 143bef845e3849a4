"""Print the rows of this folder as JSON: run by the unprivileged launcher."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict

from sandbox.bubblewrap import BubblewrapCell, BubblewrapSettings
from sandbox.ground import planted
from sandbox.selfcheck import host_of

from . import less, refusals


def rows() -> list[dict[str, object]]:
    """Return the rows of this process's own user."""
    cell = BubblewrapCell(BubblewrapSettings(site_packages=()))
    try:
        with planted(host_of(cell)) as ground:
            made = [*less.rows(cell, ground), *refusals.rows(ground)]
    finally:
        cell.close()
    launcher = "root" if os.geteuid() == 0 else "user"
    return [{"launcher": launcher, **asdict(one)} for one in made]


if __name__ == "__main__":
    json.dump({"rows": rows()}, sys.stdout)
