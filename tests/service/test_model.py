"""One life of audits, as an oracle tells it and as every store tells it.

The oracle is a few dictionaries: what may be leased, who holds what, what ended how. Every step is taken in each store
and must have the same effect there; at the end the stores' rows are the oracle's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import Connection, create_engine, event, select
from sqlalchemy.pool import StaticPool

from service.rules.names import BlobName
from service.rules.states import AuditState, ExitClass, Outcome
from service.store import audits, endings, jobs, outbox, tables, tables_around, uploads
from service.store.engine import Store, StoreFenced, open_store
from service.store.events import events_after
from service.store.jobs import Beat, Ending, Lease
from service.store.migrations import migrate
from service.store.schema import metadata
from tests.service.store import postgres
from tests.service.store.planting import SHA, registration, submit


def in_memory() -> Store:
    """SQLite without a file: one connection, so no two writers."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _entry: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys=ON").close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.get_execution_options().get("assay_writer"):
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    metadata.create_all(engine)
    return Store(engine)


@dataclass
class Told:
    """What the oracle knows of one audit."""

    state: str = "QUEUED"
    registered: bool = False
    job: str = "QUEUED"
    token: int = 0
    strikes: int = 0
    tries: int = 0
    ends: list[str] = field(default_factory=list)
    events: int = 1
    beats: int = 0


STORES: dict[str, Store] = {}
"""Set by `kept`."""


