"""A worker reads a foreign model only on what its owner signed; no row of the database is enough."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from assay import approval
from sqlalchemy import delete, insert, select, update

from service.store import approvals, consent
from service.store.approvals import candidates
from service.store.tables import audit, model, outbox, output_charge
from service.store.tables_around import approval as approval_table
from service.store.tables_around import approval_key, approval_use
from tests.service.rules.test_approvals import KEY, OTHER, owner
from tests.service.worker.scripted import House
from tests.service.worker.test_attempt import classes, record, seen


def foreign(place: House) -> tuple[str, str]:
    """Submit an audit of tenant t whose model only acme has; return the audit and the model's digest."""
    key = place.submit(attempts_max=1)
    with place.store.begin() as connection:
        digest = connection.execute(select(model.c.manifest_sha256)).scalar_one()
        connection.execute(update(model).values(tenant="acme"))
        connection.execute(update(audit).where(audit.c.id == key).values(model_tenant="acme", model_sha256=digest))
        row = {"key_id": owner().key_id, "tenant": "acme", "public_spki": owner().spki, "added_at": 1}
        connection.execute(insert(approval_key).values(row))
    return key, digest


def approved(place: House, key: str, digest: str, signer: Any = KEY, owner_tenant: str = "acme", **changes: Any) -> str:
    """Keep an approval and count this audit's run; return its id."""
    entry: Any = place.bench.catalogue.entry("scripted")
    values: dict[str, Any] = {
        "model": digest,
        "grantee": "t",
        "checks": (approval.ApprovedCheck(
            name="scripted", version="1.0", code_sha256=entry.code_sha256, params_sha256=approval.ANY
        ),),
        "data": None,
        "access": approval.LEVELS,
        "output_cap_bytes": 65_536,
        "lifetime_cap_bytes": 2**20,
        "max_runs": 1,
        "not_after": datetime(2999, 1, 1, tzinfo=UTC),
        "nonce": "5" * 64,
    }  # fmt: skip
    made = approval.Approval(**{**values, **changes})
    envelope = approval.sign(made, signer)
    identifier = approval.open_envelope(envelope).id
    row = {
        "id": identifier, "model_sha256": digest, "owner_tenant": owner_tenant, "grantee_tenant": "t",
        "envelope": envelope, "envelope_sha256": identifier, "max_runs": 1, "not_after": 2**50, "created_at": 1,
    }  # fmt: skip
    with place.store.begin() as connection:
        connection.execute(insert(approval_table).values(row))
        connection.execute(insert(approval_use).values(approval=identifier, audit=key, used_at=1))
    return identifier


def test_run_under_an_approval_measures_and_is_charged_to_the_grantee(place: House) -> None:
    key, digest = foreign(place)
    approved(place, key, digest)
    place.attempt(key)
    assert classes(place, key) == ["OK"]
    with place.store.read() as connection:
        assert connection.execute(select(output_charge.c.principal)).scalars().all() == ["@t"]


def test_foreign_model_without_an_approval_is_never_read(place: House) -> None:
    key, _ = foreign(place)
    place.attempt(key)
    assert classes(place, key) == ["HOST_FAULT"]
    assert not place.cell.readings


def test_row_that_says_the_model_is_ones_own_is_not_enough(place: House) -> None:
    """An api that was taken over writes what it likes; the tenant has not sent this model."""
    key, _ = foreign(place)
    with place.store.begin() as connection:
        connection.execute(update(audit).values(model_tenant="t"))
    place.attempt(key)
    assert classes(place, key) == ["HOST_FAULT"]
    assert not place.cell.readings


@pytest.mark.parametrize(
    "changes",
    [
        {"grantee": "somebody-else"},
        {"checks": ()},
        {"data": ()},
        {"output_cap_bytes": 65_535},
        {"signer": OTHER},
        {
            "checks": (
                approval.ApprovedCheck(
                    name="scripted", version="1.0", code_sha256="0" * 64, params_sha256=approval.ANY
                ),
            )
        },
    ],
)
def test_what_the_owner_did_not_sign_is_never_read(place: House, changes: dict[str, Any]) -> None:
    key, digest = foreign(place)
    approved(place, key, digest, **changes)
    place.attempt(key)
    assert classes(place, key) == ["HOST_FAULT"]
    assert not place.cell.readings


def evil_key(place: House) -> None:
    """Let the key of a tenant speak for it that has nothing to do with the model."""
    with place.store.begin() as connection:
        row = {"key_id": owner(OTHER).key_id, "tenant": "evil", "public_spki": owner(OTHER).spki, "added_at": 1}
        connection.execute(insert(approval_key).values(row))


