"""Bearer tokens: which ones are believed, each known way to forge or steal one, and how soon one stops to count."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from assay import strict_json
from assay.api.v1 import (
    audits_pb2,
    audits_pb2_grpc,
    blobs_pb2,
    blobs_pb2_grpc,
    capabilities_pb2,
    capabilities_pb2_grpc,
)
from assay.client import AuditClient
from assay.client_errors import ServerRefused, Unreachable
from sqlalchemy import func, select

from service.api import directory, guard
from service.api.bearer import Bearers, Issuer, JwksRefused, read_jwks, thumbprint_of
from service.api.server import NotReady
from service.rules.access import Role
from service.rules.bearer import LEEWAY_S, TOKEN_MAX
from service.rules.errors import Refusal
from service.store.principals import disable_principal, put_principal
from service.store.tables import token_use
from tests.service.api.conftest import QUICK, House, blob_of, opened, told, told_by
from tests.service.plants.issuers import (
    AUDIENCE,
    ISSUER,
    claims,
    encoded,
    jwk,
    signature,
    token,
    with_public_key_as_secret,
    write_jwks,
)

NOW = 1_800_000_000.0


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    keys = write_jwks(tmp_path / "keys.json", "es", "ed", "rsa")
    return Issuer(issuer=ISSUER, audience=AUDIENCE, jwks=keys, tenants=("acme",))


@pytest.fixture
def bearers(issuer: Issuer) -> Bearers:
    return Bearers([issuer], clock=lambda: NOW)


def refusal(bearers: Bearers, text: str, certificate: bytes | None = None) -> str:
    """Return why a token is not believed; one that is believed fails the test."""
    with pytest.raises(Refusal) as caught:
        bearers.verify(text, certificate)
    assert (caught.value.reason, caught.value.code) == ("BAD_TOKEN", "UNAUTHENTICATED")
    return caught.value.message


@pytest.mark.parametrize(("kid", "alg"), [("es", "ES256"), ("ed", "EdDSA"), ("ed", "Ed25519"), ("rsa", "RS256")])
def test_each_listed_algorithm_is_believed(bearers: Bearers, kid: str, alg: str) -> None:
    found = bearers.verify(token(claims(NOW, jti="1"), kid, {"alg": alg}), None)
    assert (found.principal, found.issuer, found.is_bound, found.jti) == ("ada", ISSUER, False, "1")


HEADERS: list[tuple[dict[str, Any], str]] = [
    ({"alg": "none"}, "alg is none of"),
    ({"alg": "None"}, "alg is none of"),
    ({"alg": "HS256"}, "alg is none of"),
    ({"alg": "ES512"}, "alg is none of"),
    ({"alg": ["ES256"]}, "alg is none of"),
    ({"alg": None}, "alg is none of"),
    ({"alg": "RS256"}, "alg is not what its key is for"),
    ({"alg": "EdDSA"}, "alg is not what its key is for"),
    ({"kid": None}, "kid is missing"),
    ({"kid": 7}, "kid is missing"),
    ({"kid": "es2"}, "kid names no key"),
    ({"kid": "../keys"}, "kid names no key"),
    ({"jku": "https://evil.example/keys"}, "beyond alg, kid and typ"),
    ({"x5u": "https://evil.example/chain"}, "beyond alg, kid and typ"),
    ({"x5c": ["MII"]}, "beyond alg, kid and typ"),
    ({"jwk": jwk("es2")}, "beyond alg, kid and typ"),
    ({"crit": ["exp"]}, "beyond alg, kid and typ"),
    ({"crit": []}, "beyond alg, kid and typ"),
    ({"b64": False}, "beyond alg, kid and typ"),
    ({"zip": "DEF"}, "beyond alg, kid and typ"),
    ({"typ": "JWE"}, "typ is not JWT"),
]


@pytest.mark.parametrize(("header", "why"), HEADERS)
def test_header_that_chooses_its_own_verification_is_refused(
    bearers: Bearers, header: dict[str, Any], why: str
) -> None:
    assert why in refusal(bearers, token(claims(NOW), "es", header))


def test_embedded_key_that_did_sign_is_refused(bearers: Bearers) -> None:
    text = token(claims(NOW), "es", {"jwk": jwk("es2")}, signer="es2")
    assert "beyond alg, kid and typ" in refusal(bearers, text)


def test_public_key_as_hmac_secret_is_refused(bearers: Bearers) -> None:
    assert "alg is none of" in refusal(bearers, with_public_key_as_secret(claims(NOW), "rsa"))


def test_unsigned_token_is_refused(bearers: Bearers) -> None:
    head, body, _ = token(claims(NOW), "es", {"alg": "none"}).split(".")
    for text in (f"{head}.{body}.", f"{head}.{body}", f"{head}.{body}.AA"):
        refusal(bearers, text)


def test_signature_of_another_key_or_other_claims_is_refused(bearers: Bearers) -> None:
    assert "signature does not hold" in refusal(bearers, token(claims(NOW), "es", signer="es2"))
    head, _, signed = token(claims(NOW), "es").split(".")
    other = encoded(json.dumps(claims(NOW, "ola")).encode())
    assert "signature does not hold" in refusal(bearers, f"{head}.{other}.{signed}")


CLAIMS: list[tuple[dict[str, Any], str]] = [
    ({"iss": None}, "iss is missing"),
    ({"iss": ISSUER + "/"}, "iss is no issuer"),
    ({"iss": [ISSUER]}, "iss is missing"),
    ({"aud": None}, "aud is missing"),
    ({"aud": "other.example"}, "aud does not name"),
    ({"aud": []}, "aud does not name"),
    ({"aud": [AUDIENCE, 3]}, "aud is missing"),
    ({"iat": None}, "iat is missing"),
    ({"iat": True}, "iat is missing"),
    ({"iat": "1800000000"}, "iat is missing"),
    ({"iat": int(NOW) + LEEWAY_S + 1}, "iat lies in the future"),
    ({"nbf": None}, "nbf is missing"),
    ({"nbf": int(NOW) + LEEWAY_S + 1}, "nbf lies in the future"),
    ({"exp": None}, "exp is missing"),
    ({"exp": NOW + 300.5}, "exp is missing"),
    ({"exp": int(NOW) + 901}, "exp is not within 900 s"),
    ({"iat": int(NOW) - 901}, "exp is not within 900 s"),
    ({"iat": int(NOW) - 600, "nbf": int(NOW) - 600, "exp": int(NOW) - LEEWAY_S}, "exp has passed"),
    ({"sub": None}, "sub is no principal"),
    ({"sub": "Ada"}, "sub is no principal"),
    ({"sub": "ada\n"}, "sub is no principal"),
    ({"jti": 5}, "jti is no text"),
    ({"jti": ""}, "jti is no text"),
    ({"cnf": {"jkt": "A" * 43}}, "cnf is not just"),
    ({"cnf": {}}, "cnf is not just"),
    ({"cnf": {"x5t#S256": "A" * 42}}, "cnf.x5t#S256 is no SHA-256"),
    ({"cnf": {"x5t#S256": "A" * 43}}, "not the certificate of this connection"),
]


@pytest.mark.parametrize(("changes", "why"), CLAIMS)
def test_claim_that_does_not_hold_is_named(bearers: Bearers, changes: dict[str, Any], why: str) -> None:
    assert why in refusal(bearers, token(claims(NOW, **changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"iat": int(NOW) + LEEWAY_S, "nbf": int(NOW) + LEEWAY_S},
        {"iat": int(NOW) - 600, "nbf": int(NOW) - 600, "exp": int(NOW) - LEEWAY_S + 1},
        {"iat": int(NOW), "exp": int(NOW) + 900},
        {"aud": ["other.example", AUDIENCE]},
        {"scope": "everything", "role": "operator", "weight": 0.5},
    ],
)
def test_leeway_and_foreign_claims_do_not_matter(bearers: Bearers, changes: dict[str, Any]) -> None:
    assert bearers.verify(token(claims(NOW, **changes)), None).principal == "ada"


def test_duplicate_member_is_refused_before_its_signature(bearers: Bearers) -> None:
    body = json.dumps(claims(NOW)).encode()
    doubled = body[:-1] + b', "sub": "ola"}'
    assert "name a member twice" in refusal(bearers, token(doubled))
    head = b'{"alg":"ES256","kid":"es","kid":"es"}'
    signed = f"{encoded(head)}.{encoded(body)}"
    assert "name a member twice" in refusal(bearers, f"{signed}.{encoded(signature(signed.encode(), 'es'))}")


@pytest.mark.parametrize(
    "text", ["", "a", "a.b.c", "a.b.c.d", "..", "é.b.c", "e30.e30.e30=", "e30+.e30.e30", "bnVsbA.e30.AA"]
)
def test_what_is_no_token_is_refused(bearers: Bearers, text: str) -> None:
    refusal(bearers, text)


def test_huge_token_is_refused_before_it_is_parsed(bearers: Bearers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_json, "loads", None)
    assert str(TOKEN_MAX) in refusal(bearers, "a" * (TOKEN_MAX + 1))


def test_rsa_key_below_2048_bits_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(JwksRefused, match=r"keys\[1\]: is an RSA key of 1024 bits"):
        read_jwks(write_jwks(tmp_path / "k.json", "rsa", "rsa1024"))


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ([], "1 to 64 keys"),
        ([{**jwk("es"), "d": "AA"}], "private or symmetric"),
        ([{"kty": "oct", "k": "AAAA", "kid": "a"}], "private or symmetric"),
        ([{**jwk("es"), "kid": None}], "has no kid"),
        ([jwk("es"), jwk("es")], "another key has its kid"),
        ([{**jwk("es"), "crv": "P-384"}], "neither P-256"),
        ([{**jwk("es"), "use": "enc"}], "not for signatures"),
        ([{**jwk("es"), "alg": "ES512"}], "not for signatures"),
        ([{**jwk("es"), "x": "AAAA"}], "no usable key"),
        ([{**jwk("es"), "x": jwk("es")["y"]}], "no usable key"),
        (["es"], "no JSON object"),
    ],
)
def test_key_file_that_cannot_be_used_is_told_by_key(tmp_path: Path, keys: list[Any], why: str) -> None:
    (tmp_path / "k.json").write_text(json.dumps({"keys": keys}))
    with pytest.raises(JwksRefused, match=why):
        read_jwks(tmp_path / "k.json")
    with pytest.raises(JwksRefused, match="cannot be read"):
        read_jwks(tmp_path / "absent.json")


def test_keys_are_read_again_when_the_file_changes(bearers: Bearers, issuer: Issuer) -> None:
    fresh = token(claims(NOW), "es2")
    assert "kid names no key" in refusal(bearers, fresh)
    _replace(issuer.jwks, "es2")
    assert bearers.verify(fresh, None).principal == "ada"
    assert "kid names no key" in refusal(bearers, token(claims(NOW), "es"))  # the old key is over
    issuer.jwks.write_text("{")
    assert "kid names no key" in refusal(bearers, fresh)
    _replace(issuer.jwks, "es2")
    assert bearers.verify(fresh, None).principal == "ada"


def _replace(path: Path, *kids: str) -> None:
    os.replace(write_jwks(path.with_suffix(".new"), *kids), path)


# Over the wire -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def open_house(tmp_path: Path, certificates: Path, empty_database: Path, issuer: Issuer) -> AsyncIterator[House]:
    """A server that also listens for callers without a certificate."""
    shutil.copy(empty_database, tmp_path / "assay.db")
    put_principal(f"sqlite:///{tmp_path / 'assay.db'}", "ada", tenant="acme", role="auditor", issuer=ISSUER)
    async with opened(tmp_path, certificates, issuers=(issuer,), token_address="127.0.0.1:0") as made:
        yield made


def bare(house: House) -> grpc.aio.Channel:
    """Return a channel without a certificate to the address that asks for none."""
    assert house.served is not None
    ca = (house.certificates / "ca.pem").read_bytes()
    made = grpc.aio.secure_channel(f"127.0.0.1:{house.served.token_port}", grpc.ssl_channel_credentials(ca))
    house.channels.append(made)
    return made


def showing(text: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {text}"),)


def fresh(sub: str = "ada", **changes: Any) -> str:
    return token(claims(time.time(), sub, **changes))


def capabilities(channel: grpc.aio.Channel, *metadata: tuple[str, str]) -> Any:
    stub: Any = capabilities_pb2_grpc.CapabilitiesStub(channel)
    return stub.GetCapabilities(capabilities_pb2.GetCapabilitiesRequest(), metadata=metadata)


async def test_caller_without_any_credential_is_told_so(open_house: House) -> None:
    answer = await told(capabilities(bare(open_house)))
    assert (answer.code, answer.reason) == ("UNAUTHENTICATED", "NO_CREDENTIAL")


async def test_token_alone_is_a_credential(open_house: House) -> None:
    channel = bare(open_house)
    assert (await capabilities(channel, *showing(fresh()))).api_version == "1.0"
    for sub in ("stranger", "odd"):
        assert (await told(capabilities(channel, *showing(fresh(sub))))).reason == "NO_CREDENTIAL"
    for metadata in (
        [*showing(fresh()), *showing(fresh())],
        [("authorization", "Basic YTpi")],
        [("authorization", "Bearer ")],
        [("authorization", "Bearer " + token(claims(NOW - 10**6)))],
    ):
        assert (await told(capabilities(channel, *metadata))).reason == "BAD_TOKEN"


async def test_metadata_above_8_kib_is_refused(open_house: House) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        await capabilities(bare(open_house), *showing("a" * (20 << 10)))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_server_without_an_issuer_believes_no_token(house: House) -> None:
    answer = await told(capabilities(house.channel(), *showing(fresh())))
    assert answer.reason == "BAD_TOKEN"  # also beside a good certificate: two credentials are not better than one


async def test_token_of_a_bound_certificate_counts_there_only(open_house: House) -> None:
    mine = thumbprint_of((open_house.certificates / "nobody.pem").read_bytes())
    text = fresh(cnf={"x5t#S256": mine})
    assert (await capabilities(open_house.channel("nobody"), *showing(text))).api_version == "1.0"
    for channel in (bare(open_house), open_house.channel("ada")):
        answer = await told(capabilities(channel, *showing(text)))
        assert (answer.reason, "not the certificate" in answer.message) == ("BAD_TOKEN", True)


async def _asked_with(house: House, sub: str, tenant: str = "acme", role: str = "auditor", issuer: str = "") -> str:
    """Enter a principal, show a good token that names it, and return why the call is refused; empty if it is not."""
    put_principal(house.settings.database_url, sub, tenant=tenant, role=role, issuer=issuer)
    try:
        await capabilities(bare(house), *showing(fresh(sub)))
    except grpc.RpcError as error:
        return told_by(error).reason
    return ""


async def test_issuer_cannot_name_who_has_only_a_certificate(open_house: House) -> None:
    assert await _asked_with(open_house, "cora") == "NO_CREDENTIAL"
    assert await _asked_with(open_house, "toto", issuer=ISSUER) == ""


async def test_issuer_cannot_name_a_principal_of_another_issuer(open_house: House) -> None:
    assert await _asked_with(open_house, "cora", issuer="https://other.example") == "NO_CREDENTIAL"


async def test_issuer_of_one_tenant_cannot_name_another_tenants_principal(open_house: House) -> None:
    assert await _asked_with(open_house, "cora", tenant="bolt", issuer=ISSUER) == "NO_CREDENTIAL"


@pytest.mark.parametrize("role", ["owner", "operator", "log-monitor"])
async def test_issuer_cannot_name_a_role_that_it_was_not_given(open_house: House, role: str) -> None:
    assert await _asked_with(open_house, "cora", role=role, issuer=ISSUER) == "NO_CREDENTIAL"


async def test_issuer_names_an_owner_where_its_section_does(open_house: House, issuer: Issuer) -> None:
    await open_house.stop()
    await open_house.start(issuers=(replace(issuer, roles=(Role.OWNER,)),))
    assert await _asked_with(open_house, "cora", role="owner", issuer=ISSUER) == ""
    assert await _asked_with(open_house, "toto", issuer=ISSUER) == "NO_CREDENTIAL"


async def test_foreign_principal_and_absent_one_get_the_same_bytes(open_house: House) -> None:
    answers = [await told(capabilities(bare(open_house), *showing(fresh(sub)))) for sub in ("ola", "nobody-at-all")]
    assert answers[0].raw == answers[1].raw


async def test_certificate_and_token_of_two_principals_are_refused(open_house: House) -> None:
    answer = await told(capabilities(open_house.channel("ben"), *showing(fresh("ada"))))
    assert (answer.reason, "another principal" in answer.message) == ("BAD_TOKEN", True)


def _client(house: House, text: str) -> tuple[Path, Path]:
    """Write a client's configuration that shows a token alone; return it and the token's file."""
    assert house.served is not None
    folder = house.settings.blob_dir.parent
    (folder / "token").write_text(text + "\n")
    config = {"address": f"127.0.0.1:{house.served.token_port}", "ca": str(house.certificates / "ca.pem")}
    file = folder / "client.json"
    file.write_text(json.dumps(config | {"token_file": "token"}))
    return file, folder / "token"


async def test_client_reads_its_token_again_for_each_call(open_house: House, tmp_path: Path) -> None:
    file, held = _client(open_house, token(claims(time.time() - 3600)))

    def ask() -> str:
        with AuditClient.from_config(file, patience_s=0.2, state=tmp_path / "state") as client:
            with pytest.raises(ServerRefused) as caught:
                client.capabilities()
            held.write_text(fresh())
            nonce = client.nonce("a")
            assert client.capabilities().api_version == "1.0"
            held.unlink()
            with pytest.raises(Unreachable, match="cannot read the token"):
                client.capabilities()
            held.write_text(fresh())
        with AuditClient.from_config(file, state=tmp_path / "state") as again:
            assert again.nonce("a") == nonce  # a repeated submission is the same one
        return str(caught.value.reason)

    assert await asyncio.to_thread(ask) == "BAD_TOKEN"
    assert (tmp_path / "state" / "nonce.key").stat().st_mode & 0o077 == 0


async def test_client_waits_where_it_called_too_often(open_house: House, tmp_path: Path) -> None:
    await open_house.stop()
    await open_house.start(limits=replace(QUICK, calls_per_s=20.0, calls_burst=1))
    file, _ = _client(open_house, fresh())

    def ask() -> None:
        with AuditClient.from_config(file, patience_s=20.0, state=tmp_path / "state") as client:
            for _ in range(3):
                client.capabilities()

    await asyncio.to_thread(ask)


async def test_unbound_token_changes_one_thing(open_house: House) -> None:
    stub: Any = blobs_pb2_grpc.BlobsStub(bare(open_house))
    request = blobs_pb2.BatchUpdateBlobsRequest(blobs=[blob_of(b"x")])
    text = fresh(jti="once")
    await stub.BatchUpdateBlobs(request, metadata=showing(text))
    answer = await told(stub.BatchUpdateBlobs(request, metadata=showing(text)))
    assert (answer.code, answer.reason) == ("UNAUTHENTICATED", "TOKEN_USED")
    other = token(claims(time.time() - 5, jti="once"))  # other bytes, the same jti
    assert (await told(stub.BatchUpdateBlobs(request, metadata=showing(other)))).reason == "TOKEN_USED"
    answer = await told(stub.BatchUpdateBlobs(request, metadata=showing(fresh())))
    assert (answer.reason, "jti is missing" in answer.message) == ("BAD_TOKEN", True)
    for _ in range(2):  # reading spends nothing
        await stub.FindMissingBlobs(blobs_pb2.FindMissingBlobsRequest(), metadata=showing(text))


async def test_bound_token_changes_many_things(open_house: House) -> None:
    mine = thumbprint_of((open_house.certificates / "ada.pem").read_bytes())
    stub: Any = blobs_pb2_grpc.BlobsStub(open_house.channel("ada"))
    text = fresh(cnf={"x5t#S256": mine})
    for data in (b"x", b"y"):
        await stub.BatchUpdateBlobs(blobs_pb2.BatchUpdateBlobsRequest(blobs=[blob_of(data)]), metadata=showing(text))


async def test_uses_of_tokens_that_nobody_believes_any_more_are_forgotten(open_house: House) -> None:
    with open_house.store.begin() as connection:
        connection.execute(token_use.insert().values(token_sha256="0" * 64, expires_at=1))
    stub: Any = blobs_pb2_grpc.BlobsStub(bare(open_house))
    request = blobs_pb2.BatchUpdateBlobsRequest(blobs=[blob_of(b"x")])
    await stub.BatchUpdateBlobs(request, metadata=showing(fresh(jti="new")))
    with open_house.store.read() as connection:
        assert connection.execute(select(func.count()).select_from(token_use)).scalar_one() == 1


async def test_disabled_principal_is_out_under_a_token_too(open_house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "CACHE_S", 0.0)
    monkeypatch.setattr(guard, "RECHECK_S", 0.0)
    call = await _watching(open_house, fresh())
    assert disable_principal(open_house.settings.database_url, "ada")
    assert await _end_of(call) == "NO_CREDENTIAL"
    assert (await told(capabilities(bare(open_house), *showing(fresh())))).reason == "NO_CREDENTIAL"


async def test_token_that_expires_ends_its_open_stream(open_house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "RECHECK_S", 0.0)
    call = await _watching(open_house, fresh())
    assert open_house.served is not None
    later = time.time() + 300 + LEEWAY_S
    monkeypatch.setattr(open_house.served.bearers, "_clock", lambda: later)
    assert await _end_of(call) == "BAD_TOKEN"


async def _watching(house: House, text: str) -> Any:
    made = await house.submit()
    stub: Any = audits_pb2_grpc.AuditsStub(bare(house))
    call = stub.WatchAudit(audits_pb2.WatchAuditRequest(name=made.name), metadata=showing(text))
    await call.read()
    return call


async def _end_of(call: Any) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        await _read_all(call)
    return told_by(caught.value).reason


async def _read_all(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_unusable_keys_stop_the_start(house: House, tmp_path: Path) -> None:
    short = Issuer(
        issuer=ISSUER, audience=AUDIENCE, jwks=write_jwks(tmp_path / "short.json", "rsa1024"), tenants=("acme",)
    )
    await house.stop()
    with pytest.raises(NotReady, match="1024 bits"):
        await house.start(issuers=(short,))
