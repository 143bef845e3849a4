"""A place in line is told as what it is: an estimate, and only while the audit is in line."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from assay.api.v1 import audits_pb2
from assay.cli.progress import queue_text
from assay.remote import wire


def message(state: str, before: int, *, is_registered: bool = True) -> audits_pb2.Audit:
    made = audits_pb2.Audit(name="audits/" + "a" * 32, queue_estimate=before, result_digest="cd" * 32)
    made.state = audits_pb2.Audit.State.Value(f"STATE_{state}")
    if is_registered:
        made.registered_at.FromDatetime(datetime(2026, 11, 22, tzinfo=UTC))
    return made


@pytest.mark.parametrize(("before", "words"), [(0, "about 0 jobs"), (1, "about 1 job "), (7, "about 7 jobs")])
def test_place_in_line_is_named_an_estimate(before: int, words: str) -> None:
    told = queue_text(wire.audit(message("QUEUED", before)))
    assert told.startswith(words)
    assert "estimate" in told


def test_audit_that_is_not_in_line_claims_no_place() -> None:
    """Nor does one of a service from before there were estimates, which leaves the field at 0."""
    for state in ("RUNNING", "SIGNING", "COMPLETED", "CANCELLED", "FAILED", "AWAITING_APPROVAL"):
        assert queue_text(wire.audit(message(state, 0))) == ""
    assert queue_text(wire.audit(message("QUEUED", 0, is_registered=False))) == ""
    waits = wire.audit(message("QUEUED", 3))
    assert queue_text(replace(waits, queue_estimate=-1)) == ""


def test_digest_of_the_result_reaches_the_caller() -> None:
    assert wire.audit(message("COMPLETED", -1)).result_sha256 == "cd" * 32
