"""The house of `calendars`, made new for each test from one migrated database."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.scheduler.calendars import Calendars, calendars
from tests.service.store.planting import new_store


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("empty")
    new_store(folder).close()
    return folder / "assay.db"


@pytest.fixture
def house(tmp_path: Path, empty: Path) -> Iterator[Calendars]:
    shutil.copy(empty, tmp_path / "assay.db")
    with calendars(tmp_path, "2026-03-28T00:00") as made:
        yield made
