"""Approvals side by side: uses are counted once, strangers crowd nobody out, and transactions wait for one another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from assay import approval
from assay.api.v1 import audits_pb2
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection, event, insert, select, text, update

from service.rules.approvals import Wanted, choose, verify
from service.rules.errors import Refusal
from service.store import approvals, consent
from service.store.approvals import LIVE_MAX, candidates
from service.store.engine import Store, open_store
from service.store.tables import audit, job, model
from service.store.tables_around import approval_key
from tests.service.rules.test_approvals import KEY, OTHER, owner
from tests.service.store.planting import SHA, submit

CHECK = approval.ApprovedCheck(name="scripted", version="1.0", code_sha256="0" * 64, params_sha256=approval.ANY)
WANTED = Wanted(model=SHA, tenant="t", checks=(), data=(), base=None, access=(), output_bytes=1)
GIB = 2**30


def plant(connection: Connection, tenant: str, key: ec.EllipticCurvePrivateKey, *, size: int = 1) -> None:
    """Let a tenant have the model, and a key speak for it."""
    row = {"tenant": tenant, "manifest_sha256": SHA, "bytes": size, "files": 1, "created_at": 1}
    connection.execute(insert(model).values(row))
    told = {"key_id": owner(key).key_id, "tenant": tenant, "public_spki": owner(key).spki, "added_at": 1}
    connection.execute(insert(approval_key).values(told))


def put(connection: Connection, tenant: str, key: ec.EllipticCurvePrivateKey, nonce: int = 0, **changes: Any) -> str:
    """Keep an approval of the model for tenant t; return its id."""
    made = approval.Approval(
        model=SHA,
        grantee="t",
        checks=(CHECK,),
        data=None,
        access=approval.LEVELS,
        output_cap_bytes=65_536,
        lifetime_cap_bytes=2**20,
        max_runs=1,
        not_after=datetime(2999, 1, 1, tzinfo=UTC),
        nonce=f"{nonce:064x}",
    )
    envelope = approval.sign(replace(made, **changes), key)
    signed = verify(envelope, [owner(key)])
    approvals.put(connection, tenant, signed, envelope, signed.id)
    return signed.id


def waiting(connection: Connection, n: int = 0, *, capability: str = "cpu") -> str:
    """Plant an audit that waits for an approval of the model."""
    key = submit(connection, n, capability=capability)
    submission = audits_pb2.Audit(model=f"models/{SHA}").SerializeToString()
    connection.execute(update(audit).where(audit.c.id == key).values(state="AWAITING_APPROVAL", submission=submission))
    return key


def blocked(url: str) -> None:
    """Return once a transaction of this database waits for a lock."""
    store = open_store(url)
    waits = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    until, count = time.monotonic() + 30, 0
    while not count and time.monotonic() < until:
        with store.read() as connection:
            count = connection.execute(waits).scalar_one()
        time.sleep(0.01)  # nothing tells when it waits but asking
    store.close()
    assert count, "nothing waits"


def beside(act: Callable[[], object]) -> Callable[[], list[object]]:
    """Start something in a thread; what is returned waits for it and returns what it returned or raised."""
    came: list[object] = []

    def run() -> None:
        try:
            came.append(act())
        except Exception as error:
            came.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def wait() -> list[object]:
        thread.join(30)
        return came

    return wait


@pytest.mark.slow
def test_runs_counted_side_by_side_are_no_more_than_the_owner_signed(postgres_url: str) -> None:
    store = open_store(postgres_url)
    with store.begin() as connection:
        plant(connection, "acme", KEY)
        put(connection, "acme", KEY)
        first = submit(connection, 1)

    def second() -> int:
        with store.begin() as connection:
            (held,) = candidates(connection, "t", SHA)
            return held.used

    with store.begin() as connection:
        (held,) = candidates(connection, "t", SHA)
        approvals.use(connection, first, held)
        wait = beside(second)
        blocked(postgres_url)
    assert wait() == [1]
    store.close()


@pytest.mark.slow
def test_release_beside_a_submission_that_may_wait_is_no_deadlock(postgres_url: str) -> None:
    """Who submits holds the model's lock and wants the approval's row."""
    store = open_store(postgres_url)
    with store.begin() as connection:
        plant(connection, "acme", KEY)
        kept = put(connection, "acme", KEY)

    def release() -> object:
        with store.begin() as connection:
            return consent.release(connection, kept, lambda _submission, _tenant: WANTED)

    with store.begin() as connection:
        approvals.one_at_a_time(connection, SHA)
        wait = beside(release)
        blocked(postgres_url)
        assert candidates(connection, "t", SHA)
    assert wait() == [()]
    store.close()


def test_stranger_with_the_same_weights_does_not_crowd_out_the_owners_approval(store: Store) -> None:
    with store.begin() as connection:
        plant(connection, "acme", KEY)
        plant(connection, "evil", OTHER)
        kept = put(connection, "acme", KEY)
        spam = [put(connection, "evil", OTHER, nonce, max_runs=0) for nonce in range(1, LIVE_MAX + 1)]
        spam += [put(connection, "evil", OTHER, LIVE_MAX + 1, not_after=datetime(2001, 1, 1, tzinfo=UTC))]
        for one in range(LIVE_MAX + 2, LIVE_MAX + 12):
            spam.append(put(connection, "evil", OTHER, one))
            approvals.mark_revoked(connection, spam[-1])
        assert choose(candidates(connection, "t", SHA), WANTED).signed.id == kept


def test_approvals_of_one_owner_that_allow_something_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approvals, "LIVE_MAX", 3)
    monkeypatch.setattr(approvals, "KEPT_MAX", 5)
    with store.begin() as connection:
        plant(connection, "acme", KEY)
        plant(connection, "evil", OTHER)
        live = [put(connection, "acme", KEY, nonce) for nonce in range(3)]
        with pytest.raises(Refusal) as caught:
            put(connection, "acme", KEY, 3)
        assert (caught.value.reason, caught.value.quota) == ("TOO_MANY_APPROVALS", "approvals")
        assert put(connection, "acme", KEY, 2) == live[2], "the same document asks for no place"
        put(connection, "acme", KEY, 4, grantee="another")
        put(connection, "evil", OTHER, 5)
        for nonce in (6, 7):
            approvals.mark_revoked(connection, live.pop())
            live.insert(0, put(connection, "acme", KEY, nonce))
        approvals.mark_revoked(connection, live.pop())
        with pytest.raises(Refusal, match="5 may be"):
            put(connection, "acme", KEY, 8)


def test_spent_approval_is_still_told_as_spent(store: Store) -> None:
    with store.begin() as connection:
        plant(connection, "acme", KEY)
        put(connection, "acme", KEY)
        approvals.use(connection, submit(connection, 1), candidates(connection, "t", SHA)[0])
        with pytest.raises(Refusal) as caught:
            choose(candidates(connection, "t", SHA), WANTED)
        assert caught.value.reason == "APPROVAL_SPENT"


@pytest.mark.parametrize(
    "look",
    [
        lambda connection, _kept: consent.overdue(connection, wait_ms=1),
        lambda connection, _kept: consent.revoked_but_live(connection),
        lambda connection, kept: consent.release(connection, kept, lambda _submission, _tenant: WANTED),
    ],
)
def test_no_look_at_consent_reads_every_audit_or_run_that_ever_was(
    sqlite: Store, look: Callable[[Connection, str], object]
) -> None:
    """Every 5 s for years, and under the write lock of every new approval."""
    said: list[tuple[str, Any]] = []
    with sqlite.begin() as connection:
        plant(connection, "acme", KEY)
        kept = put(connection, "acme", KEY)
        event.listen(connection, "before_cursor_execute", lambda _c, _k, what, values, *_: said.append((what, values)))
        look(connection, kept)
        plans = [connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {what}", values) for what, values in tuple(said)]
        steps = [str(row[-1]) for plan in plans for row in plan]
    assert [step for step in steps if "ix_audit_unfinished" in step]
    scans = [step for step in steps if step.startswith("SCAN") and "ix_audit_unfinished" not in step]
    assert [step for step in scans if "audit" in step or "approval" in step] == []


@pytest.mark.parametrize(("size", "queue"), [(GIB, "gpu-24g"), (20 * GIB, "gpu-80g")])
def test_audit_that_waited_for_a_model_nobody_had_goes_to_the_queue_that_fits_it(
    store: Store, size: int, queue: str
) -> None:
    with store.begin() as connection:
        key = waiting(connection, capability="gpu-24g")
    with store.begin() as connection:
        plant(connection, "acme", KEY, size=size)
        kept = put(connection, "acme", KEY)
        assert consent.release(connection, kept, lambda _submission, _tenant: WANTED) == (key,)
        assert connection.execute(select(job.c.capability)).scalar_one() == queue
