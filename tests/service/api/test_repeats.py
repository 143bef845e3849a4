"""A fixed seed and a first report: only what repeats that report is accepted; receipts reach who asked."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from assay import bundle, canonical
from assay import request as request_format
from assay.api.v1 import audits_pb2, audits_pb2_grpc, blobs_pb2
from assay.testing import Forge
from sqlalchemy import func, select

from service.rules.repeats import SEED_MAX
from service.store.audits import register
from service.store.tables import audit
from tests.service.api.conftest import House, told

FIXED = audits_pb2.Audit.SEED_MODE_FIXED
SEED = 7


def first_report(forge: Forge, **changes: Any) -> bytes:
    """Return the bundle of a report that answers what `House.submission` asks; only its digests are looked at."""
    told = forge.statement(forge.report())
    predicate = told["predicate"]
    answer = predicate["answers"][0] | {"check": "weigh", "version": "1.0", "params": {"draws": 100}}
    predicate |= {"data": [], "answers": [answer]}
    predicate["registration"]["seed"] = SEED
    predicate["model"]["manifest_sha256"] = changes.pop("model")
    for path, value in changes.items():
        place = predicate
        *steps, last = path.split("__")
        for step in steps:
            place = place[int(step) if step.isdigit() else step]
        place[last] = value
    sealed = bundle.read((forge.reseal(forge.report(), canonical.dumps(told)) / bundle.FILE_NAME).read_bytes())
    return bundle.write(sealed)


async def asked(house: House, forge: Forge, fields: dict[str, Any] | None = None, **changes: Any) -> Any:
    model = await house.send_model()
    data = first_report(forge, model=model.removeprefix("models/"), **changes)
    sent = await house.send(data)
    return await house.submission(**{"seed_mode": FIXED, "seed": SEED, "first_report": sent, **(fields or {})})


async def refusal(house: House, request: Any) -> Any:
    answer = await told(house.stub(audits_pb2_grpc.AuditsStub, "ada").SubmitAudit(request))
    with house.store.read() as connection:
        assert connection.execute(select(func.count()).select_from(audit)).scalar_one() == 0
    return answer


async def test_what_repeats_a_report_is_registered_with_its_seed_and_digests(house: House, forge: Forge) -> None:
    request = await asked(house, forge)
    made = await house.stub(audits_pb2_grpc.AuditsStub, "ada").SubmitAudit(request)
    assert (made.seed_mode, made.seed, made.first_report) == (FIXED, SEED, request.audit.first_report)
    stored = request_format.parse(house.request(made))
    assert (stored["seed_mode"], stored["seed"]) == ("fixed", SEED)
    assert stored["first"]["bundle_sha256"] == request.audit.first_report.sha256
    payload = bundle.read(house.blobs.path(stored["first"]["bundle_sha256"]).read_bytes()).payload
    assert stored["first"]["statement_sha256"] == digest(payload)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_a_derived_seed_is_registered_as_before(house: House) -> None:
    made = await house.submit()
    stored = json.loads(house.request(made))
    assert (stored["seed_mode"], "seed" in stored, "first" in stored) == ("derived", False, False)
    assert made.seed_mode == audits_pb2.Audit.SEED_MODE_UNSPECIFIED


async def test_a_fixed_seed_may_repeat_nothing(house: House) -> None:
    made = await house.submit(seed_mode=FIXED, seed=SEED_MAX)
    stored = json.loads(house.request(made))
    assert (stored["seed_mode"], stored["seed"], "first" in stored) == ("fixed", SEED_MAX, False)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"seed": 1}, "audit.seed"),
        ({"seed_mode": FIXED, "seed": -1}, "audit.seed"),
        ({"seed_mode": FIXED, "seed": SEED_MAX + 1}, "audit.seed"),
        ({"seed_mode": 9}, "audit.seed_mode"),
        ({"first_report": blobs_pb2.Digest(sha256="0" * 64, size=4)}, "audit.seed_mode"),
    ],
)
async def test_a_seed_that_nobody_could_check_is_refused(house: House, fields: dict[str, Any], field: str) -> None:
    answer = await refusal(house, await house.submission(**fields))
    assert (answer.reason, answer.metadata["field"]) == ("BAD_SEED", field)


DIFFERENT: dict[str, tuple[dict[str, Any], str, str]] = {
    "seed": ({"registration__seed": 8}, "audit.seed", "BAD_SEED"),
    "base": ({"base": {"manifest_sha256": "0" * 64}}, "audit.base_model", "BAD_FIRST"),
    "version": ({"answers__0__version": "9.0"}, "audit.checks", "BAD_FIRST"),
    "parameters": ({"answers__0__params": {"draws": 99}}, "audit.checks[0].parameters_json", "BAD_FIRST"),
    "true is not one": ({"answers__0__params": {"draws": True}}, "audit.checks[0].parameters_json", "BAD_FIRST"),
    "data": ({"data": [{"role": "pairs", "sha256": "0" * 64}]}, "audit.data", "BAD_FIRST"),
}


@pytest.mark.parametrize("what", DIFFERENT)
async def test_a_report_of_another_question_is_not_repeated(house: House, forge: Forge, what: str) -> None:
    changes, field, reason = DIFFERENT[what]
    answer = await refusal(house, await asked(house, forge, **changes))
    assert (answer.reason, answer.metadata["field"]) == (reason, field)


async def test_another_model_is_not_repeated(house: House, forge: Forge) -> None:
    request = await asked(house, forge, {"model": await house.send_model(seed=b"2")})
    answer = await refusal(house, request)
    assert (answer.reason, answer.metadata["field"]) == ("BAD_FIRST", "audit.model")


@pytest.mark.parametrize("data", [b"{}", b"[" * 99, b'{"mediaType":1,"mediaType":2}', b"\xff"])
async def test_a_first_report_that_is_none_is_refused(house: House, data: bytes) -> None:
    sent = await house.send(data)
    answer = await refusal(house, await house.submission(seed_mode=FIXED, first_report=sent))
    assert (answer.reason, answer.metadata["field"]) == ("BAD_FIRST", "audit.first_report")


async def test_a_first_report_names_its_bytes_and_was_sent_by_this_tenant(house: House, forge: Forge) -> None:
    big = blobs_pb2.Digest(sha256="0" * 64, size=bundle.BYTES_MAX + 1)
    assert (await refusal(house, await house.submission(seed_mode=FIXED, first_report=big))).reason == "BAD_FIRST"
    odd = blobs_pb2.Digest(sha256="0" * 63, size=4)
    assert (await refusal(house, await house.submission(seed_mode=FIXED, first_report=odd))).reason == "BAD_DIGEST"
    model = (await house.send_model()).removeprefix("models/")
    theirs = await house.send(first_report(forge, model=model), "ben")
    request = await house.submission(seed_mode=FIXED, seed=SEED, first_report=theirs)
    assert (await refusal(house, request)).reason == "MISSING_BLOBS"


async def test_items_of_the_first_report_are_asked_for(house: House, forge: Forge) -> None:
    """The signer reads no blob that its tenant has not sent."""
    items = b'{"format":"assay-items/v1"}'
    named = [{"name": "items.accuracy.json", "media_type": "application/json", "sha256": digest(items), "size": 27}]
    request = await asked(house, forge, answers__0__artefacts=named)
    assert (await refusal(house, request)).reason == "MISSING_BLOBS"
    await house.send(items)
    assert (await house.stub(audits_pb2_grpc.AuditsStub, "ada").SubmitAudit(request)).seed == SEED


async def watched(house: House, name: str, principal: str = "ada") -> Any:
    stub = house.stub(audits_pb2_grpc.AuditsStub, principal)
    call = stub.WatchAudit(audits_pb2.WatchAuditRequest(name=name, after_sequence=1))
    while not (event := await call.read()).sequence:
        pass
    call.cancel()
    return event


@pytest.mark.parametrize("receipt", [True, False])
async def test_the_receipt_travels_with_the_registration(house: House, receipt: bool) -> None:
    """A signer of before the log answered without a receipt; that audit is told as it was."""
    made = await house.submit()
    asked_for = house.place_request(made)
    answer = {"request_sha256": made.request_sha256, "seed": 1, **({"receipt": "proof\n"} if receipt else {})}
    with house.store.begin() as connection:
        register(connection, made.name.removeprefix("audits/"), answer)
    event = (await watched(house, made.name)).registered
    assert event.request_sha256 == made.request_sha256
    assert (event.request_json, event.request_proof) == ((asked_for, b"proof\n") if receipt else (b"", b""))


async def test_who_keeps_the_service_running_sees_no_receipt(house: House) -> None:
    made = await house.submit()
    with house.store.begin() as connection:
        answer = {"request_sha256": made.request_sha256, "seed": 1, "receipt": "proof\n"}
        register(connection, made.name.removeprefix("audits/"), answer)
    assert not (await watched(house, made.name, "ops")).HasField("registered")


@pytest.fixture
def forge(tmp_path: Any) -> Forge:
    return Forge(tmp_path / "forge")
