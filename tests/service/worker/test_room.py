"""A disk below its floor: nothing is leased, it is said once, and work goes on when space returns."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from service.rules.limits import GIB, disk_floor
from service.worker.room import Room


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Set how many bytes of a disk of 1 TiB are free."""

    def set_free(count: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(total=1 << 40, free=count))

    return set_free


def test_floor_is_the_larger_of_5_percent_and_10_gib() -> None:
    assert disk_floor(1 << 40, None, development=False) == (1 << 40) // 20
    assert disk_floor(100 * GIB, None, development=False) == 10 * GIB
    assert disk_floor(1 << 40, None, development=True) == GIB
    assert disk_floor(1 << 40, 7, development=False) == 7


def test_no_lease_below_the_floor_and_again_above_it(
    free: Callable[[int], None], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    room = Room(tmp_path, 1000, development=False)
    with caplog.at_level(logging.INFO, "assay.worker"):
        for count, has in ((1000, True), (999, False), (1, False), (1000, True)):
            free(count)
            assert room() is has
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "999 bytes" in told[0]
    assert "floor is 1000" in told[0]


def test_a_fresh_workers_folder_is_not_there_yet_and_that_is_no_death(tmp_path: Path) -> None:
    """The first attempt makes it; a second worker of a server died of each of its knocks."""
    assert Room(tmp_path / "work-worker2" / "deeper", 0, development=True)()
    assert not list(tmp_path.iterdir())
