"""Everything an attempt works with, passed in: tests pass fakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sandbox.cell import Cell
from service.blobs import BlobStore
from service.rules.states import BACKOFF_BASE_MS, STRIKES_MAX
from service.store.engine import Store
from service.worker.code import Guest
from service.worker.promises import Promise
from service.worker.record import Installed


class Catalogue(Protocol):
    """What checks exist; `assay.catalogue.Catalogue` is one."""

    def entry(self, name: str) -> Promise | None:
        """Return a check's entry."""
        ...


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Everything an attempt works with."""

    store: Store
    blobs: BlobStore
    cell: Cell
    guest: Guest
    catalogue: Catalogue
    work_dir: Path
    worker: str
    """This worker's name, for operators."""
    lease_s: float
    memory_bytes: int | None = None
    """Memory limit of one cell; None takes the sandbox's default."""
    threads: int = 1
    """Threads a cell is ordered to use."""
    backoff_base_ms: int = BACKOFF_BASE_MS
    strikes_max: int = STRIKES_MAX
    """Strikes after which a job is given up."""
    caps_lifted: bool = False
    """Whether neither attempts nor strikes are counted out (`service.rules.states.next_step`)."""
    draining: Callable[[], bool] = lambda: False
    """Says whether running cells must be killed and their jobs given back."""
    image: Callable[[], Installed | None] = lambda: None
    """What the image of container cells holds; None where no cell is one."""
    on_fenced: Callable[[], None] = lambda: None
    """Counts attempts whose lease was over before they ended."""
