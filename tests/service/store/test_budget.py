"""What has left about a model is charged once, before release, by a sum that two audits cannot both read."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, delete, select, text, update
from sqlalchemy.dialects import postgresql

from service.rules.states import ExitClass, Outcome, Then
from service.store import budget, endings, jobs
from service.store.budget import CAPS, Caps, Lifetime, Withheld
from service.store.engine import Store, StoreConflict, StoreFenced
from service.store.jobs import Ending, Lease
from service.store.tables import attempt, audit, event, job, outbox, output_charge, output_total, result
from tests.service.store.planting import SHA, audit_id, leased, registered

MODEL = "cd" * 32
SMALL = Caps(auditor=100, model=250)
FULL, REFUSED = "11" * 32, "22" * 32
INSTEAD = Withheld(record_sha256=REFUSED, outcome=Outcome.REFUSED)


def charge(connection: Connection, n: int, bytes_: int, *, principal: str = "p", caps: Caps = SMALL) -> bool:
    return budget.charge(
        connection, audit=audit_id(n), token=1, principal=principal, model_sha256=MODEL, bytes_=bytes_, caps=caps
    )


def charge_alone(store: Store, n: int, bytes_: int, principal: str = "p") -> bool:
    with store.begin() as connection:
        return charge(connection, n, bytes_, principal=principal)


def spent(store: Store, principal: str = "p", model: str = MODEL) -> int:
    with store.read() as connection:
        return budget.lifetime(connection, principal=principal, model_sha256=model).bytes


def test_defaults_are_those_of_the_specification() -> None:
    assert (CAPS.auditor, CAPS.model) == (2**20, 8 * 2**20)


def test_an_auditor_is_stopped_at_the_cap_and_the_charge_stands(store: Store) -> None:
    assert charge_alone(store, 0, 60)
    assert charge_alone(store, 1, 40)  # exactly the cap
    assert not charge_alone(store, 2, 1)
    assert spent(store) == 101
    assert not charge_alone(store, 3, 1)  # what was withheld does not make room again


def test_all_auditors_together_are_stopped_at_the_models_cap(store: Store) -> None:
    assert [charge_alone(store, n, 90, principal=f"p{n}") for n in range(3)] == [True, True, False]
    assert spent(store, "p2") == 90
    with store.read() as connection:
        assert budget.charged(connection, MODEL) == 270


def test_another_model_has_a_budget_of_its_own(store: Store) -> None:
    assert charge_alone(store, 0, 100)
    with store.begin() as connection:
        assert budget.charge(
            connection, audit=audit_id(1), token=1, principal="p", model_sha256="ee" * 32, bytes_=100, caps=SMALL
        )


def test_one_lease_is_charged_once(store: Store) -> None:
    assert charge_alone(store, 0, 10)
    with pytest.raises(StoreConflict):
        charge_alone(store, 0, 10)
    assert spent(store) == 10


def test_a_charge_is_undone_with_its_transaction(store: Store) -> None:
    def crash() -> None:
        with store.begin() as connection:
            charge(connection, 0, 10)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        crash()
    assert spent(store) == 0


@pytest.mark.parametrize(("principal", "bytes_"), [("", 1), ("p", -1)])
def test_what_is_no_charge_is_refused(store: Store, principal: str, bytes_: int) -> None:
    with pytest.raises(ValueError, match="a charge of"), store.begin() as connection:
        charge(connection, 0, bytes_, principal=principal)


def test_an_owner_lowers_and_never_raises(store: Store) -> None:
    with store.begin() as connection:
        told = budget.lower(connection, model_sha256=MODEL, principal="p", cap=30, caps=SMALL)
        assert told == Lifetime(bytes=0, cap=30)
        assert budget.lower(connection, model_sha256=MODEL, principal="q", cap=10**6, caps=SMALL).cap == SMALL.auditor
        assert budget.lower(connection, model_sha256=MODEL, cap=50, caps=SMALL).cap == 50
    assert charge_alone(store, 0, 30)
    assert not charge_alone(store, 1, 1)
    assert not charge_alone(store, 2, 20, principal="q")  # 51 of the model's 50
    with pytest.raises(ValueError, match="a cap"), store.begin() as connection:
        budget.lower(connection, model_sha256=MODEL, cap=-1)


def test_a_cap_lowered_meanwhile_is_read_by_the_charge(store: Store) -> None:
    """The caller may have looked before; the charge looks again."""
    assert charge_alone(store, 0, 20)
    with store.begin() as connection:
        connection.execute(text("UPDATE output_total SET cap = 25 WHERE principal = 'p'"))
    assert not charge_alone(store, 1, 10)


def test_concurrent_audits_cannot_both_pass(store: Store) -> None:
    """Of twelve that would fit alone, as many pass as fit together."""
    passed: list[bool] = []
    together = threading.Barrier(12)

    def one(n: int) -> None:
        together.wait()
        passed.append(charge_alone(store, n, 30))

    threads = [threading.Thread(target=one, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sum(passed), spent(store)) == (3, 360)


def test_charges_lock_rows_on_postgresql_too() -> None:
    """One statement that adds and tells the sum: a second one waits for the first's transaction."""
    kind = postgresql.insert(output_total).values(model_sha256="m", principal="p", bytes=1)
    made = kind.on_conflict_do_update(
        index_elements=["model_sha256", "principal"], set_={"bytes": output_total.c.bytes + kind.excluded.bytes}
    ).returning(output_total.c.bytes)
    said = str(made.compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]
    assert "ON CONFLICT (model_sha256, principal) DO UPDATE SET bytes = (output_total.bytes + excluded.bytes)" in said
    assert said.endswith("RETURNING output_total.bytes")


