"""`assay-server cron`: what it prints is what schedules do, and what it cannot read is named."""

from __future__ import annotations

import pytest

from service.main.cli import main


def test_the_fires_across_a_change_of_the_clocks_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cron", "30 2 * * *", "Europe/Berlin", "--from", "2026-03-28T12:00Z", "--count", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2026-03-29T01:00Z  2026-03-29 03:00 CEST",
        "2026-03-30T00:30Z  2026-03-30 02:30 CEST",
    ]


def test_a_calendar_that_never_fires_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cron", "0 0 30 2 *", "UTC", "--from", "2026-01-01"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "within 5 years" in told.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["1 2 3", "UTC"], "EXPR has 3 fields"),
        (["* * * * *", "Mars"], "ZONE is no IANA time zone"),
        (["* * * * *", "UTC", "--from", "tomorrow"], "--from 'tomorrow' is no moment"),
        (["* * * * *", "UTC", "--from", "9999-12-31"], "outside the years"),
        (["* * * * *", "UTC", "--count", "0"], "--count 0 is outside"),
        (["* * * * *", "UTC", "--count", "10001"], "--count 10001 is outside"),
    ],
)
def test_what_cannot_be_read_is_named(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cron", *arguments]) == 3
    assert says in capsys.readouterr().err
