"""Two tenants with one of everything each, and a caller of every role: what the access matrix is tried on."""

from __future__ import annotations

import json
import secrets
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from assay import approval
from assay.api.v1 import (
    approvals_pb2,
    approvals_pb2_grpc,
    audits_pb2,
    blobs_pb2,
    blobs_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    schedules_pb2,
    schedules_pb2_grpc,
    webhooks_pb2,
    webhooks_pb2_grpc,
)
from assay.keys import key_id
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import insert, select, update

from service.api.server import SERVICES
from service.rules.approvals import OwnerKey
from service.store.approval_keys import add_key
from service.store.principals import put_principal
from service.store.tables import audit, model
from service.store.tables_around import delivery
from tests.service.api.conftest import CATALOGUE, House, blob_of
from tests.service.api.finish import complete

ROLES = {"auditor": "ada", "owner": "ola", "operator": "ops", "gate": "gil", "log-monitor": "lou"}
"""Role -> who calls. All but the operator and the log monitor are of the tenant acme."""

OWN, FOREIGN, ABSENT = "own", "foreign", "absent"
TARGETS = (OWN, FOREIGN, ABSENT)
LABELS = {"gate": "release"}
"""What the gate's selector wants; the foreign audits carry it too."""

FAR = datetime(2999, 1, 1, tzinfo=UTC)
URL = "https://1.1.1.1/hook"
"""A public address that needs no name server; nothing is ever sent."""


@dataclass
class Owner:
    """A tenant's approval key."""

    tenant: str
    principal: str
    """Of role owner."""
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def enter(self, house: House) -> None:
        """Let the key speak for the tenant, as an operator does."""
        public = self.key.public_key()
        spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        add_key(house.settings.database_url, self.tenant, OwnerKey(key_id=key_id(public), spki=spki))

    def envelope(self, model_name: str, grantee: str, **changes: Any) -> bytes:
        """Return a signed approval of the check "weigh" with any parameters."""
        return approval.sign(consent(model_name, grantee, **changes), self.key)

    async def approve(self, house: House, model_name: str, grantee: str, **changes: Any) -> Any:
        """Make an approval known; return its message."""
        envelope = self.envelope(model_name, grantee, **changes)
        stub = house.stub(approvals_pb2_grpc.ApprovalsStub, self.principal)
        return await stub.CreateApproval(approvals_pb2.CreateApprovalRequest(parent=model_name, envelope=envelope))


def consent(model_name: str, grantee: str, **changes: Any) -> approval.Approval:
    """Return an approval of the check "weigh" with any parameters and no data."""
    entry = CATALOGUE.entry("weigh")
    assert entry is not None
    check = approval.ApprovedCheck(
        name="weigh", version=entry.version, code_sha256=entry.code_sha256, params_sha256=approval.ANY
    )
    values: dict[str, Any] = {
        "model": model_name.removeprefix("models/"),
        "grantee": grantee,
        "checks": (check,),
        "data": (),
        "access": ("activations",),
        "output_cap_bytes": approval.OUTPUT_CAP_MAX,
        "lifetime_cap_bytes": approval.LIFETIME_CAP_MAX,
        "max_runs": 100,
        "not_after": FAR,
        "nonce": secrets.token_hex(32),
    }
    return approval.Approval(**{**values, **changes})


@dataclass
class Things:
    """Names of one tenant's things; of the absent side names that nobody has."""

    principal: str = ""
    model: str = ""
    shared: str = ""
    """A model that the other tenant may audit, by approval."""
    audit: str = ""
    """Completed."""
    queued: str = ""
    report_file: str = ""
    blob: blobs_pb2.Digest = field(default_factory=blobs_pb2.Digest)
    upload: str = ""
    webhook: str = ""
    delivery: str = ""
    schedule: str = ""


