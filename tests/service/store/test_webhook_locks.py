"""Webhooks that are switched off while audits move (PostgreSQL): neither waits for the other for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, text, update

from service.rules.access import Role
from service.rules.retries import Dead
from service.rules.standard_webhooks import Key, Signing
from service.store import deliveries, webhooks
from service.store.audits import cancel
from service.store.deliveries import Lane
from service.store.engine import Store, StoreBusy, now_ms, open_store
from service.store.jobs import lock_audit
from service.store.owing import owe_deliveries
from service.store.tables_around import delivery
from tests.service.store.planting import registered

LANE = Lane("t", "told")
KEY = Key(signing=Signing.HMAC, private=b"k" * 32)


@pytest.fixture
def busy(postgres_url: str) -> Any:
    """A database with a webhook, and two audits of which the first is owed to it."""
    store = open_store(postgres_url)
    keys = [registered(store, n) for n in range(2)]
    with store.begin() as connection:
        webhooks.create_webhook(connection, LANE, "https://x.example/", (), KEY, Role.AUDITOR)
        owe_deliveries(connection, keys[0], "AWAITING_APPROVAL")
    yield store, keys
    store.close()


def _delete(connection: Connection) -> None:
    assert webhooks.delete_webhook(connection, LANE)


def _again(connection: Connection) -> None:
    identifier = connection.execute(text("SELECT id FROM delivery")).scalar_one()
    assert deliveries.redeliver(connection, LANE, identifier)


def _waits(store: Store) -> None:
    """Wait until somebody waits for a lock."""
    until = time.monotonic() + 20
    ask = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
    while True:
        with store.read() as connection:
            if connection.execute(ask).scalar_one():
                return
        assert time.monotonic() < until
        time.sleep(0.01)


def _beside(store: Store, change: Callable[[Connection], None]) -> tuple[threading.Thread, list[BaseException]]:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            with store.begin() as connection:
                change(connection)
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, failures


@pytest.mark.slow
@pytest.mark.parametrize("change", [_delete, _again])
def test_a_step_of_an_audit_and_a_change_of_its_webhook_wait_for_one_another_and_end(busy: Any, change: Any) -> None:
    store, (key, _) = busy
    with store.begin() as connection:
        lock_audit(connection, key)
        thread, failures = _beside(store, change)
        _waits(store)
        cancel(connection, key)  # was a deadlock: that one held the webhook and waited for the audit
    thread.join(30)
    assert not failures


@pytest.mark.slow
def test_a_redelivery_and_a_receiver_that_is_gone_wait_for_one_another_and_end(busy: Any) -> None:
    store, (key, _) = busy
    with store.begin() as connection:
        made = deliveries.claim(connection, LANE, now_ms(connection) + 1000)
    assert made is not None
    ends = Dead("GONE", disables=True)
    with store.begin() as connection:
        lock_audit(connection, key)
        thread, failures = _beside(store, lambda other: _settles(other, made, ends))
        _waits(store)
        _again(connection)
    thread.join(30)
    assert not failures


def _settles(connection: Connection, made: Any, then: Dead) -> None:
    deliveries.settle(connection, made, then, 410, now_ms(connection))


@pytest.mark.slow
def test_what_was_owed_while_a_webhook_was_deleted_has_the_deletion_called_again(
    busy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the locks of the audits and that of the webhook another audit's step may commit."""
    store, (_, other) = busy
    real = deliveries.lock_owed

    def late(connection: Connection, lane: Lane) -> frozenset[str]:
        locked = real(connection, lane)
        with store.begin() as beside:
            owe_deliveries(beside, other, "AWAITING_APPROVAL")
        return locked

    monkeypatch.setattr(webhooks, "lock_owed", late)
    with pytest.raises(StoreBusy), store.begin() as connection:
        webhooks.delete_webhook(connection, LANE)
    monkeypatch.setattr(webhooks, "lock_owed", real)
    with store.begin() as connection:
        connection.execute(update(delivery).values(not_before=0))
        assert webhooks.delete_webhook(connection, LANE)
