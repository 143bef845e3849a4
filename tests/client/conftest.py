from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[object]:
    """A service in memory; see tests.client.fakes."""
    from tests.client.fakes import start

    folder = tmp_path / "fake"
    folder.mkdir()
    running = start(folder)
    yield running
    running.stop()
