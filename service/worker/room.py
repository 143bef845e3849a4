"""Whether this host's disk has room for another attempt: under the floor nothing is leased, and what runs goes on."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from service.rules.limits import disk_floor

log = logging.getLogger("assay.worker")


class Room:
    """Looks at the disk that attempts write their inputs and results to.

    Args:
        folder: on that disk; made by the first attempt, until then what it will lie in is looked at.
        floor_bytes: free bytes that are left alone; None takes the default.
        development: whether the default is development's.
    """

    def __init__(self, folder: Path, floor_bytes: int | None, *, development: bool) -> None:
        self._folder, self._floor_bytes, self._development = folder, floor_bytes, development
        self._had = True

    def __call__(self) -> bool:
        """Say whether another job may be leased now; told to the log when it changes."""
        disk = shutil.disk_usage(next(one for one in (self._folder, *self._folder.parents) if one.exists()))
        floor = disk_floor(disk.total, self._floor_bytes, development=self._development)
        has = disk.free >= floor
        if has is not self._had:
            if has:
                log.info("%d bytes of the disk are free again: jobs are leased", disk.free)
            else:
                log.error(
                    "%d bytes of the disk are free, the floor is %d: nothing is leased until space is freed",
                    disk.free,
                    floor,
                )
        self._had = has
        return has