def finalise(store: Store, held: Lease, bytes_: int, caps: Caps = SMALL) -> bool:
    ending = Ending(exit_class=ExitClass.OK, output_bytes=bytes_)
    with store.begin() as connection:
        return jobs.finalise(
            connection, held, ending, record_sha256=FULL, outcome=Outcome.MEASURED, withheld=INSTEAD, caps=caps
        )


def stored(store: Store, key: str) -> tuple[str, str, str, int, int]:
    """Return the digests of the result and of the attempt that made it, the outcome, and the lifetime told."""
    with store.read() as connection:
        row = connection.execute(select(result).where(result.c.audit == key)).one()
        of_attempt = connection.execute(
            select(attempt.c.result_sha256).where(attempt.c.audit == key, attempt.c.token == row.token)
        ).scalar_one()
        outcome = connection.execute(select(audit.c.outcome).where(audit.c.id == key)).scalar_one()
    return row.sha256, of_attempt, outcome, row.lifetime_bytes, row.lifetime_cap


def test_a_result_that_fits_is_stored_with_the_lifetime_so_far(store: Store) -> None:
    for n, so_far in ((0, 40), (1, 80)):
        key = registered(store, n)
        assert finalise(store, leased(store, key), 40)
        assert stored(store, key) == (FULL, FULL, "MEASURED", so_far, 100)


def test_a_result_over_a_cap_is_withheld_whole(store: Store) -> None:
    key = registered(store)
    assert not finalise(store, leased(store, key), 101)
    assert stored(store, key) == (REFUSED, REFUSED, "REFUSED", 101, 100)
    assert spent(store, model=SHA) == 101


def test_a_charge_without_anything_to_store_instead_is_a_bug(store: Store) -> None:
    held = leased(store, registered(store))
    ending = Ending(exit_class=ExitClass.OK, output_bytes=1)
    with pytest.raises(ValueError, match="stored instead"), store.begin() as connection:
        jobs.finalise(connection, held, ending, record_sha256=FULL, outcome=Outcome.MEASURED)


def test_a_fenced_worker_is_charged_nothing_and_releases_nothing(store: Store) -> None:
    held = leased(store, registered(store))
    with pytest.raises(StoreFenced):
        finalise(store, replace(held, token=held.token + 1), 10)
    assert spent(store, model=SHA) == 0


def test_every_attempts_accepted_result_is_charged(store: Store) -> None:
    """One that was accepted and then lost to the machine was told to nobody; it is charged all the same."""
    key = registered(store)
    held = leased(store, key)
    with store.begin() as connection:
        lost = Ending(exit_class=ExitClass.HOST_FAULT, output_bytes=30)
        assert endings.end(connection, held, lost) is Then.WAIT
        assert endings.end_waiting(connection, held.job, held.token)
    assert finalise(store, leased(store, key), 30)
    assert stored(store, key)[3:] == (60, 100)


def test_an_attempt_without_a_result_is_charged_nothing(store: Store) -> None:
    held = leased(store, registered(store))
    with store.begin() as connection:
        jobs.finalise(
            connection, held, Ending(exit_class=ExitClass.TIME_LIMIT), record_sha256=FULL, outcome=Outcome.FAILED
        )
        assert connection.execute(select(output_charge)).all() == []


