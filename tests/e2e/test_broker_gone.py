"""The broker dies and nobody brings it back: audits that are submitted afterwards end all the same."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from service.queue.standin import SILENCE_S
from tests.e2e.burning import burning
from tests.e2e.fire import wait

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(300)]


def test_without_redis_for_good_a_later_audit_completes_and_runs_once(model: Path) -> None:
    with burning("sqlite", model) as fire:
        with fire.away("redis"):
            audits = [fire.submit() for _ in range(3)]
            began = time.monotonic()
            wait(lambda: {fire.state(one) for one in audits} == {"COMPLETED"}, "every audit ends", SILENCE_S + 40)
            assert time.monotonic() - began > SILENCE_S / 2  # nobody looked before the silence was long enough
            logs = [(fire.tree.data / "logs" / f"{name}.log").read_text() for name in ("worker", "worker2")]
            assert [text.count("looked for in the database") for text in logs] == [1, 1]
        later = fire.submit()  # what the scheduler still owed is knocked for now, and starts nothing
        fire.ends([later])
        assert {fire.state(one) for one in (*audits, later)} == {"COMPLETED"}
        assert [fire.classes(one) for one in (*audits, later)] == [["OK"]] * 4
