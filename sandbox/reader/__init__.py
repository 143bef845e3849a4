"""Strict readers: pure, standard library only, one piece of code for the host, for cells and for checks.

Nothing here executes what it reads, follows a link that a file names, or guesses a format. Every refusal is a
`ReaderError(code, at)` with a code of a closed list.
"""

from __future__ import annotations

from sandbox.reader.error import ReaderError

__all__ = ["ReaderError"]
