"""Which class an attempt's end is of: pure, from what the cell's outcome or the host's exception says."""

from __future__ import annotations

from collections.abc import Mapping

from sandbox.cell import Outcome
from sandbox.errors import CellFailed, CellRefused
from service.blobs import BlobError
from service.rules.logs import escaped
from service.rules.states import ExitClass
from service.worker.errors import HostFault

BY_WHY: Mapping[str, ExitClass] = {
    "wall": ExitClass.TIME_LIMIT,
    "cpu": ExitClass.TIME_LIMIT,
    "memory": ExitClass.MEMORY_LIMIT,
    "processes": ExitClass.LIMIT_HIT,
    "output_cap": ExitClass.LIMIT_HIT,
    "log_flood": ExitClass.LIMIT_HIT,
    "host_lost": ExitClass.HOST_FAULT,
}
"""`Outcome.why` but for `cancelled`, whose reason only the worker knows."""


def class_of_outcome(outcome: Outcome) -> ExitClass | None:
    """Return the class of a cell's end; None if it left a document to parse, or was killed on our order."""
    if outcome.why == "cancelled":
        return None
    if outcome.why is not None:
        return BY_WHY[outcome.why]
    if outcome.ended != "exited" or outcome.status != 0:
        return ExitClass.CELL_CRASHED
    return None


HOST_FAULTS = (HostFault, CellFailed, CellRefused, BlobError, OSError, MemoryError)
"""The machine's fault, tried again elsewhere or later."""


ORDER_AT_FAULT = frozenset({"input_digest", "limit_invalid", "profile_invalid"})
"""Refusals that blame this one order and say nothing about the wall: another order may run here."""


def lost_isolation(error: BaseException) -> bool:
    """Say whether this host can run no cell any more.

    `not_armed` comes here only when other cells were not armed either: see `service.worker.cells`.
    """
    return isinstance(error, CellRefused) and error.code not in ORDER_AT_FAULT


def class_of_error(error: BaseException) -> ExitClass | None:
    """Return the class of a host's exception; None if it is a bug, which must end the process."""
    if lost_isolation(error):
        return ExitClass.ISOLATION_UNAVAILABLE
    return ExitClass.HOST_FAULT if isinstance(error, HOST_FAULTS) else None


def note_of(outcome: Outcome) -> str:
    """Return what an operator wants to know of a cell's end; it never leaves the operator."""
    end = f"{outcome.seal.stage} cell: {outcome.ended} {outcome.status} {outcome.why or ''}"
    return escaped(f"{outcome.log_tail}\n{end}".strip())
