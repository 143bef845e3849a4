"""Two-party consent over the wire: refusals first, then a run under an approval, waiting, spending and revoking."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from assay.api.v1 import (
    approvals_pb2,
    audits_pb2,
    audits_pb2_grpc,
    reports_pb2,
    reports_pb2_grpc,
)
from sqlalchemy import update

from service.rules.states import AuditState
from service.scheduler.approvals import Approvals
from service.store.approval_keys import KeyTaken, revoke_key
from service.store.tables import audit, job, outbox
from service.store.tables_around import approval_use
from tests.service.api.access_world import Owner
from tests.service.api.conftest import House, told
from tests.service.api.consenting import acme_model, approvals, ask, count, get, revoke
from tests.service.api.finish import complete, set_state

State = audits_pb2.Audit.State


@pytest.fixture
async def owner(house: House) -> Owner:
    """Acme owns a model; bolt wants to audit it."""
    made = Owner("acme", "ola")
    made.enter(house)
    return made


async def test_digest_probe_reveals_nothing(house: House, owner: Owner) -> None:
    """Who knows the digest of a foreign model hears what it would of one that nobody has, waiting included."""
    foreign = await acme_model(house)
    await owner.approve(house, foreign, "nobody-here")  # a grant to others changes nothing
    absent = "models/" + "0" * 64

    def blotted(raw: bytes, name: str) -> bytes:
        return raw.replace(name.removeprefix("models/").encode(), b"#" * 64)

    cases: list[dict[str, Any]] = [{}, {"checks": [{"check": "checks/hold"}], "base_model": foreign}]
    for fields in cases:
        pair = [await told(ask(house, name, **fields)) for name in (foreign, absent)]
        assert pair[0].reason in ("UNKNOWN_MODEL", "BAD_BASE")
        if not fields:
            assert blotted(pair[0].raw, foreign) == blotted(pair[1].raw, absent)
    named = [await told(ask(house, name, approvals=[f"{name}/approvals/{'1' * 32}"])) for name in (foreign, absent)]
    assert named[0].raw == named[1].raw
    assert named[0].reason == "NOT_PERMITTED"
    own = await house.send_model("ben")
    base: dict[str, Any] = {"checks": [{"check": "checks/hold"}]}
    bases = [await told(ask(house, own, base_model=name, **base)) for name in (foreign, absent)]
    assert bases[0].raw == bases[1].raw
    waits = [await ask(house, name, waits=True) for name in (foreign, absent)]
    assert [one.state for one in waits] == [State.STATE_AWAITING_APPROVAL] * 2
    for one in waits:
        for field in ("name", "submitted_at", "etag", "request_sha256"):
            one.ClearField(field)
    raws = [one.SerializeToString(deterministic=True) for one in waits]
    assert blotted(raws[0], foreign) == blotted(raws[1], absent)


@pytest.mark.parametrize("ended", [AuditState.AWAITING_APPROVAL, AuditState.CANCELLED])
async def test_wait_tells_an_owner_of_the_same_tenant_nothing_of_the_model(house: House, ended: AuditState) -> None:
    """Neither while it lasts nor afterwards: whoever sees one of two audits learns which model exists."""
    foreign, absent = await acme_model(house), "models/" + "0" * 64
    waits = [(await ask(house, name, waits=True)).name for name in (foreign, absent)]
    if ended is AuditState.CANCELLED:
        for name in waits:
            await house.stub(audits_pb2_grpc.AuditsStub, "ben").CancelAudit(audits_pb2.CancelAuditRequest(name=name))
    answers = [await told(get(house, name, "bea")) for name in waits]
    assert answers[0].raw == answers[1].raw
    listed = await house.stub(audits_pb2_grpc.AuditsStub, "bea").ListAudits(audits_pb2.ListAuditsRequest())
    assert not listed.audits


async def test_unsigned_misplaced_or_incomplete_approval_is_refused(house: House, owner: Owner) -> None:
    name, other = await acme_model(house), await acme_model(house)
    stub = approvals(house, "ola")

    def create(envelope: bytes, parent: str = name) -> Any:
        return stub.CreateApproval(approvals_pb2.CreateApprovalRequest(parent=parent, envelope=envelope))

    stranger = Owner("acme", "ola").envelope(name, "bolt")  # a key that no operator entered
    answer = await told(create(stranger))
    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "BAD_SIGNATURE")
    answer = await told(create(b"{}"))
    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "BAD_APPROVAL")
    answer = await told(create(owner.envelope(other, "bolt")))
    assert answer.reason == "BAD_APPROVAL"
    assert answer.details["BadRequest"].field_violations[0].field == "envelope.payload.model"
    assert (await told(create(owner.envelope(name, "bolt"), parent="models/1"))).reason == "BAD_RESOURCE_NAME"
    assert count(house, approval_use) == 0


async def test_run_under_an_approval_is_counted_once_and_seen_by_both(house: House, owner: Owner) -> None:
    name = await acme_model(house)
    kept = await owner.approve(house, name, "bolt", max_runs=1)
    made = await ask(house, name)
    assert made.state == State.STATE_QUEUED
    assert (await told(ask(house, name))).reason == "APPROVAL_SPENT"
    read = await approvals(house, "ben").GetApproval(approvals_pb2.GetApprovalRequest(name=kept.name))
    assert (read.used, read.max_runs, read.grantee) == (1, 1, "bolt")
    assert read.envelope == kept.envelope
    assert (await get(house, made.name, "ola")).model == name
    complete(house, made.name, {"report.sigstore.json": b"signed"})
    request = reports_pb2.GetReportRequest(name=f"{made.name}/reports/r1")
    for principal in ("ben", "ola"):
        assert (await house.stub(reports_pb2_grpc.ReportsStub, principal).GetReport(request)).files
    # An auditor of the owner's tenant did not ask, and is no owner.
    assert (await told(get(house, made.name, "ada"))).reason == "NOT_PERMITTED"
    call = house.stub(audits_pb2_grpc.AuditsStub, "ben").WatchAudit(audits_pb2.WatchAuditRequest(name=made.name))
    used = [one.approval_used async for one in call if one.WhichOneof("event") == "approval_used"]
    assert [(one.approval, one.used, one.max_runs) for one in used] == [(kept.name, 1, 1)]


async def test_mismatch_names_everything(house: House, owner: Owner) -> None:
    name = await acme_model(house)
    await owner.approve(house, name, "bolt", access=(), output_cap_bytes=10)
    pairs = await house.send(b"{}\n", "ben")
    fields: dict[str, Any] = {"checks": [{"check": "checks/probe"}], "data": [{"role": "pairs", "blob": pairs}]}
    answer = await told(ask(house, name, **fields))
    assert (answer.code, answer.reason) == ("FAILED_PRECONDITION", "APPROVAL_MISMATCH")
    named = [one.field for one in answer.details["BadRequest"].field_violations]
    assert named == ["audit.checks[0]", "audit.data[0]", "audit.access", "audit.limits.output_bytes"]


async def test_owner_role_audits_its_own_models_alone(house: House, owner: Owner) -> None:
    name = await acme_model(house)
    await owner.approve(house, name, "bolt")
    assert (await told(ask(house, name, "bea"))).reason == "UNKNOWN_MODEL"
    assert (await ask(house, name, "ola")).state == State.STATE_QUEUED


async def test_claimed_access_is_at_least_what_the_checks_need(house: House) -> None:
    name = await house.send_model("ada")
    for access in (["weights"], ["everything"]):
        assert (await told(ask(house, name, "ada", access=access))).reason == "BAD_ACCESS"
    assert list((await ask(house, name, "ada")).access) == ["activations"]


async def test_approval_of_another_model_is_a_mismatch(house: House, owner: Owner) -> None:
    name, other = await acme_model(house), await acme_model(house)
    kept = await owner.approve(house, other, "bolt")
    assert (await told(ask(house, name, approvals=[kept.name]))).reason == "APPROVAL_MISMATCH"


async def test_audit_waits_until_an_approval_fits(house: House, owner: Owner) -> None:
    name = await acme_model(house)
    made = await ask(house, name, waits=True)
    assert made.state == State.STATE_AWAITING_APPROVAL
    assert count(house, outbox) == 0, "nothing is registered before the owner consents"
    listed = await house.stub(audits_pb2_grpc.AuditsStub, "ola").ListAudits(audits_pb2.ListAuditsRequest())
    assert [one.name for one in listed.audits] == [made.name], "the owner sees who waits"
    await owner.approve(house, name, "bolt", access=())
    assert (await get(house, made.name)).state == State.STATE_AWAITING_APPROVAL
    await owner.approve(house, name, "bolt", max_runs=1)
    assert (await get(house, made.name)).state == State.STATE_QUEUED
    assert count(house, outbox) == 1
    assert count(house, approval_use) == 1


async def test_audit_that_names_its_approval_runs_under_no_other(house: House, owner: Owner) -> None:
    """Not by waiting either: what a named one does not allow now, it never will."""
    name = await acme_model(house)
    spent = await owner.approve(house, name, "bolt", max_runs=1)
    await ask(house, name, approvals=[spent.name])
    answer = await told(ask(house, name, approvals=[spent.name], waits=True))
    assert answer.reason == "APPROVAL_SPENT"
    await owner.approve(house, name, "bolt")
    assert (await told(ask(house, name, approvals=[spent.name], waits=True))).reason == "APPROVAL_SPENT"


async def test_approval_named_for_an_own_model_is_not_dropped(house: House) -> None:
    name = await acme_model(house)
    answer = await told(ask(house, name, "ada", approvals=[f"{name}/approvals/{'1' * 32}"]))
    assert answer.reason == "APPROVAL_MISMATCH"
    assert answer.details["BadRequest"].field_violations[0].field == "audit.approvals"


async def test_owner_has_so_many_approvals_that_allow_something(
    house: House, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await acme_model(house)
    monkeypatch.setattr("service.store.approvals.LIVE_MAX", 1)
    kept = await owner.approve(house, name, "bolt")
    answer = await told(owner.approve(house, name, "bolt"))
    assert (answer.code, answer.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_APPROVALS")
    await revoke(house, kept.name)
    await owner.approve(house, name, "bolt")


async def test_approval_releases_no_more_than_its_runs_oldest_first(house: House, owner: Owner) -> None:
    name = await acme_model(house)
    made = [(await ask(house, name, waits=True)).name for _ in range(3)]
    with house.store.begin() as connection:
        for at, one in enumerate(made):
            digits = one.removeprefix("audits/")
            connection.execute(update(audit).where(audit.c.id == digits).values(submitted_at=at + 1))
    await owner.approve(house, name, "bolt", max_runs=2)
    states = [(await get(house, one)).state for one in made]
    assert states == [State.STATE_QUEUED, State.STATE_QUEUED, State.STATE_AWAITING_APPROVAL]


async def test_waiting_audit_expires(house: House, owner: Owner) -> None:
    name = await acme_model(house)
    made, young = await ask(house, name, waits=True), await ask(house, name, waits=True)
    with house.store.begin() as connection:
        digits = made.name.removeprefix("audits/")
        connection.execute(update(audit).where(audit.c.id == digits).values(submitted_at=1))
    Approvals(house.store, wait_ms=3_600_000).step()
    ended = await get(house, made.name)
    assert (ended.state, ended.state_reason) == (State.STATE_CANCELLED, "APPROVAL_EXPIRED")
    assert (await get(house, young.name)).state == State.STATE_AWAITING_APPROVAL


async def test_ended_approval_allows_nothing_and_stops_what_is_not_leased(house: House, owner: Owner) -> None:
    name = await acme_model(house)
    await owner.approve(house, name, "bolt", not_after=datetime(2001, 1, 1, tzinfo=UTC))
    answer = await told(ask(house, name))
    assert answer.reason == "APPROVAL_MISMATCH"
    assert "ended at 2001-01-01" in answer.message
    kept = await owner.approve(house, name, "bolt")
    made = await ask(house, name, approvals=[kept.name])
    from service.store.tables_around import approval

    with house.store.begin() as connection:
        connection.execute(update(approval).values(not_after=1))
    Approvals(house.store).step()
    ended = await get(house, made.name)
    assert (ended.state, ended.state_reason) == (State.STATE_CANCELLED, "APPROVAL_EXPIRED")


async def test_revocation_stops_what_waits_and_cancels_what_runs(house: House, owner: Owner) -> None:
    name = await acme_model(house)
    kept = await owner.approve(house, name, "bolt")
    queued, running, measured = [(await ask(house, name)).name for _ in range(3)]
    for one, state in ((running, AuditState.RUNNING), (measured, AuditState.RUNNING), (measured, AuditState.SIGNING)):
        set_state(house, one, state)
    with house.store.begin() as connection:
        connection.execute(update(job).where(job.c.audit == running.removeprefix("audits/")).values(state="LEASED"))
    ended = await revoke(house, kept.name)
    assert ended.HasField("revoked_at")
    assert (await told(revoke(house, kept.name))).reason == "ALREADY_REVOKED"
    found = {one: await get(house, one) for one in (queued, running, measured)}
    assert (found[queued].state, found[queued].state_reason) == (State.STATE_CANCELLED, "APPROVAL_REVOKED")
    assert (found[running].state, found[running].state_reason) == (State.STATE_CANCELLING, "APPROVAL_REVOKED")
    assert found[measured].state == State.STATE_SIGNING, "what was read before, was read with consent"
    assert (await told(ask(house, name))).reason == "APPROVAL_MISMATCH"


async def test_same_document_signed_again_revives_nothing(house: House, owner: Owner) -> None:
    name = await acme_model(house)
    envelope = owner.envelope(name, "bolt", max_runs=1)
    stub = approvals(house, "ola")
    first = await stub.CreateApproval(approvals_pb2.CreateApprovalRequest(parent=name, envelope=envelope))
    reformatted = json.dumps(json.loads(envelope), indent=1).encode()
    second = await stub.CreateApproval(approvals_pb2.CreateApprovalRequest(parent=name, envelope=reformatted))
    assert first == second
    await ask(house, name)
    assert (await told(ask(house, name))).reason == "APPROVAL_SPENT"
    await revoke(house, first.name)
    third = await stub.CreateApproval(approvals_pb2.CreateApprovalRequest(parent=name, envelope=envelope))
    assert third.HasField("revoked_at")


async def test_revoked_key_ends_what_it_signed(house: House, owner: Owner) -> None:
    name = await acme_model(house)
    kept = await owner.approve(house, name, "bolt")
    made = await ask(house, name)
    with house.store.read() as connection:
        from service.store.approvals import keys_of

        (key,) = keys_of(connection, "acme")
    assert revoke_key(house.settings.database_url, key.key_id) == (kept.name.rpartition("/")[2],)
    assert (await get(house, made.name)).state_reason == "APPROVAL_REVOKED"
    assert (await told(ask(house, name))).reason == "APPROVAL_MISMATCH"
    with pytest.raises(KeyTaken):
        owner.enter(house)
    assert revoke_key(house.settings.database_url, key.key_id) is None


async def test_approvals_are_paged(house: House, owner: Owner) -> None:
    name = await acme_model(house)
    made = {(await owner.approve(house, name, "bolt")).name for _ in range(3)}
    seen, token = set(), ""
    while True:
        request = approvals_pb2.ListApprovalsRequest(parent=name, page_size=2, page_token=token)
        page = await approvals(house, "ben").ListApprovals(request)
        seen |= {one.name for one in page.approvals}
        token = page.next_page_token
        if not token:
            break
    assert seen == made
