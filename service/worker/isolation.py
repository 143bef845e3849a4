"""Whether cells can be isolated here: proven before the first lease, told to operators in one file."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

from sandbox.cell import Cell, Proof
from sandbox.errors import SandboxError

log = logging.getLogger("assay.worker")

AGAIN_S = 60.0
"""How often a worker without isolation tries again: an operator's repair is found within a minute."""


def prove_until(cell: Cell, file: Path, stop: threading.Event, *, again_s: float = AGAIN_S) -> bool:
    """Prove the cell's isolation, again and again until it holds or the worker must stop.

    Args:
        cell: what to prove.
        file: told the state as {"isolation", "detail"}; the API serves it.
        stop: ends the wait.
        again_s: seconds between two tries.

    Returns:
        True if isolation is proven, False if the worker must stop.
    """
    while not stop.is_set():
        if prove(cell, file) is not None:
            return True
        stop.wait(again_s)
    return False


def prove(cell: Cell, file: Path) -> Proof | None:
    """Prove the cell's isolation once and write the outcome down; None if it does not hold."""
    try:
        proof = cell.prove()
    except SandboxError as error:
        log.error("no cell can be isolated here, nothing will be leased: %s", error)
        tell(file, "none", str(error))
        return None
    tell(file, proof.backend, f"{proof.backend} {proof.version}, self-check {proof.sha256}")
    return proof


def tell(file: Path, isolation: str, detail: str) -> None:
    """Write the state whole or not at all."""
    aside = file.with_name(f"{file.name}.new")
    aside.write_text(json.dumps({"isolation": isolation, "detail": detail}) + "\n", encoding="utf-8")
    aside.replace(file)
