"""One digest for a set of source files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tree_sha256(root: Path, relative: Sequence[str]) -> str:
    """Return the SHA-256 of the canonical JSON list of [relative path, SHA-256 of the file].

    Args:
        root: folder that the paths start from.
        relative: file paths with forward slashes; their order does not matter, a name twice counts once.

    Raises:
        OSError: a file cannot be read.
    """
    table = [[name, file_sha256(root / name)] for name in sorted(set(relative), key=str.encode)]
    return hashlib.sha256(json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()