@pytest.mark.parametrize("named", ["acme", "evil"])
def test_approval_of_a_tenant_that_does_not_own_the_model_is_not_enough(place: House, named: str) -> None:
    """Whichever tenant the audit's row names: the signer has no model, or is not who is named."""
    key, digest = foreign(place)
    evil_key(place)
    approved(place, key, digest, OTHER, owner_tenant="evil")
    with place.store.begin() as connection:
        connection.execute(update(audit).values(model_tenant=named))
    place.attempt(key)
    assert classes(place, key) == ["HOST_FAULT"]
    assert not place.cell.readings


def test_approval_of_a_tenant_whose_model_is_purged_is_not_enough(place: House) -> None:
    key, digest = foreign(place)
    approved(place, key, digest)
    with place.store.begin() as connection:
        connection.execute(update(model).values(deleted_at=1, purged_at=2))
    place.attempt(key)
    assert classes(place, key) == ["HOST_FAULT"]


def test_own_model_that_is_purged_is_not_owned(place: House) -> None:
    """Its weights may be there all the same: another tenant's."""
    key = place.submit(attempts_max=1)
    with place.store.begin() as connection:
        digest = connection.execute(select(model.c.manifest_sha256)).scalar_one()
        connection.execute(update(audit).values(model_sha256=digest))
        connection.execute(update(model).values(deleted_at=1, purged_at=2))
    place.attempt(key)
    assert classes(place, key) == ["HOST_FAULT"]


def test_foreign_base_is_never_read(place: House) -> None:
    """Nobody approves a base: it is the asking tenant's own, whatever the request says."""
    files = {"config.json": b"{}", "model.safetensors": b"another"}
    key = place.submit(attempts_max=1, base=files)
    base = place.put_model(files).digest
    with place.store.begin() as connection:
        moved = update(model).where(model.c.manifest_sha256 == base).values(tenant="acme")
        assert connection.execute(moved).rowcount == 1
    place.attempt(key)
    assert classes(place, key) == ["HOST_FAULT"]
    assert not place.cell.readings


def test_runs_beyond_what_the_owner_signed_are_never_read(place: House) -> None:
    key, digest = foreign(place)
    approved(place, key, digest, max_runs=0)
    place.attempt(key)
    assert classes(place, key) == ["HOST_FAULT"]
    assert not place.cell.readings


def test_envelope_of_another_approval_in_the_row_is_not_enough(place: House) -> None:
    key, digest = foreign(place)
    narrow = approved(place, key, digest, data=())
    with place.store.begin() as connection:
        signed = connection.execute(select(approval_table.c.envelope).where(approval_table.c.id == narrow)).scalar_one()
        wide = replace(approval.read(approval.open_envelope(signed).payload), data=None)
        connection.execute(update(approval_table).values(envelope=approval.sign(wide, KEY)))
    place.attempt(key)
    assert classes(place, key) == ["HOST_FAULT"]


@pytest.mark.parametrize(("ended", "reason"), [(True, "APPROVAL_EXPIRED"), (False, "APPROVAL_REVOKED")])
def test_approval_that_is_over_cancels_instead_of_reading(place: House, ended: bool, reason: str) -> None:
    key, digest = foreign(place)
    past: dict[str, Any] = {"not_after": datetime(2001, 1, 1, tzinfo=UTC)}
    identifier = approved(place, key, digest, **(past if ended else {}))
    if not ended:
        with place.store.begin() as connection:
            approvals.mark_revoked(connection, identifier)
    place.attempt(key)
    found = seen(place, key)
    assert (found.state, found.state_reason) == ("CANCELLED", reason)
    assert not place.cell.readings


def test_lifetime_cap_of_the_owner_withholds_what_is_over_it(place: House) -> None:
    key, digest = foreign(place)
    approved(place, key, digest, lifetime_cap_bytes=1)
    place.attempt(key)
    assert [one["reason"] for one in record(place, key)["answers"]] == ["output_budget"]


def test_nothing_is_published_while_an_audit_waits(place: House) -> None:
    key, digest = foreign(place)
    with place.store.begin() as connection:
        connection.execute(delete(outbox))
        connection.execute(update(audit).values(state="AWAITING_APPROVAL", registered_at=None))
        assert candidates(connection, "t", digest) == ()
        assert consent.overdue(connection, wait_ms=1 << 40) == ()
    place.attempt(key)
    assert classes(place, key) == []
