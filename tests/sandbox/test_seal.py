"""A seal goes into the report, so it tells no more of a run than it has to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.service.worker.scripted import SEAL


@pytest.mark.parametrize(
    ("left", "cap", "shown"),
    [
        (0, 9000, 0),
        (1, 9000, 1024),
        (1024, 9000, 1024),
        (1025, 9000, 2048),
        (8500, 9000, 9000),  # never above the cap that held
        (9001, 9000, 9216),
    ],
)
def test_the_exact_number_of_bytes_that_left_is_not_shown(left: int, cap: int, shown: int) -> None:
    """A program picks it freely: it would be a number of its own in every signed report."""
    told = replace(SEAL, output_bytes=left, output_cap=cap).to_json()
    assert told["output"] == {"bytes": shown, "cap": cap}
