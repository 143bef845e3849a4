"""The self-check of cells in containers: the suite of `sandbox.suite`, by the contract of a cell alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox import selfcheck
from sandbox.cell import Proof
from sandbox.container import profile
from sandbox.ground import Host

if TYPE_CHECKING:
    from sandbox.container import ContainerCell


def prove(cell: ContainerCell) -> Proof:
    """Run the cases of the self-check in containers, beside controls on this host.

    Raises:
        CellRefused: selfcheck_open or selfcheck_void with the case's id; or a layer that could not be armed.
        CellFailed: the machine failed.
    """
    settings = cell.settings
    host = Host(
        interpreter=Path(sys.executable),
        work_dir=settings.work_dir,
        environment=lambda kind: profile.environment(kind, settings.cpus),
        landlock_abi=cell.abi,
    )
    rows = selfcheck.check(cell, host, kinds=profile.KINDS)
    profiles = {kind: profile.digest(settings.engine, settings.runtime, kind) for kind in profile.KINDS}
    return selfcheck.proof(rows, version=cell.version(), profiles=profiles, backend="container")
