"""Asking for audits of another tenant's model, for tests of what its owner allows."""

from __future__ import annotations

import secrets
import uuid
from typing import Any

from assay.api.v1 import approvals_pb2, approvals_pb2_grpc, audits_pb2, audits_pb2_grpc, models_pb2, models_pb2_grpc
from sqlalchemy import func, select

from tests.service.api.conftest import House


async def acme_model(house: House) -> str:
    name = await house.send_model("ada", secrets.token_bytes(8))
    request = models_pb2.CreateModelRequest(manifest_sha256=name.removeprefix("models/"))
    await house.stub(models_pb2_grpc.ModelsStub).CreateModel(request)
    return name


def ask(house: House, name: str, principal: str = "ben", *, waits: bool = False, **fields: Any) -> Any:
    """Submit an audit of a model by its name alone."""
    asked = {"model": name, "checks": [{"check": "checks/weigh"}], "nonce": b"n" * 32, **fields}
    request = audits_pb2.SubmitAuditRequest(
        request_id=str(uuid.uuid4()), audit=audits_pb2.Audit(**asked), await_approval=waits
    )
    return house.stub(audits_pb2_grpc.AuditsStub, principal).SubmitAudit(request)


def approvals(house: House, principal: str) -> Any:
    return house.stub(approvals_pb2_grpc.ApprovalsStub, principal)


def get(house: House, name: str, principal: str = "ben") -> Any:
    return house.stub(audits_pb2_grpc.AuditsStub, principal).GetAudit(audits_pb2.GetAuditRequest(name=name))


def revoke(house: House, name: str, principal: str = "ola") -> Any:
    return approvals(house, principal).RevokeApproval(approvals_pb2.RevokeApprovalRequest(name=name))


def count(house: House, table: Any) -> int:
    with house.store.read() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())
