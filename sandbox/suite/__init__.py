"""The adversarial suite: what is tried on a cell, what must become of it, and what shows that it works outside."""

from __future__ import annotations

from sandbox.suite.case import Case, Row
from sandbox.suite.run import run_cases
from sandbox.suite.table import CASES

__all__ = ["CASES", "Case", "Row", "run_cases"]