class Lives(RuleBasedStateMachine):
    """Audits of one job each: submitted, registered, leased, beaten for, ended, cancelled, sealed, reaped."""

    keys = Bundle("keys")
    leases = Bundle("leases")

    @initialize()
    def begin(self) -> None:
        self.told: dict[str, Told] = {}
        self.debts: dict[str, list[str]] = {}
        self.grants: set[tuple[str, str]] = set()
        for store in STORES.values():
            empty(store)

    def each(self, step: Any) -> Any:
        """Take a step in every store; return what they agree on."""
        found = {}
        for name, store in STORES.items():
            try:
                with store.begin() as connection:
                    found[name] = step(connection)
            except StoreFenced:
                found[name] = "fenced"
        answers = list(found.values())
        assert all(one == answers[0] for one in answers), found
        return answers[0]

    @rule(target=keys, attempts_max=st.integers(1, 4))
    def submits(self, attempts_max: int) -> tuple[str, int]:
        n = len(self.told)
        key = self.each(lambda connection: submit(connection, n, attempts_max=attempts_max))
        self.told[key] = Told()
        self.debts[key] = ["register"]
        return key, attempts_max

    @rule(key=keys)
    def registers(self, key: tuple[str, int]) -> None:
        one = self.told[key[0]]
        done = self.each(lambda connection: audits.register(connection, key[0], registration()))
        assert done is not one.registered
        if done:
            one.registered, one.events = True, one.events + 1
            self.debts[key[0]].append("publish" if one.state == "QUEUED" else "void")

    @rule(target=leases, key=keys)
    def lease(self, key: tuple[str, int]) -> Lease | None:
        one = self.told[key[0]]
        held: Lease | None = self.each(lambda connection: jobs.lease(connection, key[0], "w"))
        may = one.registered and one.job == "QUEUED" and one.state in ("QUEUED", "RUNNING")
        assert (held is not None) is may
        if held is not None:
            one.events += 1 + (one.state == "QUEUED")
            one.token, one.tries = one.token + 1, one.tries + 1
            one.state, one.job, one.beats = "RUNNING", "LEASED", 0
            assert (held.token, held.tries) == (one.token, one.tries)
            assert held.attempts_max == key[1]
        return held

    def holds(self, held: Lease) -> bool:
        one = self.told[held.audit]
        return one.job == "LEASED" and one.token == held.token

    @rule(held=leases)
    def beats(self, held: Lease | None) -> None:
        if held is None:
            return
        heard = self.each(lambda connection: jobs.beat(connection, held))
        if not self.holds(held):
            assert heard is Beat.FENCED
            return
        self.told[held.audit].beats += 1
        assert heard is (Beat.CANCEL if self.told[held.audit].state == "CANCELLING" else Beat.GO)

    @rule(held=leases)
    def finalises(self, held: Lease | None) -> None:
        if held is None:
            return
        ending = Ending(exit_class=ExitClass.OK)
        done = self.each(
            lambda connection: jobs.finalise(connection, held, ending, record_sha256=SHA, outcome=Outcome.MEASURED)
        )
        one = self.told[held.audit]
        if not self.holds(held) or one.state != "RUNNING":
            assert done == "fenced"
            return
        one.state, one.job, one.events = "SIGNING", "DONE", one.events + 2
        one.ends.append("OK")
        self.debts[held.audit].append("sign")

    @rule(held=leases, why=st.sampled_from([ExitClass.HOST_FAULT, ExitClass.DRAINED, ExitClass.CANCELLED]))
    def ends(self, held: Lease | None, why: ExitClass) -> None:
        if held is None:
            return
        one = self.told[held.audit]
        if why is ExitClass.CANCELLED and (one.state != "CANCELLING" or not self.holds(held)):
            return  # a worker ends so only when it has heard of it
        done = self.each(lambda connection: endings.end(connection, held, Ending(exit_class=why)))
        if not self.holds(held):
            assert done == "fenced"
            return
        self.over(held.audit, why, held.attempts_max)

    @rule(key=keys, stale=st.booleans())
    def reaps(self, key: tuple[str, int], stale: bool) -> None:
        one = self.told[key[0]]
        beat = one.beats + stale
        done = self.each(lambda connection: endings.take_expired(connection, key[0], one.token, beat))
        assert (done is not None) is (one.job == "LEASED" and not stale)
        if done is not None:
            self.over(key[0], ExitClass.WORKER_LOST, key[1])

    def over(self, key: str, why: ExitClass, attempts_max: int) -> None:
        """An attempt ended without a result."""
        one = self.told[key]
        one.ends.append(why.value)
        one.events += 1
        strike = why in (ExitClass.HOST_FAULT, ExitClass.WORKER_LOST)
        one.strikes += strike
        if one.state == "CANCELLING":
            one.state, one.job, one.events = "CANCELLED", "DROPPED", one.events + 1
            self.debts[key].append("void")
        elif one.strikes >= 3 or one.tries >= attempts_max:
            one.state, one.job, one.events = "FAILED", "DEAD", one.events + 1
            self.debts[key].append("void")
        elif strike:
            one.job = "WAITING"
        else:
            one.job = "QUEUED"
            self.debts[key].append("publish")

    @rule(key=keys)
    def queues_again(self, key: tuple[str, int]) -> None:
        one = self.told[key[0]]
        done = self.each(lambda connection: endings.end_waiting(connection, key[0], one.token))
        assert done is (one.job == "WAITING")
        if done:
            one.job = "QUEUED"
            self.debts[key[0]].append("publish")

    @rule(key=keys)
    def cancels(self, key: tuple[str, int]) -> None:
        one = self.told[key[0]]
        said = self.each(lambda connection: audits.cancel(connection, key[0]))
        if one.state in ("CANCELLING", "CANCELLED"):
            assert said == one.state
        elif one.state not in ("QUEUED", "RUNNING"):
            assert said is None
        elif one.job == "LEASED":
            assert said is AuditState.CANCELLING
            one.state, one.events = "CANCELLING", one.events + 1
        else:
            assert said is AuditState.CANCELLED
            one.state, one.job, one.events = "CANCELLED", "DROPPED", one.events + 1
            if one.registered:
                self.debts[key[0]].append("void")

    @rule(key=keys)
    def seals(self, key: tuple[str, int]) -> None:
        one = self.told[key[0]]
        if one.state not in ("SIGNING", "COMPLETED"):
            return
        sealed = audits.SealedReport(files=[{"path": "a", "sha256": SHA, "size": 1}], key_id="k")
        done = self.each(lambda connection: audits.seal(connection, key[0], one.token, sealed))
        assert done is (one.state == "SIGNING")
        if done:
            one.state, one.events = "COMPLETED", one.events + 1

    @rule(tenant=st.sampled_from(["t", "u"]), n=st.integers(0, 3))
    def sends(self, tenant: str, n: int) -> None:
        name = BlobName(f"{n:064x}", n + 1)
        self.each(lambda connection: uploads.grant(connection, tenant, name))
        self.grants.add((tenant, name.sha256))
        for who in ("t", "u"):
            found = self.each(lambda connection, who=who: bool(uploads.granted(connection, who, [name])))
            assert found is ((who, name.sha256) in self.grants)

    @rule(key=keys)
    def settles(self, key: tuple[str, int]) -> None:
        """The oldest debt of all is paid, once."""

        def pay(connection: Connection) -> tuple[str, str, bool, bool] | None:
            first = outbox.owed(connection, ("register", "publish", "sign", "void"), limit=1)
            if not first:
                return None
            return (
                first[0].kind,
                first[0].audit,
                outbox.settle(connection, first[0].id),
                outbox.settle(connection, first[0].id),
            )

        paid = self.each(pay)
        if paid is None:
            assert not any(self.debts.values())
            return
        kind, owner, once, twice = paid
        assert (once, twice) == (True, False)
        assert self.debts[owner].pop(0) == kind

    @invariant()
    def rows_are_what_the_oracle_says(self) -> None:
        for name, store in STORES.items():
            with store.read() as connection:
                rows = connection.execute(
                    select(
                        tables.audit.c.id, tables.audit.c.state, tables.job.c.state.label("job"), tables.job.c.strikes,
                        tables.audit.c.last_sequence,
                    ).join(tables.job, tables.job.c.audit == tables.audit.c.id)
                ).all()  # fmt: skip
            found = {row.id: (row.state, row.job, row.strikes, row.last_sequence) for row in rows}
            told = {
                key: (one.state, one.job, one.strikes, one.events) for key, one in getattr(self, "told", {}).items()
            }
            assert found == told, name

    def teardown(self) -> None:
        for store in STORES.values():
            with store.read() as connection:
                for key, one in getattr(self, "told", {}).items():
                    told = events_after(connection, key, 0, limit=1000)
                    assert [entry.sequence for entry in told] == list(range(1, one.events + 1))
                    ended = connection.execute(
                        select(tables.attempt.c.exit_class)
                        .where(tables.attempt.c.audit == key, tables.attempt.c.exit_class.is_not(None))
                        .order_by(tables.attempt.c.n)
                    ).scalars()
                    assert list(ended) == one.ends
                    journal = tables_around.journal
                    numbers = connection.execute(
                        select(journal.c.sequence).where(journal.c.audit == key).order_by(journal.c.seq)
                    ).scalars()
                    told_numbers = list(numbers)
                    assert told_numbers == list(range(1, len(told_numbers) + 1))
                    results = connection.execute(
                        select(tables.result.c.token).where(tables.result.c.audit == key)
                    ).all()
                    assert len(results) == (one.state in ("SIGNING", "COMPLETED"))


