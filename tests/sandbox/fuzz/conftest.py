"""Tells after the tests how many inputs were tried."""

from __future__ import annotations

import pytest

LINES = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash.get(LINES, []):
        terminalreporter.write_line(line)


@pytest.fixture
def told(request: pytest.FixtureRequest) -> list[str]:
    """Return the lines to which a run is added."""
    return request.config.stash.setdefault(LINES, [])
