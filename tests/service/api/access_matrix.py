"""The access matrix: every method, every role, an own, a foreign and an absent object.

`python -m tests.service.api.access_matrix` starts a server, tries every cell over the wire, and prints what it found.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from assay.api.v1 import (
    approvals_pb2 as ap,
)
from assay.api.v1 import (
    audits_pb2 as au,
)
from assay.api.v1 import (
    blobs_pb2 as bl,
)
from assay.api.v1 import (
    capabilities_pb2 as ca,
)
from assay.api.v1 import (
    checks_pb2 as ch,
)
from assay.api.v1 import (
    models_pb2 as mo,
)
from assay.api.v1 import (
    reports_pb2 as re,
)
from assay.api.v1 import (
    schedules_pb2 as sc,
)
from assay.api.v1 import (
    webhooks_pb2 as we,
)
from google.protobuf.message_factory import GetMessageClass

from service.api.server import SERVICES
from tests.service.api.access_table import expected
from tests.service.api.access_world import ABSENT, OWN, ROLES, TARGETS, World
from tests.service.api.conftest import blob_of, told_by


@dataclass(frozen=True)
class Tried:
    """What one cell came to."""

    reached: bool
    raw: bytes
    """The refusal, or the reply that does not have the object; the object's own name blotted out."""


Make = Callable[[World, str, str], Awaitable[Any] | Any]
"""(world, role, target) -> request."""


@dataclass(frozen=True)
class Probe:
    """How one method is tried."""

    make: Make
    reached: Callable[[World, str, str, list[Any]], bool] = lambda _world, _role, _target, _replies: True
    """Whether the replies of a call that succeeded have the object."""


def _of(kind: Any, **fields: Callable[[World, str], Any]) -> Probe:
    """Probe by a request whose fields follow from world and target."""
    return Probe(lambda world, _role, target: kind(**{name: get(world, target) for name, get in fields.items()}))


def _thing(name: str) -> Callable[[World, str], Any]:
    return lambda world, target: getattr(world.sides[target], name)


def _approval(world: World, role: str, target: str) -> str:
    """An owner's own approvals are of its models; an auditor's are those that grant its tenant something."""
    return world.approvals[target][0 if role == "owner" else 1]


def _listed(field: str, name: Callable[[World, str, str], str]) -> Callable[[World, str, str, list[Any]], bool]:
    return lambda world, role, target, replies: any(
        one.name == name(world, role, target) for one in getattr(replies[0], field)
    )


async def _submit(world: World, _role: str, target: str) -> Any:
    asked = au.Audit(model=world.sides[target].model, checks=[au.CheckRequest(check="checks/weigh")], nonce=b"n" * 32)
    return au.SubmitAuditRequest(request_id=str(uuid.uuid4()), audit=asked)


def _envelope(world: World, _role: str, target: str) -> Any:
    envelope = world.owners[OWN].envelope(world.sides[OWN].model, "bolt")
    return ap.CreateApprovalRequest(parent=world.sides[target].model, envelope=envelope)


def _batch(_world: World, _role: str, target: str) -> Any:
    return bl.BatchUpdateBlobsRequest(blobs=[blob_of(target.encode())])


def _write(_world: World, _role: str, target: str) -> Any:
    digest = blob_of(target.encode()).digest
    name = f"uploads/{uuid.uuid4()}/blobs/sha256/{digest.sha256}/{digest.size}"
    return bl.WriteRequest(resource_name=name, data=target.encode(), finish_write=True)


async def _update(world: World, _role: str, target: str) -> Any:
    model = OWN if target == ABSENT else target
    return sc.UpdateScheduleRequest(schedule=world.schedule(model, name=world.sides[target].schedule))


def _fresh(kind: Any, make: str, **more: Any) -> Probe:
    """Probe by a request about a new thing of the target's side: the method spends it."""

    async def request(world: World, _role: str, target: str) -> Any:
        return kind(name=await getattr(world, make)(target, **more))

    return Probe(request)