def empty(store: Store) -> None:
    """Remove every row; far cheaper than another database for every example."""
    with store.begin() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())


@contextmanager
def kept(folder: Path, *, need_postgresql: bool) -> Iterator[None]:
    """Open a store of every kind for the machine."""
    url = f"sqlite:///{folder}/assay.db"
    migrate(url)
    STORES.update(memory=in_memory(), sqlite=open_store(url))
    server = postgres.server()
    if server is None and need_postgresql:
        pytest.skip(postgres.WITHOUT)
    if server is not None:
        STORES["postgresql"] = open_store(server.migrated())
    try:
        yield
    finally:
        for store in STORES.values():
            store.close()
        STORES.clear()


def run(examples: int, steps: int) -> None:
    told = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    run_state_machine_as_test(Lives, settings=told)


def test_stores_live_as_the_oracle_says(tmp_path: Path) -> None:
    with kept(tmp_path, need_postgresql=False):
        run(3, 12)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_store_lives_as_the_oracle_says(tmp_path: Path) -> None:
    with kept(tmp_path, need_postgresql=True):
        run(200, 50)


def test_a_store_that_grants_to_everybody_contradicts_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: one wrong answer of a store is found."""
    monkeypatch.setattr(uploads, "granted", lambda _connection, _tenant, names: set(names))
    STORES.update(memory=in_memory())
    try:
        with pytest.raises(AssertionError):
            run(10, 10)
    finally:
        STORES.clear()
