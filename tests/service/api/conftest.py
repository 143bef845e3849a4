"""A real server over loopback TLS in the test's own event loop, with its own CA, database and blob folder."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import shutil
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from assay import canonical, catalogue
from assay.api.v1 import audits_pb2, audits_pb2_grpc, blobs_pb2, blobs_pb2_grpc
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status
from sqlalchemy import select

from service.api.backing import ApiSettings, Backing, Limits, TlsFiles
from service.api.server import Served, build
from service.blobs import LocalBlobs
from service.store.engine import Store, open_store
from service.store.principals import put_principal
from service.store.tables import audit
from tests.service.api.dynamic_words import untold
from tests.service.api.pki import make_certificates
from tests.service.api.reasons_told import SEEN
from tests.service.store.fresh import migrated

S = TypeVar("S")

PRINCIPALS = {
    "ada": ("acme", "auditor"),
    "ben": ("bolt", "auditor"),
    "ola": ("acme", "owner"),
    "bea": ("bolt", "owner"),
    "ops": ("house", "operator"),
    "gil": ("acme", "gate"),
    "lou": ("house", "log-monitor"),
    "odd": ("acme", "emperor"),
}
"""id -> tenant, role. The last has a role that does not exist; the gate has no label and so sees no audit."""

QUICK = Limits(
    poll_s=0.05, keepalive_s=0.3, idle_upload_s=0.5, sync_bytes=1 << 20, calls_per_s=1e6, calls_burst=1_000_000
)
"""Callers here are tests: how often one may call is tried by tests of just that."""


def _check(name: str, roles: list[dict[str, Any]], properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "version": "1.0",
        "summary": "A planted check.",
        "source": "nowhere 2026",
        "access": ["activations"],
        "params": {
            "type": "object",
            "additionalProperties": False,
            "properties": properties,
        },
        "data_roles": roles,
        "metrics": [],
        "controls": [],
        "words": [],
        "reasons": [],
        "code_sha256": "0" * 64,
        "capability": "cpu",
        "time_limit_s": 3600,
        "power": None,
        "false_positive_rate": None,
        **more,
    }


PAIRS = {"name": "pairs", "required": True, "media_type": "application/jsonl", "summary": "Contrast pairs."}
EXTRA = {"name": "extra", "required": False, "media_type": "application/jsonl", "summary": "More pairs."}
SAE = {"name": "sae", "required": False, "media_type": "application/octet-stream", "summary": "A dictionary."}
SAE_CONFIG = {"name": "sae_config", "required": False, "media_type": "application/json", "summary": "Its settings."}
OTHER_PAIRS = {**PAIRS, "required": False, "media_type": "application/vnd.numpy.npz"}
RATE = {"estimate": "0.93", "low": "0.9", "high": "0.95", "n": 400, "at": "planted 0.1"}

CATALOGUE = catalogue.parse(
    json.dumps(
        {
            "schema": "assay-catalogue/v1",
            "checks": [
                _check("weigh", [], {"draws": {"type": "integer", "default": 100, "minimum": 10, "maximum": 1000}}),
                _check(
                    "probe",
                    [PAIRS, EXTRA],
                    {
                        "layers": {"anyOf": [{"const": "all"}, {"type": "array", "maxItems": 4}], "default": "all"},
                        "alpha": {"type": "string", "default": "0.05"},
                        "threshold": {"type": "string", "default": "0.5"},
                    },
                    power=RATE,
                ),
                _check("hold", [SAE, SAE_CONFIG], {}, base_model=True),
                _check("arrays", [OTHER_PAIRS], {}),
            ],
        }
    ).encode()
)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    make_certificates(folder, tuple(PRINCIPALS))
    return folder


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("db") / "assay.db"
    prepare_database(file)
    return file


def prepare_database(file: Path) -> None:
    """Make a database that knows every principal."""
    url = migrated(file)
    for name, (tenant, role) in PRINCIPALS.items():
        put_principal(url, name, tenant=tenant, role=role)


@dataclass
class House:
    """One server, and clients of it."""

    settings: ApiSettings
    certificates: Path
    store: Store
    blobs: LocalBlobs
    served: Served | None = None
    backing: Backing | None = None
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    async def start(self, **changes: Any) -> None:
        """Build a new server object over the same folders, as a restarted process would."""
        self.settings = replace(self.settings, **changes)
        self.backing = Backing(
            settings=self.settings,
            store=self.store,
            blobs=self.blobs,
            catalogue=CATALOGUE,
            draining=asyncio.Event(),
        )
        self.served = build(self.backing)
        await self.served.start()
        await self.served.health.probe()

    async def stop(self) -> None:
        for channel in self.channels:
            await channel.close()
        self.channels.clear()
        if self.served is not None:
            await self.served.stop(None)
            self.served = None

    def channel(self, principal: str | None = "ada", **options: Any) -> grpc.aio.Channel:
        assert self.served is not None
        ca = (self.certificates / "ca.pem").read_bytes()
        key = (self.certificates / f"{principal}.key").read_bytes() if principal else None
        chain = (self.certificates / f"{principal}.pem").read_bytes() if principal else None
        made = grpc.aio.secure_channel(
            f"127.0.0.1:{self.served.port}", grpc.ssl_channel_credentials(ca, key, chain), **options
        )
        self.channels.append(made)
        return made

    def stub(self, kind: Callable[[Any], S], principal: str = "ada") -> Any:
        return kind(self.channel(principal))

    async def send(self, data: bytes, principal: str = "ada") -> blobs_pb2.Digest:
        """Store small bytes for a principal's tenant."""
        digest = digest_of(data)
        reply = await self.stub(blobs_pb2_grpc.BlobsStub, principal).BatchUpdateBlobs(
            blobs_pb2.BatchUpdateBlobsRequest(blobs=[blob_of(data)])
        )
        assert [result.reason for result in reply.results] == [""]
        return digest

    async def send_model(self, principal: str = "ada", seed: bytes = b"") -> str:
        """Send a model's files and manifest; return its name."""
        files = {"config.json": b"{}" + seed, "model.safetensors": b"weights" + seed}
        for data in files.values():
            await self.send(data, principal)
        return f"models/{(await self.send(manifest_of(files), principal)).sha256}"

    async def submission(self, principal: str = "ada", **changes: Any) -> audits_pb2.SubmitAuditRequest:
        """Return a request that would be accepted."""
        audit: dict[str, Any] = {
            "model": await self.send_model(principal),
            "checks": [{"check": "checks/weigh"}],
            "nonce": secrets.token_bytes(32),
        }
        return audits_pb2.SubmitAuditRequest(
            request_id=str(uuid.uuid4()), audit=audits_pb2.Audit(**{**audit, **changes})
        )

    async def submit(self, principal: str = "ada", **changes: Any) -> Any:
        request = await self.submission(principal, **changes)
        return await self.stub(audits_pb2_grpc.AuditsStub, principal).SubmitAudit(request)

    def request(self, made: Any) -> bytes:
        """Return the request of an audit that nobody has registered yet."""
        with self.store.read() as connection:
            asked = select(audit.c.request_json).where(audit.c.id == made.name.removeprefix("audits/"))
            kept = bytes(connection.execute(asked).scalar_one())
        assert hashlib.sha256(kept).hexdigest() == made.request_sha256
        return kept

    def place_request(self, made: Any) -> bytes:
        """Make it a blob, as a scheduler does before it asks the signer."""
        kept = self.request(made)
        self.blobs.put(kept, made.request_sha256)
        return kept


