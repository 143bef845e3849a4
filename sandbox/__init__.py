"""Isolation: runs programs nobody trusts, behind a wall that was seen armed before they began.

Standard library only; importable by a bare system interpreter (`python3 -I -S -c "import sandbox"`). The backends are
loaded on first use, so that `sandbox.reader` stays light inside a cell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sandbox.cell import Cell, CodeMount, Input, Limit, Order, Outcome, Proof, Seal, Slot, Usage
from sandbox.errors import CellFailed, CellRefused, ResultRejected, SandboxError

if TYPE_CHECKING:
    from sandbox.bubblewrap import BubblewrapCell, BubblewrapSettings
    from sandbox.process import ProcessCell

__all__ = [
    "BubblewrapCell",
    "BubblewrapSettings",
    "Cell",
    "CellFailed",
    "CellRefused",
    "CodeMount",
    "Input",
    "Limit",
    "Order",
    "Outcome",
    "ProcessCell",
    "Proof",
    "ResultRejected",
    "SandboxError",
    "Seal",
    "Slot",
    "Usage",
]


def __getattr__(name: str) -> Any:
    """Load a backend when it is first named."""
    if name in ("BubblewrapCell", "BubblewrapSettings"):
        from sandbox import bubblewrap

        return getattr(bubblewrap, name)
    if name == "ProcessCell":
        from sandbox.process import ProcessCell

        return ProcessCell
    raise AttributeError(f"module 'sandbox' has no attribute {name!r}")
