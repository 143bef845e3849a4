"""Filters for system calls: tables of our own, assembled by us, loaded in two layers."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from typing import Literal

from sandbox.cell import Kind
from sandbox.errors import CellRefused
from sandbox.filters.assembler import assemble
from sandbox.filters.tables import INNERS, OUTER

__all__ = ["MACHINE", "digest", "inner", "outer", "program"]

MACHINE = "x86_64"
"""The only machine that has a table."""


@cache
def program(layer: Literal["outer", "inner"], kind: Kind) -> bytes:
    """Return a filter whatever the machine: for the profile, which is equal on every host."""
    return assemble((OUTER if layer == "outer" else INNERS)[kind])


def outer(kind: Kind) -> bytes:
    """Return the filter that bubblewrap loads, as `struct sock_filter[]`.

    Raises:
        CellRefused: arch_unsupported.
    """
    _check_machine()
    return program("outer", kind)


def inner(kind: Kind) -> bytes:
    """Return the filter that the shim stacks on it before anything untrusted is imported.

    Raises:
        CellRefused: arch_unsupported.
    """
    _check_machine()
    return program("inner", kind)


def digest(program: bytes) -> str:
    """Return the SHA-256 in hex; stands in the profile and in the seal."""
    return hashlib.sha256(program).hexdigest()


def _check_machine() -> None:
    machine = os.uname().machine
    if machine != MACHINE:
        raise CellRefused("arch_unsupported", machine)
