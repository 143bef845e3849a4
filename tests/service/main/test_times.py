"""Every time of the configuration reaches whoever waits, and one out of its range is named with its limit."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import service.api.process
import service.scheduler.process
import service.worker.process
from service.main import config, journal, roles
from service.rules.approvals import WAIT_MS
from service.rules.schedules import MISFIRE_MS
from service.rules.states import STRIKES_MAX, ExitClass, Then, next_step
from service.scheduler.process import SchedulerSettings, schedule
from service.scheduler.reconciler import RECONCILE_S
from service.store import gc
from service.worker.process import WorkerSettings
from tests.service.main.test_config import server
from tests.service.plants.journals import PLANTS, broken

DAY_MS = 86_400_000


def settings_of(role: str, asked: config.Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what a role is started with."""
    found: list[Any] = []
    monkeypatch.setattr(f"service.{role}.process.run", found.append)
    roles.ROLES[role](asked, lambda: None)
    return found[0]


def test_the_defaults_are_the_specifications(tmp_path: Path) -> None:
    times = server(tmp_path).times
    assert (times.approval_wait_s * 1000, times.misfire_s * 1000) == (WAIT_MS, MISFIRE_MS)
    assert (times.reconcile_s, times.poll_s) == (RECONCILE_S, 0.5)
    assert roles.ages(server(tmp_path)) == gc.Ages()
    assert (server(tmp_path).strikes_max, server(tmp_path).sync_bytes) == (STRIKES_MAX, 64 << 20)


@pytest.mark.parametrize(
    ("key", "least", "most"),
    [
        ("approval_wait_s", 3_600, 30 * 86_400),
        ("misfire_s", 60, 86_400),
        ("idempotency_days", 1, 30),
        ("unreferenced_days", 1, 365),
        ("reconcile_s", 1, 60),
        ("poll_s", 0.1, 10),
        ("strikes_max", 1, 10),
        ("sync_bytes", 1 << 20, 256 << 20),
    ],
)
def test_a_time_out_of_its_range_is_named_with_the_limit(tmp_path: Path, key: str, least: float, most: float) -> None:
    def asked(value: float) -> dict[str, object]:
        return {key: value} if key in config.Server.model_fields else {"times": {key: value}}

    config.dump(server(tmp_path, **asked(least)), tmp_path / "server.toml")
    assert config.load(tmp_path / "server.toml") == server(tmp_path, **asked(least))
    server(tmp_path, **asked(most))
    step = 1 if isinstance(least, int) else 0.05
    for wrong, limit in ((least - step, least), (most + step, most)):
        config.dump(server(tmp_path), tmp_path / "server.toml")
        text = (tmp_path / "server.toml").read_text()
        was = next(line for line in text.splitlines() if line.startswith(f"{key} = "))
        (tmp_path / "server.toml").write_text(text.replace(was, f"{key} = {wrong}"))
        with pytest.raises(config.ConfigError) as refused:
            config.load(tmp_path / "server.toml")
        assert key in str(refused.value)
        assert str(limit) in str(refused.value)


TOLD = {
    "approval_wait_s": 7_200, "misfire_s": 61, "idempotency_days": 3, "unreferenced_days": 30, "reconcile_s": 2,
    "poll_s": 0.25,
}  # fmt: skip


def test_each_time_reaches_the_loop_of_the_scheduler_that_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = server(tmp_path, times=TOLD, strikes_max=5)
    told: SchedulerSettings = settings_of("scheduler", asked, monkeypatch)
    taken: dict[str, Any] = {}

    def noted(name: str) -> Callable[..., Any]:
        real = getattr(service.scheduler.process, name)

        def made(*arguments: Any, **named: Any) -> Any:
            taken[name] = named
            return real(*arguments, **named)

        return made

    for name in ("Approvals", "Fires", "Collector", "Reaper", "Reconciler"):
        monkeypatch.setattr(service.scheduler.process, name, noted(name))
    loops: list[Any] = []
    monkeypatch.setattr(service.scheduler.process, "run_loops", lambda given, _stop: loops.extend(given))
    any_room: Any = object()
    schedule(told, store=any_room, blobs=any_room, signer=any_room, knocker=any_room, stop=threading.Event())
    assert taken["Approvals"] == {"wait_ms": 7_200_000}
    assert taken["Fires"] == {"misfire_ms": 61_000}
    assert taken["Collector"]["ages"] == gc.Ages(idempotency_ms=3 * DAY_MS, unreferenced_ms=30 * DAY_MS)
    assert taken["Reaper"]["strikes_max"] == 5
    assert taken["Reconciler"]["older_s"] == 2
    assert next(one.every_s for one in loops if one.name == "reconciler") == 2


def test_polls_and_strikes_reach_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: WorkerSettings = settings_of("worker", server(tmp_path, times=TOLD, strikes_max=5), monkeypatch)
    assert (told.poll_s, told.strikes_max) == (0.25, 5)
    taken: list[dict[str, Any]] = []
    monkeypatch.setattr(service.worker.process, "PollingQueue", lambda *_given, **named: taken.append(named))
    service.worker.process._source(told, store=None, drain=None)  # type: ignore[arg-type]
    assert taken[0]["poll_s"] == 0.25
    monkeypatch.setattr("service.worker.plugins.operator_catalogue", lambda *_: None)
    drain = service.worker.process.Drain(0.0)
    assert service.worker.process._bench(told, told.guest, None, drain).strikes_max == 5  # type: ignore[arg-type]


def test_syncs_reach_the_api(tmp_path: Path) -> None:
    assert roles.api_limits(server(tmp_path, sync_bytes=1 << 20)).sync_bytes == 1 << 20


@pytest.mark.parametrize(("strikes", "then"), [(1, Then.WAIT), (2, Then.FAIL)])
def test_a_job_is_given_up_at_its_last_strike_and_not_before(strikes: int, then: Then) -> None:
    """With three allowed, the third ends it."""
    lost = ExitClass.WORKER_LOST
    assert next_step(lost, strikes=strikes, attempt=3, attempts_max=9, repeated=0, strikes_max=3) is then
    assert next_step(lost, strikes=strikes, attempt=3, attempts_max=9, repeated=0, strikes_max=4) is Then.WAIT


@pytest.mark.parametrize(("strikes", "status"), [(2, 1), (3, 1), (4, 0)])
def test_a_journal_is_held_against_the_servers_own_strikes(
    strikes: int, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four leases, the first three of them lost: right where four strikes are allowed."""
    planted = broken(next(one for one in PLANTS if one.flaw == "an attempt after three strikes"), seed=1)
    export = io.BytesIO("".join(f"{entry.line()}\n" for entry in planted.entries).encode())
    assert journal.check(export, stored=None, strikes_max=strikes) == status
    assert ("J8" in capsys.readouterr().out) is bool(status)
