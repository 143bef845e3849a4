"""The order of the whole run: what starts a server tree comes first, so that no core idles at the end."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put end-to-end files first; within a file and among the others nothing moves."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)
