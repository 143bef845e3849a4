"""What all tests of the check share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Keep linear algebra to one thread, as the runtime does: on matrices this small a second one only waits."""
    with threadpool_limits(1):
        yield
