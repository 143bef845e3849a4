"""`assay-server cron EXPR ZONE`: when a calendar fires, by the same rules that schedules fire by. Asks no server."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from typing import Any

from service.main.config import ConfigError
from service.rules.cron import CronMalformed, TimeZoneUnknown, next_fires, parse, time_zone

COUNT_MAX = 10_000
"""More are no answer for a person: a fire every minute for a week."""

_FIRST, _LAST = datetime(1970, 1, 2, tzinfo=UTC), datetime(8900, 1, 1, tzinfo=UTC)
"""What every zone can say of a date."""


def add_command(commands: Any) -> None:
    """Add the command to the server's."""
    cron = commands.add_parser("cron", help="show when a schedule's calendar fires")
    cron.add_argument("expr", metavar="EXPR", help="five fields in quotes, or @hourly, @daily, @weekly, @monthly")
    cron.add_argument("zone", metavar="ZONE", help="IANA time zone, e.g. Europe/Berlin")
    cron.add_argument(
        "--from", dest="first", metavar="T", help="after this moment, e.g. 2026-03-28T00:00Z; default now"
    )
    cron.add_argument("--count", type=int, default=5, help="so many (default: 5)")
    cron.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the fires, one in a line: UTC, then local time.

    Raises:
        ConfigError: calendar, zone, moment or count is wrong.
    """
    try:
        cron, zone = parse(options.expr), time_zone(options.zone)
    except CronMalformed as error:
        raise ConfigError(f"cron: EXPR {error}") from None
    except TimeZoneUnknown as error:
        raise ConfigError(f"cron: ZONE {error}") from None
    if not 1 <= options.count <= COUNT_MAX:
        raise ConfigError(f"cron: --count {options.count} is outside 1 to {COUNT_MAX}")
    after = _moment(options.first)
    found = next_fires(cron, zone, int(after.timestamp()) // 60, options.count)
    for minute in found:
        moment = datetime.fromtimestamp(minute * 60, UTC)
        print(f"{moment:%Y-%m-%dT%H:%MZ}  {moment.astimezone(zone):%Y-%m-%d %H:%M %Z}")
    if len(found) < options.count:
        print(f"assay-server: cron: no further fire within 5 years after {after:%Y-%m-%dT%H:%MZ}", file=sys.stderr)
    return 0 if found else 1


def _moment(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"cron: --from {text[:40]!r} is no moment; write e.g. 2026-03-28T00:00Z") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if not _FIRST <= moment <= _LAST:
        raise ConfigError(f"cron: --from {text[:40]!r} is outside the years 1970 to 8900")
    return moment
