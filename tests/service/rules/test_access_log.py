"""The chain of the log of access: every planted change of it is found, and honest chains pass."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from assay.api.v1 import approvals_pb2, audits_pb2, blobs_pb2, models_pb2, schedules_pb2, webhooks_pb2

from service.rules.access import ACCESS, MUTATIONS
from service.rules.access_log import (
    FIRST,
    OBJECT_MAX,
    AccessLogMalformed,
    AccessRow,
    chained,
    check,
    object_of,
    read_line,
)
from service.rules.errors import REASONS
from service.store.tables_around import access_log

Rows = list[AccessRow]


def chain(count: int) -> Rows:
    rows: Rows = []
    for seq in range(1, count + 1):
        what = {"principal": f"p{seq % 3}", "method": "/m", "object": f"audits/{seq}", "outcome": "OK", "times": 1}
        previous = rows[-1].sha256 if rows else FIRST
        rows.append(chained(seq=seq, at=1000 + seq, previous=previous, what=what))
    return rows


def test_honest_chains_hold_also_as_lines() -> None:
    for count in (0, 1, 50):
        rows = chain(count)
        assert check(rows) == ()
        assert [read_line(row.line().encode()) for row in rows] == rows
        if rows:
            assert check(rows, (rows[-1].seq, rows[-1].sha256)) == ()


def _removed(rows: Rows) -> Rows:
    return [*rows[:4], *rows[5:]]


def _first_removed(rows: Rows) -> Rows:
    return rows[1:]


def _reordered(rows: Rows) -> Rows:
    return [*rows[:4], rows[5], rows[4], *rows[6:]]


def _repeated(rows: Rows) -> Rows:
    return [*rows[:5], *rows[4:]]


def _altered(rows: Rows) -> Rows:
    return [*rows[:4], replace(rows[4], principal="somebody-else"), *rows[5:]]


def _altered_and_hashed_anew(rows: Rows) -> Rows:
    row = replace(rows[4], object="audits/other")
    return [*rows[:4], replace(row, sha256=row.expected_sha256()), *rows[5:]]


def _swapped_numbers(rows: Rows) -> Rows:
    return [*rows[:4], replace(rows[5], seq=5), replace(rows[4], seq=6), *rows[6:]]


def _inserted(rows: Rows) -> Rows:
    return [*rows[:5], replace(rows[4], seq=6), *(replace(row, seq=row.seq + 1) for row in rows[5:])]


@pytest.mark.parametrize(
    ("plant", "rule"),
    [
        (_removed, "gap"),
        (_first_removed, "gap"),
        (_reordered, "order"),
        (_repeated, "order"),
        (_altered, "altered"),
        (_altered_and_hashed_anew, "unlinked"),
        (_swapped_numbers, "unlinked"),
        (_inserted, "altered"),
    ],
)
def test_every_planted_change_is_found(plant: Callable[[Rows], Rows], rule: str) -> None:
    assert rule in {one.rule for one in check(plant(chain(9)))}


def test_rows_cut_off_or_written_anew_are_found_by_the_head_that_was_kept() -> None:
    rows = chain(9)
    head = (rows[-1].seq, rows[-1].sha256)
    assert check(rows[:-1]) == ()  # what a chain alone cannot show
    assert [one.rule for one in check(rows[:-1], head)] == ["head"]
    anew: Rows = []
    for row in rows:
        what = {name: getattr(row, name) for name in ("method", "object", "outcome", "times")} | {"principal": "eve"}
        anew.append(chained(seq=row.seq, at=row.at, previous=anew[-1].sha256 if anew else FIRST, what=what))
    assert check(anew) == ()
    assert [one.rule for one in check(anew, head)] == ["head"]


def test_each_field_is_under_the_hash() -> None:
    row = chain(1)[0]
    changes: dict[str, Any] = {
        "seq": 2,
        "at": 5,
        "principal": "x",
        "method": "/x",
        "object": "x",
        "outcome": "x",
        "times": 2,
    }
    for name, value in changes.items():
        assert check([replace(row, **{name: value})]) != (), name
    assert set(changes) == set(vars(row)) - {"sha256", "previous_sha256"}


def test_broken_lines_are_refused() -> None:
    good = chain(1)[0].line().encode()
    rng = random.Random(7)
    for bad in (b"", b"{}", b"[]", good[:-1], good.replace(b'"seq":1', b'"seq":"1"'), good.replace(b'"p1"', b"1")):
        with pytest.raises(AccessLogMalformed):
            read_line(bad)
    for _ in range(300):  # whatever is flipped: refused, or found by the hash
        data = bytearray(good)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(7)
        try:
            found = check([read_line(bytes(data))])
        except AccessLogMalformed:
            continue
        assert found != ()


def test_objects_are_names_and_never_parameters() -> None:
    secret = audits_pb2.CheckRequest(check="checks/x", parameters_json="secret")
    schedule, webhook = schedules_pb2.Schedule(name="schedules/a"), webhooks_pb2.Webhook(url="https://secret")
    audit = audits_pb2.Audit(model="models/" + "a" * 64, checks=[secret])
    cases = [
        (audits_pb2.SubmitAuditRequest(request_id="x", audit=audit), "models/" + "a" * 64),
        (audits_pb2.CancelAuditRequest(name="audits/1"), "audits/1"),
        (audits_pb2.CancelAuditRequest(name="audits/1\n{}"), ""),
        (audits_pb2.CancelAuditRequest(name="a" * 129), ""),
        (models_pb2.CreateModelRequest(manifest_sha256="b" * 64), "models/" + "b" * 64),
        (approvals_pb2.CreateApprovalRequest(parent="models/x", envelope=b"secret"), "models/x"),
        (schedules_pb2.CreateScheduleRequest(schedule_id="nightly"), "schedules/nightly"),
        (schedules_pb2.UpdateScheduleRequest(schedule=schedule), "schedules/a"),
        (webhooks_pb2.CreateWebhookRequest(webhook_id="ci", webhook=webhook), "webhooks/ci"),
        (blobs_pb2.BatchUpdateBlobsRequest(), ""),
    ]
    assert [object_of(request) for request, _ in cases] == [name for _, name in cases]


def test_methods_and_reasons_fit_their_columns() -> None:
    """PostgreSQL refuses a longer text, and with it the change that it tells of."""
    columns: Any = access_log.c
    assert max(map(len, ACCESS)) <= columns.method.type.length
    assert max(map(len, REASONS)) <= columns.outcome.type.length
    assert columns.object.type.length == OBJECT_MAX


def test_every_method_that_changes_something_is_a_mutation() -> None:
    verbs = {method.rpartition("/")[2] for method in MUTATIONS}
    assert {"SubmitAudit", "CancelAudit", "Write", "BatchUpdateBlobs", "CreateModel", "RevokeApproval"} <= verbs
    assert {"RotateSecret", "Redeliver", "RunSchedule", "PauseSchedule", "UndeleteModel"} <= verbs
    assert not any(verb.startswith(("Get", "List")) for verb in verbs)
    assert all(method.startswith("/assay.api.v1.") for method in MUTATIONS)
    assert ACCESS.keys() > MUTATIONS
