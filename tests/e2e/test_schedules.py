"""A schedule on a running server: its minute comes, the audit completes, and its report verifies offline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Server, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow]  # a calendar speaks of minutes, and this clock is the real one


def test_a_schedule_fires_while_its_scheduler_is_killed_and_each_minute_has_one_audit(
    start_server: Callable[..., Server], model: Path, tmp_path: Path
) -> None:
    server = start_server("--lease-s", "6")
    first = server.assay("submit", model, "--check", "clusterability", "--json")
    assert first.status == 0, first.text
    like = first.json()["audit"]
    made = server.assay(
        "schedules", "create", "every-minute", "--cron", "* * * * *", "--zone", "Europe/Berlin", "--like", like,
        "--overlap", "queue", "--json",
    )  # fmt: skip
    assert made.status == 0, made.text

    def fires() -> list[dict[str, str]]:
        found: list[dict[str, str]] = server.assay("schedules", "fires", "every-minute", "--json").json()
        return found

    wait_for(lambda: len(fires()) >= 1, "the first minute comes", 90)
    server.kill("scheduler")
    wait_for(lambda: len(fires()) >= 2, "the second minute comes, to a new scheduler", 90)
    assert server.assay("schedules", "pause", "every-minute").status == 0
    told = fires()
    assert {one["outcome"] for one in told} == {"SUBMITTED"}
    assert len({one["due_at"] for one in told}) == len({one["audit"] for one in told}) == len(told)

    audit = told[-1]["audit"]
    watched = server.assay("watch", audit, "--json")
    assert watched.json()["state"] == "COMPLETED", watched.text + server.logs()  # of random weights, whatever it says
    assert server.assay("report", audit, "--out", tmp_path / "report").status == 0
    checked = server.assay("verify", tmp_path / "report", "--key", server.public_key)
    assert checked.status == 0, checked.text
    listed = [one["name"] for one in server.assay("audits", "--json").json()]
    assert sorted(listed) == sorted([like, *(one["audit"] for one in told)])
