"""Reading, listing and cancelling audits."""

from __future__ import annotations

from typing import Any

import pytest
from assay.api.v1 import audits_pb2, audits_pb2_grpc
from sqlalchemy import Table, func, insert, select, update

from service.rules.states import AuditState
from service.store.tables import attempt, audit, event, idempotency, job, outbox
from tests.service.api.conftest import House, told
from tests.service.api.finish import complete, set_state

State = audits_pb2.Audit.State


def _stub(house: House, principal: str = "ada") -> Any:
    return house.stub(audits_pb2_grpc.AuditsStub, principal)


def _count(house: House, table: Table) -> int:
    with house.store.read() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def _nothing_created(house: House) -> bool:
    return not any(_count(house, table) for table in (audit, job, event, outbox, idempotency))


async def test_foreign_and_absent_audits_read_the_same(house: House) -> None:
    made = await house.submit("ada")
    absent = f"audits/{'0' * 32}"
    stub = _stub(house, "ben")
    methods: list[tuple[Any, Any]] = [
        (stub.GetAudit, audits_pb2.GetAuditRequest),
        (stub.CancelAudit, audits_pb2.CancelAuditRequest),
        (stub.WatchAudit, audits_pb2.WatchAuditRequest),
    ]
    for call, kind in methods:
        foreign, missing = await told(call(kind(name=made.name))), await told(call(kind(name=absent)))
        assert foreign.raw == missing.raw
        assert (foreign.code, foreign.reason) == ("PERMISSION_DENIED", "NOT_PERMITTED")
    with house.store.read() as connection:
        assert connection.execute(select(audit.c.cancel_requested)).scalar_one() is False


async def test_operator_sees_state_and_attempts_but_no_results(house: House) -> None:
    made = await house.submit("ada", labels={"team": "red"})
    audit_id = made.name.removeprefix("audits/")
    with house.store.begin() as connection:
        row = {"audit": audit_id, "n": 1, "job": audit_id, "job_label": "whole", "token": 1, "worker": "w"}
        connection.execute(insert(attempt).values(**row, started_at=5, ended_at=7, exit_class="CELL_CRASHED"))
    complete(house, made.name, {"report.sigstore.json": b"signed"})
    seen = await _stub(house, "ops").GetAudit(audits_pb2.GetAuditRequest(name=made.name))
    assert seen.state == State.STATE_COMPLETED
    assert [(one.number, one.exit_class) for one in seen.attempts] == [(1, audits_pb2.EXIT_CLASS_CELL_CRASHED)]
    hidden = (seen.model, seen.checks, seen.labels, seen.reports, seen.outcome, seen.nonce, seen.request_sha256)
    assert not any(hidden)
    mine = await _stub(house).GetAudit(audits_pb2.GetAuditRequest(name=made.name))
    assert list(mine.reports) == [f"{made.name}/reports/r1"]
    listed = await _stub(house, "ops").ListAudits(audits_pb2.ListAuditsRequest())
    assert [one.name for one in listed.audits] == [made.name]
    assert not listed.audits[0].labels


async def _all_pages(house: House, size: int, **arguments: Any) -> list[str]:
    seen, token = [], ""
    while True:
        request = audits_pb2.ListAuditsRequest(page_size=size, page_token=token, **arguments)
        page = await _stub(house).ListAudits(request)
        assert len(page.audits) <= size
        seen += [one.name for one in page.audits]
        token = page.next_page_token
        if not token:
            return seen


async def test_pages_hold_every_audit_once_newest_first(house: House) -> None:
    made = [(await house.submit("ada")).name for _ in range(7)]
    await house.submit("ben")
    with house.store.begin() as connection:  # ties: many audits of one millisecond
        connection.execute(update(audit).values(submitted_at=1000))
    assert await _all_pages(house, 3) == sorted(made, reverse=True)
    assert await _all_pages(house, 7) == sorted(made, reverse=True)


