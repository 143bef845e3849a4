"""Warm starts: a cell is armed and has the release's libraries imported before its order is known.

Each such spare is a process of its own, started like any other cell, behind the same wall, and serves one order: it is
never reused, and never forked from a process that has seen another audit. The order's inputs are put into a folder that
is mounted read-only already; its limits are lowered from within; then the gate looks at everything, as it does at any
other cell, and only then anything of the order runs. Where no spare fits, the cell starts cold.
"""

from __future__ import annotations

from sandbox.warm.cell import WarmCell

__all__ = ["WarmCell"]