@pytest.fixture
async def house(tmp_path: Path, certificates: Path, empty_database: Path) -> AsyncIterator[House]:
    shutil.copy(empty_database, tmp_path / "assay.db")
    async with opened(tmp_path, certificates) as made:
        yield made


@asynccontextmanager
async def opened(tmp_path: Path, certificates: Path, **changes: Any) -> AsyncIterator[House]:
    """Serve a folder that holds a prepared database."""
    database = tmp_path / "assay.db"
    settings = ApiSettings(
        database_url=f"sqlite:///{database}",
        blob_dir=tmp_path / "blobs",
        upload_dir=tmp_path / "uploads",
        address="127.0.0.1:0",
        tls=TlsFiles(
            ca=certificates / "ca.pem", certificate=certificates / "server.pem", key=certificates / "server.key"
        ),
        page_key=b"k" * 32,
        reflection=True,
        isolation_file=tmp_path / "isolation.json",
        signer_profile="development",
        ready=lambda _address: None,
        disk_floor_bytes=0,
        limits=QUICK,
    )
    made = House(settings, certificates, open_store(settings.database_url, busy_ms=3000), LocalBlobs(settings.blob_dir))
    await made.start(**changes)
    yield made
    await made.stop()
    made.store.close()


def digest_of(data: bytes) -> blobs_pb2.Digest:
    return blobs_pb2.Digest(sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def blob_of(data: bytes, digest: blobs_pb2.Digest | None = None) -> blobs_pb2.BatchUpdateBlobsRequest.Blob:
    return blobs_pb2.BatchUpdateBlobsRequest.Blob(digest=digest or digest_of(data), data=data)


def manifest_of(files: dict[str, bytes]) -> bytes:
    listed = [
        {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for path, data in sorted(files.items())
    ]
    return canonical.dumps({"files": listed, "format": "assay-manifest/v1"})


@dataclass(frozen=True)
class Told:
    """What a caller was told about a refusal."""

    code: str
    reason: str
    message: str
    metadata: dict[str, str]
    details: dict[str, Any]
    raw: bytes
    """All of the status, for comparing byte by byte."""


async def told(call: Any) -> Told:
    """Return the refusal that a call ends with; a call that succeeds fails the test."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.RpcError as error:
        return told_by(error)
    pytest.fail("the call succeeded")


def told_by(error: Any) -> Told:
    """Return what an error tells, after checking the rules that hold for every error of this API."""
    status = rpc_status.from_call(error)
    assert status is not None, f"no details: {error}"
    kinds = [detail.type_url.rpartition(".")[2] for detail in status.details]
    assert len(kinds) == len(set(kinds)), "a detail type appears twice"
    assert status.ByteSize() <= 6 * 1024
    unpacked = {}
    for kind, detail in zip(kinds, status.details, strict=True):
        unpacked[kind] = getattr(error_details_pb2, kind)()
        detail.Unpack(unpacked[kind])
    info = unpacked["ErrorInfo"]
    assert info.domain == "assay.api"
    assert untold(info.reason, status.message, info.metadata.values()) == [], (status.message, dict(info.metadata))
    SEEN.add(info.reason)
    return Told(
        error.code().name,
        info.reason,
        status.message,
        dict(info.metadata),
        unpacked,
        status.SerializeToString(deterministic=True),
    )
