"""A model that is known, and a file of it that is lost: whoever submits hears of it, and not a night of attempts."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from assay.api.v1 import audits_pb2, audits_pb2_grpc
from sqlalchemy import event, func, select, update

from service.store import wholeness
from service.store.engine import now_ms
from service.store.tables import audit, blob
from service.store.wholeness import Remembered
from tests.service.api.access_world import Owner
from tests.service.api.conftest import House, manifest_of, told
from tests.service.api.consenting import acme_model, ask, count

HOLD: dict[str, Any] = {"checks": [{"check": "checks/hold"}]}


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process that was just started."""
    monkeypatch.setattr(wholeness, "_REMEMBERED", Remembered())


def lose(house: House, digest: str, how: str = "quarantined_at") -> None:
    with house.store.begin() as connection:
        connection.execute(update(blob).where(blob.c.sha256 == digest).values({how: now_ms(connection)}))


async def known_model(house: House) -> tuple[str, dict[str, bytes]]:
    """Send a model and submit an audit of it, so that the tenant has a row of it; return its name and files."""
    seed = secrets.token_bytes(4).hex().encode()
    name = await house.send_model(seed=seed)
    await house.submit(model=name)
    return name, {"config.json": b"{}" + seed, "model.safetensors": b"weights" + seed}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def refused(house: House, **asked: Any) -> Any:
    before = count(house, audit)
    request = await house.submission(**asked)
    stub = house.stub(audits_pb2_grpc.AuditsStub)
    answer = await told(stub.SubmitAudit(request))
    assert (answer.code, answer.reason) == ("FAILED_PRECONDITION", "MISSING_BLOBS")
    request.validate_only = True
    assert (await told(stub.SubmitAudit(request))).raw == answer.raw
    assert count(house, audit) == before
    return answer


@pytest.mark.parametrize("how", ["quarantined_at", "doomed_at"])
async def test_known_model_with_a_lost_file_is_refused_and_the_file_is_named(house: House, how: str) -> None:
    name, files = await known_model(house)
    weights = files["model.safetensors"]
    lose(house, sha256(weights), how)
    answer = await refused(house, model=name)
    assert all(word in answer.message for word in (name, "(model.safetensors)"))
    [missing] = answer.details["PreconditionFailure"].violations
    assert missing.subject == f"blobs/sha256/{sha256(weights)}/{len(weights)}"
    await house.send(weights)  # which FindMissingBlobs asks for too
    assert (await house.submit(model=name)).name


async def test_all_lost_files_of_a_known_model_are_told_at_once(house: House) -> None:
    name, files = await known_model(house)
    for data in files.values():
        lose(house, sha256(data))
    answer = await refused(house, model=name)
    assert {one.subject.split("/")[2] for one in answer.details["PreconditionFailure"].violations} == {
        sha256(data) for data in files.values()
    }


async def test_known_base_with_a_lost_file_is_refused(house: House) -> None:
    base, files = await known_model(house)
    model, _ = await known_model(house)
    lose(house, sha256(files["config.json"]))
    answer = await refused(house, model=model, base_model=base, **HOLD)
    assert all(word in answer.message for word in (base, "(config.json)"))


@pytest.mark.parametrize("is_marked", [True, False])
async def test_known_model_whose_manifest_is_lost_is_refused(house: House, is_marked: bool) -> None:
    name, files = await known_model(house)
    digest = name.removeprefix("models/")
    if is_marked:
        lose(house, digest)
    else:
        house.blobs.delete(digest)
    answer = await refused(house, model=name)
    assert "(the manifest)" in answer.message
    await house.send(manifest_of(files))
    assert (await house.submit(model=name)).name


async def test_lost_file_of_a_foreign_model_is_its_owners_business(house: House) -> None:
    """Who runs under an approval hears that bytes are lost, and none of the owner's digests."""
    owner = Owner("acme", "ola")
    owner.enter(house)
    name = await acme_model(house)
    await owner.approve(house, name, "bolt")
    assert (await ask(house, name)).name
    with house.store.read() as connection:
        digests = set(connection.execute(select(blob.c.sha256)).scalars()) - {name.removeprefix("models/")}
    for digest in digests:
        lose(house, digest)
    before = count(house, audit)
    answer = await told(ask(house, name))
    assert (answer.reason, "none but its owner" in answer.message) == ("MISSING_BLOBS", True)
    assert [one.subject for one in answer.details["PreconditionFailure"].violations] == [name]
    assert not any(digest.encode() in answer.raw for digest in digests)
    assert count(house, audit) == before


async def test_without_an_approval_nobody_hears_that_a_foreign_model_lost_bytes(house: House) -> None:
    name = await acme_model(house)
    lose(house, name.removeprefix("models/"))
    absent = "models/" + "0" * 64
    assert {(await told(ask(house, one))).reason for one in (name, absent)} == {"UNKNOWN_MODEL"}
    waits = [await ask(house, one, waits=True) for one in (name, absent)]
    assert {one.state for one in waits} == {audits_pb2.Audit.State.STATE_AWAITING_APPROVAL}


@contextmanager
def statements(house: House) -> Iterator[list[str]]:
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        found.append(statement)

    event.listen(house.store._engine, "before_cursor_execute", note)
    yield found
    event.remove(house.store._engine, "before_cursor_execute", note)


async def test_to_look_for_lost_bytes_costs_a_submission_one_statement(house: House) -> None:
    name, _ = await known_model(house)
    await house.submit(model=name)  # the first after a start reads the manifest
    request = await house.submission(model=name)
    with statements(house) as told_:
        await house.stub(audits_pb2_grpc.AuditsStub).SubmitAudit(request)
    looks = [one for one in told_ if "count(" in one.lower() and "FROM blob" in one]
    assert len(looks) == 1
    assert not any(one.startswith("SELECT blob.size") for one in told_), "the manifest was read before"
    with house.store.read() as connection:
        assert connection.execute(select(func.count()).select_from(audit)).scalar_one() == 3
