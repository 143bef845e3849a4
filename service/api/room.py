"""The disk's floor, kept although many uploads run at once: what they still owe counts as taken."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from service.api.parts import Part
from service.rules.errors import Refusal


class Room:
    """Free space of one disk. Use it in one event loop, so that asking and taking are one step.

    It knows the uploads of this process alone; those of others are met by `require_floor`, asked as the bytes come.

    Args:
        folder: a folder of the disk.
        floor: the bytes to leave alone, by those of the whole disk.
    """

    def __init__(self, folder: Path, floor: Callable[[int], int]) -> None:
        self._folder = folder
        self._floor = floor
        self._sizes: dict[Part, int] = {}

    def floor(self) -> int:
        """Return the bytes that are left alone."""
        return self._floor(shutil.disk_usage(self._folder).total)

    def require(self, size: int) -> None:
        """Do nothing if so many more bytes leave the disk above its floor once every running upload has ended.

        Raises:
            Refusal: DISK_FULL.
        """
        owed = sum(max(whole - part.written, 0) for part, whole in self._sizes.items())
        self._require(size + owed, "and the blob would take some of them")

    def require_floor(self) -> None:
        """Do nothing if the disk still is above its floor, whoever took the space.

        Raises:
            Refusal: DISK_FULL.
        """
        self._require(0, "and fewer are left")

    @contextmanager
    def taken(self, part: Part, size: int) -> Iterator[None]:
        """Take the space that an upload of `size` bytes still needs, until the block ends.

        Raises:
            Refusal: DISK_FULL.
        """
        self.require(size - part.written)
        self._sizes[part] = size
        try:
            yield
        finally:
            del self._sizes[part]

    def _require(self, size: int, why: str) -> None:
        disk = shutil.disk_usage(self._folder)
        floor = self._floor(disk.total)
        if disk.free - size < floor:
            text = f"The server keeps {floor} bytes of its disk free, {why}."
            raise Refusal("DISK_FULL", text, metadata={"quota": "disk", "limit": str(floor)}, quota="disk")
