"""How a run is told."""

from __future__ import annotations

from .fuzzers import Tried


def line(tried: Tried) -> str:
    """Return one row of the table."""
    return (
        f"fuzz {tried.name:20} {tried.inputs:8} inputs  {tried.accepted:7} accepted  "
        f"{tried.seconds:6.1f} s  slowest {tried.slowest_s * 1000:6.1f} ms  nothing found"
    )
