"""A base model and roles that are bytes, as any client may send them: the service trusts none of it."""

from __future__ import annotations

from typing import Any

import pytest
from assay import media
from assay import request as request_format
from assay.api.v1 import audits_pb2, audits_pb2_grpc, blobs_pb2
from sqlalchemy import func, select

from service.store.tables import audit, idempotency, job, outbox
from service.store.tables import model as model_table
from tests.service.api.conftest import House, digest_of, told

HOLD: dict[str, Any] = {"checks": [{"check": "checks/hold"}]}


def _stub(house: House, principal: str = "ada") -> Any:
    return house.stub(audits_pb2_grpc.AuditsStub, principal)


def _nothing_created(house: House) -> bool:
    with house.store.read() as connection:
        counts = [
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (audit, job, outbox, idempotency, model_table)
        ]
    return counts == [0] * 5


SMALL = digest_of(b"0123456789")


@pytest.mark.parametrize(
    ("data", "field", "words"),
    [
        ({"role": "sae", "media_type": "application/jsonl"}, "media_type", ["takes application/octet-stream", "jsonl"]),
        ({"role": "sae", "media_type": "application/x-pickle"}, "media_type", ["not 'application/x-pickle'"]),
        ({"role": "sae_config", "media_type": "application/octet-stream"}, "media_type", ["takes application/json"]),
        ({"role": "sae", "rows": 3}, "rows", ["which has no rows"]),
        ({"role": "sae_config", "blob": {"sha256": "0" * 64, "size": 10**6 + 1}}, "blob", ["1000001 bytes", "1000000"]),
        ({"role": "sae", "blob": {"sha256": "0" * 64, "size": 2**32}}, "blob", [str(2**32), str(media.BYTES_MAX)]),
        ({"role": "saee"}, "role", ["no asked check needs", "did you mean 'sae'?"]),
        ({"role": "sae-config"}, "role", ["did you mean 'sae_config'?"]),
        ({"role": "zzzz"}, "role", ["no asked check needs"]),
    ],
)
async def test_a_role_is_what_the_catalogue_says(
    house: House, data: dict[str, Any], field: str, words: list[str]
) -> None:
    sent = audits_pb2.DataInput(**{"blob": blobs_pb2.Digest(sha256=SMALL.sha256, size=SMALL.size), **data})
    answer = await told(_stub(house).SubmitAudit(await house.submission(**HOLD, data=[sent])))
    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "BAD_DATA_ROLE")
    [violation] = answer.details["BadRequest"].field_violations
    assert violation.field == f"audit.data[0].{field}"
    assert all(word in violation.description for word in words), violation.description
    assert _nothing_created(house)


async def test_one_role_in_two_forms_is_two_audits(house: House) -> None:
    """One blob is sent for a role; the last check's word must not decide for the first."""
    pairs = await house.send(b'{"a":1}\n')
    asked = await house.submission(
        checks=[{"check": "checks/probe"}, {"check": "checks/arrays"}], data=[{"role": "pairs", "blob": pairs}]
    )
    answer = await told(_stub(house).SubmitAudit(asked))
    assert answer.reason == "BAD_CHECKS"
    assert "probe reads role 'pairs' as application/jsonl, arrays as application/vnd.numpy.npz" in answer.message


async def test_bytes_are_accepted_and_called_as_the_catalogue_calls_them(house: House) -> None:
    blob = await house.send(b"\x00\xff" * 8)
    made = await house.submit(**HOLD, data=[{"role": "sae", "blob": blob}])
    assert [(one.role, one.media_type, one.rows) for one in made.data] == [("sae", media.BYTES, 0)]
    stored = request_format.parse(house.request(made))
    assert stored["data"] == [{"role": "sae", "sha256": blob.sha256}]
    assert house.blobs.path(blob.sha256).read_bytes() == b"\x00\xff" * 8


async def test_a_base_that_no_check_reads_is_refused(house: House) -> None:
    base = await house.send_model(seed=b"base")
    asked = await house.submission(checks=[{"check": "checks/weigh"}, {"check": "checks/weigh"}], base_model=base)
    answer = await told(_stub(house).SubmitAudit(asked))
    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "BAD_BASE")
    assert "audit.base_model: no asked check can hold the model against a base: weigh" in answer.message
    assert _nothing_created(house)