def test_charges_survive_their_audit(store: Store) -> None:
    key = registered(store)
    assert finalise(store, leased(store, key), 90)
    with store.begin() as connection:
        for table in (outbox, event, result, attempt, job):
            connection.execute(delete(table).where(table.c.audit == key))
        connection.execute(delete(audit).where(audit.c.id == key))
    other = registered(store, 1)
    assert not finalise(store, leased(store, other), 20)


BASE = "ef" * 32


def charged_pair(store: Store, n: int, bytes_: int, *, model: str, base: str, caps: Caps = SMALL) -> bool:
    held = leased(store, audit_id(n))
    ending = Ending(exit_class=ExitClass.OK, output_bytes=bytes_, weights_sha256=model, base_weights_sha256=base)
    with store.begin() as connection:
        return jobs.finalise(
            connection, held, ending, record_sha256=FULL, outcome=Outcome.MEASURED, withheld=INSTEAD, caps=caps
        )


def totals(store: Store) -> dict[tuple[str, str], int]:
    with store.read() as connection:
        rows = connection.execute(select(output_total.c.model_sha256, output_total.c.principal, output_total.c.bytes))
        return {(row.model_sha256, row.principal): row.bytes for row in rows}


def test_a_result_about_two_models_is_charged_to_both(store: Store) -> None:
    key = registered(store, 0)
    assert charged_pair(store, 0, 40, model=MODEL, base=BASE)
    assert totals(store) == {(one, who): 40 for one in (MODEL, BASE) for who in ("", "p")}
    with store.read() as connection:
        row = connection.execute(select(result).where(result.c.audit == key)).one()
    assert (row.lifetime_bytes, row.lifetime_cap) == (40, 100)
    assert (row.base_lifetime_bytes, row.base_lifetime_cap) == (40, 100)


@pytest.mark.parametrize("spent_one", [MODEL, BASE])
def test_a_spent_budget_of_either_model_withholds_the_result(store: Store, spent_one: str) -> None:
    """Else the cap of a model would end where it is named as another's base."""
    registered(store, 0)
    key = registered(store, 1)
    other = "99" * 32
    assert charged_pair(store, 0, 90, model=spent_one, base=other)
    assert not charged_pair(store, 1, 20, model=MODEL, base=BASE)
    assert stored(store, key)[0] == REFUSED
    assert totals(store)[(spent_one, "p")] == 110


def test_the_same_weights_twice_are_charged_once(store: Store) -> None:
    """A base whose weights are the model's, with another tokenizer, tells of one model."""
    registered(store, 0)
    assert charged_pair(store, 0, 40, model=MODEL, base=MODEL)
    assert totals(store) == {(MODEL, ""): 40, (MODEL, "p"): 40}


def test_an_attempt_without_a_result_is_charged_to_both(store: Store) -> None:
    registered(store, 0)
    held = leased(store, audit_id(0))
    ending = Ending(exit_class=ExitClass.CELL_CRASHED, output_bytes=16, weights_sha256=MODEL, base_weights_sha256=BASE)
    with store.begin() as connection:
        endings.end(connection, held, ending)
    assert totals(store) == {(one, who): 16 for one in (MODEL, BASE) for who in ("", "p")}


def test_two_models_are_always_locked_in_one_order(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """On PostgreSQL an audit of A against B and one of B against A would else wait for one another."""
    seen: list[str] = []
    real = budget.charge

    def watched(connection: Connection, **given: Any) -> bool:
        seen.append(given["model_sha256"])
        return real(connection, **given)

    monkeypatch.setattr(budget, "charge", watched)
    for n, (model, base) in enumerate(((MODEL, BASE), (BASE, MODEL))):
        registered(store, n)
        charged_pair(store, n, 1, model=model, base=base)
    assert seen == [MODEL, BASE, MODEL, BASE]


def test_a_registered_base_is_charged_even_where_its_weights_were_not_read(store: Store) -> None:
    key = registered(store, 0)
    with store.begin() as connection:
        connection.execute(update(audit).where(audit.c.id == key).values(base_sha256=BASE))
    held = leased(store, key)
    with store.begin() as connection:
        endings.end(connection, held, Ending(exit_class=ExitClass.CELL_CRASHED, output_bytes=16))
    assert {model for model, _ in totals(store)} == {SHA, BASE}