@dataclass
class World:
    """A server with two tenants."""

    house: House
    sides: dict[str, Things]
    owners: dict[str, Owner]
    approvals: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Side -> (approval of that side's model, approval that grants that side's tenant something)."""
    channels: dict[str, Any] = field(default_factory=dict)

    def channel(self, principal: str) -> Any:
        """Return the one connection of a principal."""
        if principal not in self.channels:
            self.channels[principal] = self.house.channel(principal)
        return self.channels[principal]

    @property
    def serves_schedules(self) -> bool:
        return any(service.name == "Schedules" for service in SERVICES)

    async def fresh_model(self, side: str, *, deleted: bool = False) -> str:
        """Return a model of a side that no audit reads."""
        if side == ABSENT:
            return self.sides[ABSENT].model
        name = await self.house.send_model(self.sides[side].principal, secrets.token_bytes(8))
        request = models_pb2.CreateModelRequest(manifest_sha256=name.removeprefix("models/"))
        await self.house.stub(models_pb2_grpc.ModelsStub, self.sides[side].principal).CreateModel(request)
        if deleted:
            with self.house.store.begin() as connection:
                digest = model.c.manifest_sha256 == request.manifest_sha256
                connection.execute(update(model).where(digest).values(deleted_at=1))
        return name

    async def fresh_approval(self, side: str) -> str:
        """Return an approval of a side's model that is not revoked."""
        if side == ABSENT:
            return f"{self.sides[ABSENT].model}/approvals/{'0' * 32}"
        grantee = "bolt" if side == OWN else "acme"
        return str((await self.owners[side].approve(self.house, self.sides[side].shared, grantee)).name)

    async def fresh_webhook(self, side: str) -> str:
        """Return a webhook of a side."""
        identifier = secrets.token_hex(8)
        if side != ABSENT:
            await self.create_webhook(self.sides[side].principal, identifier)
        return f"webhooks/{identifier}"

    async def create_webhook(self, principal: str, identifier: str) -> Any:
        request = webhooks_pb2.CreateWebhookRequest(webhook_id=identifier, webhook=webhooks_pb2.Webhook(url=URL))
        return await self.house.stub(webhooks_pb2_grpc.WebhooksStub, principal).CreateWebhook(request)

    async def fresh_schedule(self, side: str) -> str:
        """Return a schedule of a side."""
        identifier = secrets.token_hex(8)
        if side != ABSENT:
            stub = self.house.stub(schedules_pb2_grpc.SchedulesStub, self.sides[side].principal)
            await stub.CreateSchedule(self.schedule_request(side, identifier))
        return f"schedules/{identifier}"

    def schedule_request(self, side: str, identifier: str) -> schedules_pb2.CreateScheduleRequest:
        return schedules_pb2.CreateScheduleRequest(schedule_id=identifier, schedule=self.schedule(side))

    def schedule(self, side: str, name: str = "") -> schedules_pb2.Schedule:
        asked = audits_pb2.Audit(model=self.sides[side].model, checks=[audits_pb2.CheckRequest(check="checks/weigh")])
        return schedules_pb2.Schedule(name=name, template=asked, cron="0 3 * * *", time_zone="UTC")


async def build(house: House) -> World:
    """Plant one of everything for both tenants."""
    put_principal(house.settings.database_url, "gil", tenant="acme", role="gate", selector=LABELS)
    owners = {OWN: Owner("acme", "ola"), FOREIGN: Owner("bolt", "bea")}
    absent = Things(
        model=f"models/{'0' * 64}",
        audit=f"audits/{'0' * 32}",
        queued=f"audits/{'0' * 32}",
        report_file="0" * 64,
        blob=blobs_pb2.Digest(sha256="0" * 64, size=7),
        upload=f"uploads/{uuid.UUID(int=0, version=4)}/blobs/sha256/{'0' * 64}/4",
        webhook="webhooks/0000000000000000",
        delivery=f"webhooks/0000000000000000/deliveries/{'0' * 32}",
        schedule="schedules/0000000000000000",
    )
    world = World(house, {ABSENT: absent}, owners)
    for side, principal in ((OWN, "ada"), (FOREIGN, "ben")):
        owners[side].enter(house)
        world.sides[side] = await _things(world, side, principal)
    for side in (OWN, FOREIGN):
        of_model = await world.fresh_approval(side)
        other = FOREIGN if side == OWN else OWN
        world.approvals[side] = (of_model, await world.fresh_approval(other))
    world.approvals[ABSENT] = (f"models/{'0' * 64}/approvals/{'0' * 32}",) * 2
    return world


async def _things(world: World, side: str, principal: str) -> Things:
    house = world.house
    seed = secrets.token_bytes(8)
    made = Things(principal=principal, model=await house.send_model(principal, seed))
    world.sides[side] = made
    made.shared = await world.fresh_model(side)
    made.audit = (await house.submit(principal, model=made.model, labels=LABELS)).name
    made.queued = (await house.submit(principal, model=made.model, labels=LABELS)).name
    made.report_file = complete(house, made.audit, {"report.sigstore.json": b"signed" + seed}).sha256
    made.blob = await house.send(seed[:7], principal)
    whole = blob_of(seed[:4]).digest
    made.upload = f"uploads/{uuid.uuid4()}/blobs/sha256/{whole.sha256}/4"
    stub = house.stub(blobs_pb2_grpc.BlobsStub, principal)
    await stub.Write(iter([blobs_pb2.WriteRequest(resource_name=made.upload, data=seed[:4], finish_write=True)]))
    made.webhook = await world.fresh_webhook(side)
    made.delivery = _deliver(house, made, "acme" if side == OWN else "bolt")
    if world.serves_schedules:
        made.schedule = await world.fresh_schedule(side)
    return made


def _deliver(house: House, made: Things, tenant: str) -> str:
    """Plant a delivery that was given up."""
    identifier = secrets.token_hex(16)
    audit_id = made.queued.removeprefix("audits/")
    row = {"id": identifier, "tenant": tenant, "webhook": made.webhook.removeprefix("webhooks/"), "audit": audit_id}
    more = {"event_id": identifier, "type": "assay.audit.failed.v1", "body": json.dumps({}).encode(), "state": "DEAD"}
    with house.store.begin() as connection:
        assert connection.execute(select(audit.c.id).where(audit.c.id == audit_id)).one()
        connection.execute(insert(delivery).values(**row, **more, not_before=1, created_at=1))
    return f"{made.webhook}/deliveries/{identifier}"
