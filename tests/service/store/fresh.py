"""An empty database of this release's revision, made by its migrations once for each process of tests."""

from __future__ import annotations

import functools
from pathlib import Path
from tempfile import TemporaryDirectory

from service.store.migrations import migrate


def migrated(file: Path) -> str:
    """Lay a migrated SQLite database at a path; return its address. A copy costs a hundredth of the migrations."""
    file.write_bytes(_bytes())
    return f"sqlite:///{file}"


@functools.cache
def _bytes() -> bytes:
    with TemporaryDirectory() as folder:
        file = Path(folder, "assay.db")
        migrate(f"sqlite:///{file}")
        return file.read_bytes()
