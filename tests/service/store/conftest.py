from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.store.engine import Store
from tests.service.store.planting import new_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = new_store(tmp_path)
    yield opened
    opened.close()
