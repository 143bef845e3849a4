"""How the C library keeps memory in a process that receives many megabyte messages at once."""

from __future__ import annotations

import ctypes

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8
"""Names of glibc's malloc.h (mallopt(3))."""

LARGE = 256 << 10
"""Bytes from which a block is given back at once. Left alone, glibc raises this to the size of what was freed last, and
keeps messages of 1 MiB in the arenas of a dozen threads."""

ARENAS = 2
"""Measured with 16 parallel uploads of 32 MiB, on a busy machine: 177 to 280 MiB over an idle process (237 in
`benchmarks/service_upload.json`), 280 to 350 with glibc's own choice; the bound is 256."""


def bound_memory() -> None:
    """Have freed messages given back; does nothing where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)
        mallopt(M_ARENA_MAX, ARENAS)