@pytest.mark.parametrize(
    ("base", "reason", "words"),
    [
        ("x", "BAD_RESOURCE_NAME", "models/{64 hex}"),
        (f"models/{'A' * 64}", "BAD_RESOURCE_NAME", "models/{64 hex}"),
        ("file:///etc/passwd", "BAD_RESOURCE_NAME", "models/{64 hex}"),
        (f"models/{'0' * 64}", "UNKNOWN_MODEL", "The base model is not known"),
    ],
)
async def test_a_base_that_is_no_model_is_refused(house: House, base: str, reason: str, words: str) -> None:
    answer = await told(_stub(house).SubmitAudit(await house.submission(**HOLD, base_model=base)))
    assert (answer.reason, words in answer.message) == (reason, True), answer.message
    assert _nothing_created(house)


async def test_a_model_is_not_its_own_base(house: House) -> None:
    model = await house.send_model()
    answer = await told(_stub(house).SubmitAudit(await house.submission(**HOLD, model=model, base_model=model)))
    assert (answer.reason, "the audited model itself" in answer.message) == ("BAD_BASE", True)


async def test_an_unknown_check_hides_no_base_that_it_might_read(house: House) -> None:
    base = await house.send_model(seed=b"base")
    asked = await house.submission(checks=[{"check": "checks/hodl"}], base_model=base)
    answer = await told(_stub(house).SubmitAudit(asked))
    assert [one.field for one in answer.details["BadRequest"].field_violations] == ["audit.checks[0].check"]


async def test_another_tenants_base_reads_as_an_absent_one(house: House) -> None:
    """To know a digest obtains nothing: the reply is the same, byte for byte."""
    foreign = await house.send_model("ben", seed=b"base")
    asked = await house.submission(**HOLD, base_model=foreign)
    one = await told(_stub(house).SubmitAudit(asked))
    asked.audit.base_model = f"models/{'0' * 64}"
    other = await told(_stub(house).SubmitAudit(asked))
    assert (one.reason, one.raw) == ("UNKNOWN_MODEL", other.raw)
    assert _nothing_created(house)


async def test_a_base_with_missing_files_names_them(house: House) -> None:
    from tests.service.api.conftest import manifest_of

    absent = b"never sent"
    manifest = manifest_of({"config.json": b"{}", "model.safetensors": absent})
    base = f"models/{(await house.send(manifest)).sha256}"
    await house.send(b"{}")
    answer = await told(_stub(house).SubmitAudit(await house.submission(**HOLD, base_model=base)))
    assert answer.reason == "MISSING_BLOBS"
    [missing] = answer.details["PreconditionFailure"].violations
    assert digest_of(absent).sha256 in missing.subject
    assert _nothing_created(house)


async def test_a_base_is_registered_with_the_request(house: House) -> None:
    base = await house.send_model(seed=b"base")
    made = await house.submit(**HOLD, base_model=base)
    assert made.base_model == base
    stored = request_format.parse(house.request(made))
    assert request_format.base_sha256(stored) == base.removeprefix("models/")
    with house.store.read() as connection:
        assert connection.execute(select(audit.c.base_sha256)).scalar_one() == base.removeprefix("models/")
        assert connection.execute(select(func.count()).select_from(model_table)).scalar_one() == 2
    assert await _stub(house).GetAudit(audits_pb2.GetAuditRequest(name=made.name)) == made


async def test_a_check_that_could_read_a_base_works_without_one(house: House) -> None:
    made = await house.submit(**HOLD)
    stored = house.request(made)
    assert b'"base"' not in stored
    assert made.base_model == ""


async def test_validate_only_judges_a_base_and_writes_nothing(house: House) -> None:
    base = await house.send_model(seed=b"base")
    asked = await house.submission(**HOLD, base_model=base)
    asked.validate_only = True
    assert (await _stub(house).SubmitAudit(asked)).base_model == base
    assert _nothing_created(house)


async def test_another_base_under_the_same_request_id_is_other_content(house: House) -> None:
    base = await house.send_model(seed=b"base")
    asked = await house.submission(**HOLD, base_model=base)
    await _stub(house).SubmitAudit(asked)
    asked.audit.base_model = ""
    assert (await told(_stub(house).SubmitAudit(asked))).reason == "REQUEST_ID_REUSED"