PROBES: Mapping[str, Probe] = {
    "Capabilities/GetCapabilities": _of(ca.GetCapabilitiesRequest),
    "Checks/ListChecks": _of(ch.ListChecksRequest),
    "Checks/GetCheck": _of(ch.GetCheckRequest, name=lambda _world, _target: "checks/weigh"),
    "Blobs/FindMissingBlobs": Probe(
        lambda world, _role, target: bl.FindMissingBlobsRequest(digests=[world.sides[target].blob]),
        lambda _world, _role, _target, replies: not replies[0].missing,
    ),
    "Blobs/BatchUpdateBlobs": Probe(_batch),
    "Blobs/Write": Probe(_write),
    "Blobs/QueryWriteStatus": Probe(
        lambda world, _role, target: bl.QueryWriteStatusRequest(resource_name=world.sides[target].upload),
        lambda _world, _role, _target, replies: replies[0].complete,
    ),
    "Blobs/Read": _of(
        bl.ReadRequest, resource_name=lambda world, side: f"blobs/sha256/{world.sides[side].report_file}/14"
    ),
    "Models/CreateModel": _of(
        mo.CreateModelRequest, manifest_sha256=lambda world, side: world.sides[side].model.removeprefix("models/")
    ),
    "Models/GetModel": _of(mo.GetModelRequest, name=_thing("model")),
    "Models/ListModels": Probe(
        lambda _world, _role, _target: mo.ListModelsRequest(),
        _listed("models", lambda world, _role, target: world.sides[target].model),
    ),
    "Models/DeleteModel": _fresh(mo.DeleteModelRequest, "fresh_model"),
    "Models/UndeleteModel": _fresh(mo.UndeleteModelRequest, "fresh_model", deleted=True),
    "Audits/SubmitAudit": Probe(_submit),
    "Audits/GetAudit": _of(au.GetAuditRequest, name=_thing("audit")),
    "Audits/ListAudits": Probe(
        lambda _world, _role, _target: au.ListAuditsRequest(),
        _listed("audits", lambda world, _role, target: world.sides[target].audit),
    ),
    "Audits/WatchAudit": _of(au.WatchAuditRequest, name=_thing("audit")),
    "Audits/CancelAudit": _of(au.CancelAuditRequest, name=_thing("queued")),
    "Reports/GetReport": _of(re.GetReportRequest, name=lambda world, side: f"{world.sides[side].audit}/reports/r1"),
    "Reports/ListReports": _of(re.ListReportsRequest, parent=_thing("audit")),
    "Approvals/CreateApproval": Probe(_envelope),
    "Approvals/GetApproval": Probe(
        lambda world, role, target: ap.GetApprovalRequest(name=_approval(world, role, target))
    ),
    "Approvals/ListApprovals": Probe(
        lambda _world, _role, _target: ap.ListApprovalsRequest(parent="models/-"), _listed("approvals", _approval)
    ),
    "Approvals/RevokeApproval": _fresh(ap.RevokeApprovalRequest, "fresh_approval"),
    "Schedules/CreateSchedule": Probe(
        lambda world, _role, target: world.schedule_request(target, uuid.uuid4().hex[:16])
    ),
    "Schedules/GetSchedule": _of(sc.GetScheduleRequest, name=_thing("schedule")),
    "Schedules/ListSchedules": Probe(
        lambda _world, _role, _target: sc.ListSchedulesRequest(),
        _listed("schedules", lambda world, _role, target: world.sides[target].schedule),
    ),
    "Schedules/UpdateSchedule": Probe(_update),
    "Schedules/RunSchedule": _of(
        sc.RunScheduleRequest, name=_thing("schedule"), request_id=lambda _world, _target: str(uuid.uuid4())
    ),
    "Schedules/PauseSchedule": _of(sc.PauseScheduleRequest, name=_thing("schedule")),
    "Schedules/ResumeSchedule": _of(sc.ResumeScheduleRequest, name=_thing("schedule")),
    "Schedules/ListFires": _of(sc.ListFiresRequest, parent=_thing("schedule")),
    "Schedules/DeleteSchedule": _fresh(sc.DeleteScheduleRequest, "fresh_schedule"),
    "Webhooks/CreateWebhook": Probe(
        lambda _world, _role, _target: we.CreateWebhookRequest(
            webhook_id=uuid.uuid4().hex[:16], webhook=we.Webhook(url="https://1.1.1.1/hook")
        )
    ),
    "Webhooks/GetWebhook": _of(we.GetWebhookRequest, name=_thing("webhook")),
    "Webhooks/ListWebhooks": Probe(
        lambda _world, _role, _target: we.ListWebhooksRequest(),
        _listed("webhooks", lambda world, _role, target: world.sides[target].webhook),
    ),
    "Webhooks/RotateSecret": _of(we.RotateSecretRequest, name=_thing("webhook")),
    "Webhooks/ListDeliveries": _of(we.ListDeliveriesRequest, parent=_thing("webhook")),
    "Webhooks/Redeliver": _of(we.RedeliverRequest, name=_thing("delivery")),
    "Webhooks/DeleteWebhook": _fresh(we.DeleteWebhookRequest, "fresh_webhook"),
}
"""How every method is tried, in the order of the table."""


