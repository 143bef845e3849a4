"""Models that their owner deletes and takes back, and gates that see what carries their labels."""

from __future__ import annotations

import pytest
from assay.api.v1 import audits_pb2, audits_pb2_grpc, models_pb2, models_pb2_grpc
from sqlalchemy import update

from service.store.principals import put_principal
from service.store.tables import model
from tests.service.api.access_world import Owner
from tests.service.api.conftest import House, told
from tests.service.api.consenting import acme_model, ask, get

State = audits_pb2.Audit.State


@pytest.fixture
async def owner(house: House) -> Owner:
    """Acme owns a model; bolt wants to audit it."""
    made = Owner("acme", "ola")
    made.enter(house)
    return made


async def test_deleted_model_is_hidden_kept_and_taken_back(house: House, owner: Owner) -> None:
    name = await acme_model(house)
    kept = await owner.approve(house, name, "bolt")
    models = house.stub(models_pb2_grpc.ModelsStub, "ola")
    made = await ask(house, name)
    answer = await told(models.DeleteModel(models_pb2.DeleteModelRequest(name=name)))
    assert (answer.reason, answer.metadata["audit"]) == ("MODEL_IN_USE", made.name)
    await house.stub(audits_pb2_grpc.AuditsStub, "ola").CancelAudit(audits_pb2.CancelAuditRequest(name=made.name))
    known = await models.GetModel(models_pb2.GetModelRequest(name=name))
    stale = models_pb2.DeleteModelRequest(name=name, etag="0" * 16)
    assert (await told(models.DeleteModel(stale))).reason == "ETAG_MISMATCH"
    assert (await told(models.UndeleteModel(models_pb2.UndeleteModelRequest(name=name)))).reason == "MODEL_LIVE"
    gone = await models.DeleteModel(models_pb2.DeleteModelRequest(name=name, etag=known.etag))
    assert gone.deleted_at.ToMilliseconds() + 30 * 86_400_000 == gone.purged_at.ToMilliseconds()
    assert gone.etag != known.etag
    shown = [
        (await models.ListModels(models_pb2.ListModelsRequest(show_deleted=flag))).models for flag in (False, True)
    ]
    assert [len(one) for one in shown] == [0, 1]
    assert (await told(ask(house, name, "ada"))).reason == "MODEL_DELETED"
    again = models_pb2.CreateModelRequest(manifest_sha256=name.removeprefix("models/"))
    assert (await told(house.stub(models_pb2_grpc.ModelsStub).CreateModel(again))).reason == "MODEL_DELETED"
    assert "deleted" in (await told(ask(house, name, approvals=[kept.name]))).message
    back = await models.UndeleteModel(models_pb2.UndeleteModelRequest(name=name, etag=gone.etag))
    assert not back.HasField("deleted_at")
    assert (await ask(house, name)).state == State.STATE_QUEUED


async def test_purged_model_lives_again_once_it_is_sent_again(house: House) -> None:
    name = await acme_model(house)
    with house.store.begin() as connection:
        connection.execute(update(model).values(deleted_at=1, purged_at=2))
    models = house.stub(models_pb2_grpc.ModelsStub, "ola")
    answer = await told(models.UndeleteModel(models_pb2.UndeleteModelRequest(name=name)))
    assert answer.reason == "NOT_PERMITTED"
    request = models_pb2.CreateModelRequest(manifest_sha256=name.removeprefix("models/"))
    made = await house.stub(models_pb2_grpc.ModelsStub).CreateModel(request)
    assert not made.HasField("deleted_at")


async def test_gate_sees_state_of_what_carries_its_labels(house: House) -> None:
    put_principal(house.settings.database_url, "gil", tenant="acme", role="gate", selector={"gate": "release"})
    marked = await house.submit("ada", labels={"gate": "release", "team": "red"})
    for labels in ({}, {"gate": "nightly"}, {"team": "release"}):
        other = await house.submit("ada", labels=labels)
        assert (await told(get(house, other.name, "gil"))).reason == "NOT_PERMITTED"
    seen = await get(house, marked.name, "gil")
    assert seen.state == State.STATE_QUEUED
    assert not any((seen.model, seen.labels, seen.checks, seen.nonce, seen.attempts))
    listed = await house.stub(audits_pb2_grpc.AuditsStub, "gil").ListAudits(audits_pb2.ListAuditsRequest())
    assert [one.name for one in listed.audits] == [marked.name]


async def test_gate_without_a_label_sees_no_audit(house: House) -> None:
    made = await house.submit("ada", labels={"gate": "release"})
    assert (await told(get(house, made.name, "gil"))).reason == "NOT_PERMITTED"