async def test_long_page_is_cut_before_it_is_too_large_for_a_client(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {(await house.submit("ada")).name for _ in range(5)}
    monkeypatch.setattr("service.api.audits.REPLY_MAX", 500)
    assert set(await _all_pages(house, 100)) == made


async def test_filters_select(house: House) -> None:
    pairs = await house.send(b"{}\n")
    weigh = await house.submit()
    probe = await house.submit(checks=[{"check": "checks/probe"}], data=[{"role": "pairs", "blob": pairs}])
    set_state(house, probe.name, AuditState.RUNNING)
    assert await _all_pages(house, 9, filter="check = checks/weigh") == [weigh.name]
    assert await _all_pages(house, 9, filter="state = RUNNING AND check = probe") == [probe.name]
    assert await _all_pages(house, 9, filter=f"model = {weigh.model} AND state=QUEUED") == [weigh.name]
    assert await _all_pages(house, 9, filter="check = checks/weig_") == []


async def test_filter_selects_by_labels_whole(house: House) -> None:
    red = await house.submit(labels={"team": "red", "note": 'a AND b = "c'.replace('"', "'")})
    await house.submit(labels={"team": "redder"})
    await house.submit(labels={"note": "red"})
    assert await _all_pages(house, 9, filter="label.team = red") == [red.name]
    both = """label.note = "a AND b = 'c" AND state = QUEUED AND label.team = "red\""""
    assert await _all_pages(house, 9, filter=both) == [red.name]
    assert await _all_pages(house, 9, filter="label.team = red AND label.note = x") == []


@pytest.mark.parametrize("principal", ["ops", "gil"])
async def test_filter_tells_nobody_what_was_asked_who_is_not_shown_it(house: House, principal: str) -> None:
    made = await house.submit(labels={"team": "red"})
    for word in ("check = checks/weigh", f"model = {made.model}", "label.team = red"):
        request = audits_pb2.ListAuditsRequest(filter=f"state = QUEUED AND {word}")
        answer = await told(_stub(house, principal).ListAudits(request))
        assert (answer.reason, answer.metadata["word"]) == ("BAD_FILTER", word.partition(" ")[0])
    listed = await _stub(house, "ops").ListAudits(audits_pb2.ListAuditsRequest(filter="state = QUEUED"))
    assert [one.name for one in listed.audits] == [made.name]


@pytest.mark.parametrize(
    "text",
    [
        "colour = red",
        "state",
        "state = DREAMING",
        "model = x",
        "state = RUNNING OR 1=1",
        "state=A AND state=B",
        "label = red",
        "label. = red",
        "label.Team = red",
        'label.team = "red',
        'label.team = "a\nb"',
        "label.team = red AND label.team = red",
    ],
)
async def test_filter_word_that_is_not_understood_is_named(house: House, text: str) -> None:
    answer = await told(_stub(house).ListAudits(audits_pb2.ListAuditsRequest(filter=text)))
    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "BAD_FILTER")
    assert answer.metadata["word"]


async def test_page_token_means_only_the_question_it_was_made_for(house: House) -> None:
    for _ in range(3):
        await house.submit("ada")
    token = (await _stub(house).ListAudits(audits_pb2.ListAuditsRequest(page_size=1))).next_page_token
    stub = _stub(house)
    tampered = token[:-2] + ("AA" if token[-2:] != "AA" else "BB")
    for request in (
        audits_pb2.ListAuditsRequest(page_token=tampered),
        audits_pb2.ListAuditsRequest(page_token="x"),
        audits_pb2.ListAuditsRequest(page_token="\u00e4\n"),
        audits_pb2.ListAuditsRequest(page_token=token, filter="state = QUEUED"),
    ):
        assert (await told(stub.ListAudits(request))).reason == "BAD_PAGE_TOKEN"
    stolen = audits_pb2.ListAuditsRequest(page_token=token)
    assert (await told(_stub(house, "ben").ListAudits(stolen))).reason == "BAD_PAGE_TOKEN"
    larger = await stub.ListAudits(audits_pb2.ListAuditsRequest(page_token=token, page_size=9))
    assert len(larger.audits) == 2
    answer = await told(stub.ListAudits(audits_pb2.ListAuditsRequest(page_size=-1)))
    assert answer.reason == "BAD_PAGE_SIZE"


async def test_queued_audit_is_cancelled_at_once_and_twice_is_fine(house: House) -> None:
    made = await house.submit()
    for _ in range(2):
        reply = await _stub(house).CancelAudit(audits_pb2.CancelAuditRequest(name=made.name))
        assert reply.state == State.STATE_CANCELLED


async def test_operator_may_cancel(house: House) -> None:
    made = await house.submit()
    reply = await _stub(house, "ops").CancelAudit(audits_pb2.CancelAuditRequest(name=made.name))
    assert reply.state == State.STATE_CANCELLED


async def test_signed_audit_can_not_be_cancelled(house: House) -> None:
    made = await house.submit()
    complete(house, made.name, {"report.sigstore.json": b"signed"})
    answer = await told(_stub(house).CancelAudit(audits_pb2.CancelAuditRequest(name=made.name)))
    assert (answer.code, answer.reason) == ("FAILED_PRECONDITION", "ALREADY_FINISHED")
    assert answer.metadata["state"] == "COMPLETED"