def served() -> list[str]:
    """Return every method that the server serves, as the table names it."""
    return [f"{service.name}/{method.name}" for service in SERVICES for method in service.methods]


async def attempt(world: World, method: str, role: str, target: str) -> Tried:
    """Try one cell over the wire."""
    service, name = method.split("/")
    told = next(one for one in SERVICES if one.name == service).methods_by_name[name]
    made = PROBES[method].make(world, role, target)
    request: Any = await made if hasattr(made, "__await__") else made
    channel = world.channel(ROLES[role])
    shape = f"{'stream' if told.client_streaming else 'unary'}_{'stream' if told.server_streaming else 'unary'}"
    reply = GetMessageClass(told.output_type)
    stub = getattr(channel, shape)(
        f"/assay.api.v1.{method}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=reply.FromString,
    )
    call = stub(iter([request]) if told.client_streaming else request)
    try:
        replies = [one async for one in call] if told.server_streaming else [await call]
    except grpc.RpcError as error:
        return Tried(False, _blotted(told_by(error).raw, request))
    reached = PROBES[method].reached(world, role, target, replies)
    return Tried(reached, _blotted(b"".join(one.SerializeToString(deterministic=True) for one in replies), request))


def _blotted(raw: bytes, request: Any) -> bytes:
    """Blot out what the caller said itself: a reply may repeat it, and must not tell more."""
    words: list[str] = []
    for _field, value in request.ListFields():
        if isinstance(value, str):
            words += value.split("/")
    words += [one.sha256 for one in getattr(request, "digests", ())]
    for word in (word for word in words if len(word) >= 16):
        raw = raw.replace(word.encode(), b"#" * len(word))
    return raw


async def try_all(world: World) -> dict[tuple[str, str], tuple[Tried, ...]]:
    """Try every cell of every method that is served; (method, role) -> one for each target."""
    methods = [method for method in PROBES if method in served()]
    return {
        (method, role): tuple([await attempt(world, method, role, target) for target in TARGETS])
        for method in methods
        for role in ROLES
    }


def letters(tried: tuple[Tried, ...]) -> str:
    """Return a cell as the table writes it."""
    return "".join("y" if one.reached else "-" for one in tried)


async def _print() -> int:
    import tempfile
    from pathlib import Path

    from tests.service.api.access_world import build
    from tests.service.api.conftest import PRINCIPALS, opened, prepare_database
    from tests.service.api.pki import make_certificates

    with tempfile.TemporaryDirectory(prefix="assay-matrix-") as name:
        folder, certificates = Path(name), Path(name) / "pki"
        certificates.mkdir()
        make_certificates(certificates, tuple(PRINCIPALS))
        prepare_database(folder / "assay.db")
        async with opened(folder, certificates) as house:
            found = await try_all(await build(house))
    cells = expected()
    wrong = 0
    print(f"{'method':32}" + "".join(f"{role:13}" for role in ROLES))
    for method in dict.fromkeys(method for method, _ in found):
        told = {role: letters(found[method, role]) for role in ROLES}
        bad = [role for role in ROLES if told[role] != cells[method, role]]
        wrong += len(bad)
        print(f"{method:32}" + "".join(f"{told[role] + ('!' if role in bad else ''):13}" for role in ROLES))
    print(f"{len(found) * len(TARGETS)} cells tried, {wrong} words differ from the specification's table")
    return 1 if wrong else 0


if __name__ == "__main__":
    import asyncio

    raise SystemExit(asyncio.run(_print()))
