"""A worker's process round a scripted cell: `worker_child.py FOLDER BROKER SCRIPT`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from sandbox.cell import Cancelled, CodeMount, OnStep, Order, Outcome, Proof
from sandbox.errors import CellFailed, CellRefused
from service.worker.code import Guest
from service.worker.process import WorkerSettings, run
from tests.service.worker.scripted import Script, ScriptedCell, good, until_cancelled

LEASE_S = 1.5
SILENCE_S = 6.0


def hang(order: Order, on_step: OnStep, cancelled: Cancelled) -> Outcome:
    print("in the cell", flush=True)
    return until_cancelled(order, on_step, cancelled)


def refuse(_order: Order, _on_step: OnStep, _cancelled: Cancelled) -> Outcome:
    raise CellRefused("userns_disabled")


def unkillable(_order: Order, _on_step: OnStep, _cancelled: Cancelled) -> Outcome:
    raise CellFailed("cell_unkillable")


class Unproven(ScriptedCell):
    def prove(self) -> Proof:
        raise CellRefused("bwrap_missing")


SCRIPTS: Mapping[str, Script] = {
    "good": good,
    "hang": hang,
    "refuse": refuse,
    "unkillable": unkillable,
    "unproven": good,
}


def main(folder: Path, broker: str, script: str) -> None:
    cell = (Unproven if script == "unproven" else ScriptedCell)(SCRIPTS[script])
    cell.kill_bound_s = LEASE_S / 6  # it is a function of this process, and looks at the order to stop all the time
    run(
        WorkerSettings(
            database_url=f"sqlite:///{folder}/assay.db",
            blob_dir=folder / "blobs",
            work_dir=folder / "work",
            broker_url=broker or None,
            broker_silence_s=SILENCE_S,
            slots=1,
            cell=cell,
            guest=Guest(module="guest", code=(CodeMount(name="guest.py", source=folder / "guest.py"),)),
            isolation_file=folder / "isolation.json",
            lease_s=LEASE_S,
            catalogue_file=folder / "catalogue.json",
            backoff_base_ms=50,
            ready=lambda: print("ready", flush=True),
            profile="development",
        )
    )
    print("ended", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
