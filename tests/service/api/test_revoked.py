"""A certificate that was revoked: out within seconds, open streams included, whatever becomes of its principal."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import ssl
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from assay.api.v1 import audits_pb2, audits_pb2_grpc, blobs_pb2, blobs_pb2_grpc, capabilities_pb2, capabilities_pb2_grpc

from service.api import directory, guard, server
from service.api.bearer import Issuer, thumbprint_of
from service.api.directory import Directory
from service.rules.access_log import AccessRow, check
from service.rules.errors import Refusal
from service.store.access_log import rows
from service.store.certificates import list_revoked, revoke
from service.store.engine import StoreUnavailable
from service.store.principals import disable_principal, put_principal
from tests.service.api.conftest import House, digest_of, opened, told, told_by
from tests.service.api.pki import make_another, make_certificates, make_twin
from tests.service.plants.issuers import AUDIENCE, ISSUER, claims, token, write_jwks


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What the server's word on principals and certificates is aged by; open streams ask with every message."""
    made = Clock()
    monkeypatch.setattr(server, "Directory", lambda store: Directory(store, clock=made))
    monkeypatch.setattr(guard, "RECHECK_S", 0.0)
    return made


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and of ada two certificates and a twin of the first."""
    folder = tmp_path_factory.mktemp("papers")
    make_certificates(folder, ("ada", "ben"))
    make_another(folder, "ada", "ada-again")
    make_twin(folder, "ada", "ada-twin")
    return folder


@pytest.fixture
async def house(clock: Clock, tmp_path: Path, papers: Path, empty_database: Path) -> AsyncIterator[House]:
    shutil.copy(empty_database, tmp_path / "assay.db")
    async with opened(tmp_path, papers) as made:
        yield made


def thumbprint(house: House, name: str) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert((house.certificates / f"{name}.pem").read_text())).hexdigest()


def withdraw(house: House, name: str = "ada") -> bool:
    return revoke(house.settings.database_url, thumbprint(house, name), reason="laptop lost")


def capabilities(house: House, name: str = "ada", **more: Any) -> Any:
    stub: Any = capabilities_pb2_grpc.CapabilitiesStub(house.channel(name))
    return stub.GetCapabilities(capabilities_pb2.GetCapabilitiesRequest(), **more)


async def test_revoked_certificate_is_out_and_others_of_its_principal_go_on(house: House, clock: Clock) -> None:
    await capabilities(house)
    assert withdraw(house)
    await capabilities(house)  # believed for so long and no longer
    clock.now += directory.CACHE_S
    answer = await told(capabilities(house))
    assert answer.reason == "NO_CREDENTIAL"
    assert answer.raw == (await told(capabilities(house, "stranger"))).raw
    assert (await capabilities(house, "ada-again")).api_version == "1.0"
    assert (await capabilities(house, "ben")).api_version == "1.0"


def test_word_on_a_certificate_and_the_next_look_of_a_stream_fit_into_thirty_seconds(house: House) -> None:
    assert directory.CACHE_S + 10.0 + house.settings.limits.keepalive_s <= 30
    assert guard.RECHECK_S <= 10.0


async def test_principal_that_is_entered_again_does_not_bring_its_revoked_certificate_back(
    house: House, clock: Clock
) -> None:
    url = house.settings.database_url
    withdraw(house)
    disable_principal(url, "ada")
    put_principal(url, "ada", tenant="acme", role="auditor")
    assert (await told(capabilities(house))).reason == "NO_CREDENTIAL"
    assert (await capabilities(house, "ada-again")).api_version == "1.0"


async def test_same_certificate_with_the_other_signature_is_revoked_with_it(house: House, clock: Clock) -> None:
    """ECDSA has two signatures of the same: who holds a certificate makes another thumbprint of it without the CA."""
    assert thumbprint(house, "ada-twin") != thumbprint(house, "ada")
    await capabilities(house, "ada-twin")  # gRPC takes it
    withdraw(house)
    clock.now += directory.CACHE_S
    assert (await told(capabilities(house, "ada-twin"))).reason == "NO_CREDENTIAL"


async def test_open_watch_ends_when_its_certificate_is_revoked(house: House, clock: Clock) -> None:
    made = await house.submit()
    asked = audits_pb2.WatchAuditRequest(name=made.name)
    call = house.stub(audits_pb2_grpc.AuditsStub).WatchAudit(asked)
    other = house.stub(audits_pb2_grpc.AuditsStub, "ada-again").WatchAudit(asked)
    await call.read()
    await other.read()
    withdraw(house)
    clock.now += directory.CACHE_S
    with pytest.raises(grpc.RpcError) as caught:
        await _read_all(call)
    assert told_by(caught.value).reason == "NO_CREDENTIAL"
    for _ in range(3):  # keepalives: it is still open
        assert await other.read() is not grpc.aio.EOF


async def _read_all(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_open_upload_ends_when_its_certificate_is_revoked(
    house: House, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"x" * 2048
    digest = digest_of(data)
    name = f"uploads/{uuid.uuid4()}/blobs/sha256/{digest.sha256}/{digest.size}"
    entered, taken, enter = asyncio.Event(), asyncio.Event(), guard.Guard._enter

    async def entering(self: guard.Guard, *arguments: Any) -> None:
        await enter(self, *arguments)
        entered.set()

    async def sent() -> AsyncIterator[blobs_pb2.WriteRequest]:
        yield blobs_pb2.WriteRequest(resource_name=name, data=data[:1024])
        await taken.wait()
        yield blobs_pb2.WriteRequest(write_offset=1024, data=data[1024:], finish_write=True)

    monkeypatch.setattr(guard.Guard, "_enter", entering)
    call = house.stub(blobs_pb2_grpc.BlobsStub).Write(sent())
    await entered.wait()
    withdraw(house)
    clock.now += directory.CACHE_S
    taken.set()
    assert (await told(call)).reason == "NO_CREDENTIAL"
    other = house.stub(blobs_pb2_grpc.BlobsStub, "ada-again")
    missing = await other.FindMissingBlobs(blobs_pb2.FindMissingBlobsRequest(digests=[digest]))
    assert missing.missing


async def test_store_that_cannot_be_read_lets_nobody_in(
    house: House, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await capabilities(house)

    def fail(*_arguments: Any) -> bool:
        raise StoreUnavailable("planted")

    monkeypatch.setattr(directory, "is_revoked", fail)
    clock.now += directory.CACHE_S
    for _ in range(2):  # nothing of the failure is remembered as a yes
        assert (await told(capabilities(house))).reason == "STORE_UNAVAILABLE"


async def test_certificate_that_cannot_be_read_is_nobodys(house: House, clock: Clock) -> None:
    known = Directory(house.store, clock=clock)
    assert (await known.caller("ada")).tenant == "acme"
    with pytest.raises(Refusal, match="no valid credential"):
        await known.caller("ada", b"junk")


async def test_refusal_of_a_revoked_certificate_stands_in_the_log_of_access(house: House, clock: Clock) -> None:
    withdraw(house)
    for _ in range(3):
        await told(capabilities(house))
    assert house.served is not None
    house.served.denials.flush()
    found = [row for row in log_of(house) if row.outcome != "OK"]
    assert [(row.principal, row.method.rpartition("/")[2], row.outcome, row.times) for row in found] == [
        ("ada", "GetCapabilities", "NO_CREDENTIAL", 3)
    ]


def log_of(house: House) -> list[AccessRow]:
    found = list(rows(house.store))
    assert check(found) == ()
    return found


async def test_revocation_itself_is_one_row_and_is_made_once(house: House, clock: Clock) -> None:
    assert withdraw(house)
    assert not withdraw(house)
    told_of = [row for row in log_of(house) if "revoke" in row.method]
    assert [(row.principal, row.method, row.object) for row in told_of] == [
        ("", "assay-server principals revoke-certificate", f"certificates/{thumbprint(house, 'ada')}")
    ]
    (kept,) = list_revoked(house.settings.database_url)
    assert (kept.sha256, kept.reason) == (thumbprint(house, "ada"), "laptop lost")


async def test_token_beside_a_revoked_certificate_does_not_help(house: House, clock: Clock, tmp_path: Path) -> None:
    keys = write_jwks(tmp_path / "keys.json", "es")
    issuer = Issuer(issuer=ISSUER, audience=AUDIENCE, jwks=keys, tenants=("acme",))
    put_principal(house.settings.database_url, "ada", tenant="acme", role="auditor", issuer=ISSUER)
    await house.stop()
    await house.start(issuers=(issuer,))
    mine = thumbprint_of((house.certificates / "ada.pem").read_bytes())
    text = token(claims(time.time(), cnf={"x5t#S256": mine}))
    shown: dict[str, Any] = {"metadata": (("authorization", f"Bearer {text}"),)}
    await capabilities(house, **shown)
    withdraw(house)
    clock.now += directory.CACHE_S
    assert (await told(capabilities(house, **shown))).reason == "NO_CREDENTIAL"
