"""The order of the whole run: what starts a server tree comes first, so that no core idles at the end.

And what a run of several processes can only be told at its end.
"""

from __future__ import annotations

import pytest

from tests.service.api import reasons_told


def pytest_configure(config: pytest.Config) -> None:
    """Have whole runs judged."""
    config.pluginmanager.register(reasons_told.Told(config), reasons_told.NAME)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put end-to-end files first; within a file and among the others nothing moves."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)
