"""Plants audits in a database, as the api and the signer would have written them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert

from service.rules.states import ExitClass, Outcome
from service.store import journal
from service.store.audits import register
from service.store.engine import Store, now_ms, open_store
from service.store.events import append_event
from service.store.jobs import Ending, Lease, finalise, lease
from service.store.outbox import owe, owed, settle
from service.store.tables import audit, job
from tests.service.store import postgres
from tests.service.store.fresh import migrated

SHA = "ab" * 32


def new_store(folder: Path, *, busy_ms: int = 10_000) -> Store:
    """Make a database; with ASSAY_TEST_STORE=postgresql on PostgreSQL, so that any suite can be run there."""
    if os.environ.get("ASSAY_TEST_STORE") == "postgresql":
        server = postgres.server()
        assert server is not None, postgres.WITHOUT
        return open_store(server.migrated(), busy_ms=busy_ms)
    return open_store(migrated(folder / "assay.db"), busy_ms=busy_ms)


def audit_id(n: int) -> str:
    return hashlib.sha256(str(n).encode()).hexdigest()[:32]


def submit(
    connection: Connection, n: int = 0, *, request_sha256: str = SHA, attempts_max: int = 8, capability: str = "cpu"
) -> str:
    key = audit_id(n)
    values: Mapping[str, Any] = {
        "id": key,
        "tenant": "t",
        "principal": "p",
        "model_sha256": SHA,
        "checks": "scripted",
        "request_sha256": request_sha256,
        "submission": b"",
        "state": "QUEUED",
        "attempts_max": attempts_max,
        "last_sequence": 0,
        "submitted_at": now_ms(connection),
    }
    connection.execute(insert(audit).values(values))
    connection.execute(insert(job).values(id=key, audit=key, kind="whole", capability=capability, state="QUEUED"))
    append_event(connection, key, "state_changed", {"state": "QUEUED", "reason": ""})
    told = {"request_id": key, "principal": "p", "attempts_max": attempts_max}
    journal.append(connection, "submitted", audit=key, detail=told)
    owe(connection, "register", key)
    return key


def registration(request_sha256: str = SHA, seed: int = 7) -> dict[str, Any]:
    return {
        "request_sha256": request_sha256,
        "entropy": "00" * 32,
        "seed": seed,
        "seed_mode": "derived",
        "registered_at": "2026-11-21T00:00:00Z",
    }


def registered(store: Store, n: int = 0, **values: Any) -> str:
    with store.begin() as connection:
        key = submit(connection, n, **values)
        register(connection, key, registration(values.get("request_sha256", SHA)))
        for debt in owed(connection, ("register",)):
            settle(connection, debt.id)
    return key


def leased(store: Store, key: str, worker: str = "w1") -> Lease:
    with store.begin() as connection:
        held = lease(connection, key, worker)
    assert held is not None
    return held


def finished(store: Store, held: Lease, *, record_sha256: str = SHA) -> None:
    with store.begin() as connection:
        finalise(
            connection,
            held,
            Ending(exit_class=ExitClass.OK),
            record_sha256=record_sha256,
            outcome=Outcome.MEASURED,
        )
