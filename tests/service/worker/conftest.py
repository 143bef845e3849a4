from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.store.planting import new_store
from tests.service.worker.scripted import House, house


@pytest.fixture
def place(tmp_path: Path) -> Iterator[House]:
    store = new_store(tmp_path)
    yield house(store, tmp_path)
    store.close()
