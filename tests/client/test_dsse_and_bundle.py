"""Envelope and bundle: published vectors, three independent verifiers, and every sloppy form refused."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from assay import bundle, canonical, dsse, keys, manifest, statement
from assay.errors import Malformed, Misused
from assay.testing import Forge
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "vectors.json").read_bytes())
WYCHEPROOF = Path(os.environ.get("ASSAY_DATA", Path(__file__).parents[2] / "../shared/data")) / "vectors/wycheproof"
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def test_vector_t2_verifies_as_der_and_never_as_raw() -> None:
    vector = VECTORS["T2"]
    body = vector["body"].encode()
    assert hashlib.sha256(dsse.pae(vector["payload_type"], body)).hexdigest() == vector["pae_sha256"]
    public = ec.EllipticCurvePublicNumbers(int(vector["x"]), int(vector["y"]), ec.SECP256R1()).public_key()
    der = base64.b64decode(vector["signature"])
    assert dsse.verify(public, vector["payload_type"], body, der)
    r, s = decode_dss_signature(der)
    raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    assert not dsse.verify(public, vector["payload_type"], body, raw)
    assert not dsse.verify(public, vector["payload_type"], body + b"!", der)
    assert not dsse.verify(public, vector["payload_type"] + "!", body, der)


def test_pae_counts_characters() -> None:
    assert dsse.pae("é", "é".encode()) == b"DSSEv1 2 \xc3\xa9 2 \xc3\xa9"


def test_vector_t3_statement_key_and_deterministic_signature() -> None:
    vector = VECTORS["T3"]
    files = [
        manifest.FileEntry(path=name, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        for name, data in ((name, bytes.fromhex(content)) for name, content in VECTORS["T1"]["files"])
    ]
    built = statement.build(manifest.Manifest(tuple(files)), {})
    built["subject"] = built["subject"][:1]
    payload = canonical.dumps(built)
    assert len(payload) == vector["payload_size"]
    assert hashlib.sha256(dsse.pae(dsse.PAYLOAD_TYPE, payload)).hexdigest() == vector["pae_sha256"]
    private = ec.derive_private_key(int(vector["d"], 16), ec.SECP256R1())
    assert keys.key_id(private.public_key()) == vector["keyid"]
    signature = dsse.sign(private, dsse.PAYLOAD_TYPE, payload)
    assert base64.b64encode(signature).decode() == vector["signature"]
    assert dsse.verify(private.public_key(), dsse.PAYLOAD_TYPE, payload, signature)


@pytest.mark.skipif(not WYCHEPROOF.is_dir(), reason="no Wycheproof vectors: set ASSAY_DATA to the folder of vectors/")
def test_wycheproof_signatures() -> None:
    groups = json.loads((WYCHEPROOF / "ecdsa_secp256r1_sha256_test.json").read_bytes())["testGroups"]
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes

    seen = 0
    for group in groups:
        key = keys.parse_public(group["publicKeyPem"].encode(), "vector").public
        for case in group["tests"]:
            signature = bytes.fromhex(case["sig"])
            accepted = dsse.is_canonical_der(signature)
            if accepted:  # our reader's second half, on the vector's bare message
                try:
                    key.verify(signature, bytes.fromhex(case["msg"]), ec.ECDSA(hashes.SHA256()))
                except InvalidSignature:
                    accepted = False
            assert accepted == (case["result"] == "valid"), case["comment"]
            seen += 1
    assert seen > 400


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Forge:
    return Forge(tmp_path_factory.mktemp("forge"))


@pytest.fixture(scope="module")
def honest(forge: Forge) -> bytes:
    return (forge.report() / bundle.FILE_NAME).read_bytes()


def test_reading_gives_back_what_was_written(honest: bytes, forge: Forge) -> None:
    carried = bundle.read(honest)
    assert carried.key_id == forge.key_id
    assert bundle.write(carried) == honest


def _set(*path: Any) -> Callable[[dict[str, Any]], None]:
    *inner, last, value = path

    def change(document: dict[str, Any]) -> None:
        target: Any = document
        for part in inner:
            target = target[part]
        target[last] = value

    return change


ENVELOPE = "dsseEnvelope"
MATERIAL = "verificationMaterial"
FORMS: dict[str, Callable[[dict[str, Any]], None]] = {
    "media type of another version": _set("mediaType", "application/vnd.dev.sigstore.bundle.v0.2+json"),
    "payload type": _set(ENVELOPE, "payloadType", "application/vnd.in-toto+json "),
    "no signature": _set(ENVELOPE, "signatures", []),
    "the same signature twice": lambda d: d[ENVELOPE]["signatures"].append(d[ENVELOPE]["signatures"][0]),
    "keyid is not the hint": _set(ENVELOPE, "signatures", 0, "keyid", "0" * 64),
    "hint is no digest": _set(MATERIAL, "publicKey", "hint", "key-1"),
    "keyid missing": lambda d: d[ENVELOPE]["signatures"][0].pop("keyid"),
    "a certificate beside the key": _set(MATERIAL, "certificate", {"rawBytes": ""}),
    "a message signature beside the envelope": _set("messageSignature", {}),
    "a Rekor entry": _set(MATERIAL, "tlogEntries", [{"logIndex": "1"}]),
    "payload is a number": _set(ENVELOPE, "payload", 7),
    "signature base64 with a line break": lambda d: d[ENVELOPE]["signatures"][0].update(
        sig=d[ENVELOPE]["signatures"][0]["sig"] + "\n"
    ),
}


@pytest.mark.parametrize("first", [True, False])
def test_extra_bad_signature_accepted(first: bool, honest: bytes) -> None:
    document = json.loads(honest)
    good = document[ENVELOPE]["signatures"][0]
    bad = {**good, "sig": good["sig"][:-8] + ("AAAAAAA=" if good["sig"].endswith("=") else "AAAAAAAA")}
    document[ENVELOPE]["signatures"] = [bad, good] if first else [good, bad]
    with pytest.raises(Malformed, match="signature"):
        bundle.read(canonical.dumps(document))


@pytest.mark.parametrize("name", FORMS)
def test_other_forms_are_refused(name: str, honest: bytes) -> None:
    document = json.loads(honest)
    FORMS[name](document)
    with pytest.raises(Malformed):
        bundle.read(canonical.dumps(document))


def test_unknown_fields_and_an_empty_log_list_are_ignored(honest: bytes) -> None:
    document = json.loads(honest)
    document["later"] = {"x": 1}
    document[MATERIAL]["tlogEntries"] = []
    assert bundle.read(canonical.dumps(document)) == bundle.read(honest)


@pytest.mark.parametrize(
    "text", ["QQ", "QQ=", "QQ===", "QR==", "Q Q=", "QQ==\n", "+-AA", "é===", "Q=Q=", "=QQ=", "QQ==QQ=="]
)
def test_base64_junk_accepted(text: str) -> None:
    with pytest.raises(Malformed, match="base64"):
        bundle.decode_base64(text, "/payload")


def test_both_base64_alphabets_are_read() -> None:
    assert bundle.decode_base64("+/8=", "") == bundle.decode_base64("-_8=", "") == b"\xfb\xff"
    assert bundle.decode_base64("", "") == b""


def _long_form(der: bytes) -> bytes:
    return b"\x30\x81" + der[1:]


DER: dict[str, Callable[[bytes, int, int], bytes]] = {
    "raw r||s": lambda der, r, s: r.to_bytes(32, "big") + s.to_bytes(32, "big"),
    "long length form": lambda der, r, s: _long_form(der),
    "indefinite length": lambda der, r, s: b"\x30\x80" + der[2:] + b"\x00\x00",
    "trailing byte": lambda der, r, s: der + b"\x00",
    "truncated": lambda der, r, s: der[:-1],
    "empty": lambda der, r, s: b"",
    "zero r": lambda der, r, s: encode_dss_signature(0, s),
    "zero s": lambda der, r, s: encode_dss_signature(r, 0),
    "negative r": lambda der, r, s: b"\x30\x06\x02\x01\xff\x02\x01\x01",
    "overlong integer": lambda der, r, s: bytes([0x30, der[1] + 1, 2, der[3] + 1, 0]) + der[4:],
    "huge": lambda der, r, s: encode_dss_signature(r << 4096, s),
}


@pytest.mark.parametrize("name", DER)
def test_a_signature_in_another_form_is_refused_by_the_reader(name: str, honest: bytes) -> None:
    document = json.loads(honest)
    signature = document[ENVELOPE]["signatures"][0]
    der = base64.b64decode(signature["sig"])
    signature["sig"] = base64.b64encode(DER[name](der, *decode_dss_signature(der))).decode()
    with pytest.raises(Malformed):
        bundle.read(canonical.dumps(document))


def test_high_s_is_read_and_verifies(honest: bytes, forge: Forge) -> None:
    carried = bundle.read(honest)
    r, s = decode_dss_signature(carried.signature)
    other = encode_dss_signature(r, ORDER - s)
    key = keys.load_public(forge.key_file)
    assert dsse.is_canonical_der(other)
    assert dsse.verify(key.public, dsse.PAYLOAD_TYPE, carried.payload, other)


def test_openssl_verifies_the_envelope(honest: bytes, forge: Forge, tmp_path: Path) -> None:
    envelope = json.loads(honest)["dsseEnvelope"]
    body = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"].encode()
    # The encoding, written out here a second time on purpose: no line of ours takes part.
    encoded = b"DSSEv1 " + str(len(kind)).encode() + b" " + kind + b" " + str(len(body)).encode() + b" " + body
    (tmp_path / "pae.bin").write_bytes(encoded)
    (tmp_path / "sig.der").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    command = ["openssl", "dgst", "-sha256", "-verify", str(forge.key_file), "-signature", "sig.der", "pae.bin"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    (tmp_path / "pae.bin").write_bytes(encoded[:-1] + b"!")
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode != 0


def test_securesystemslib_verifies_the_envelope(honest: bytes, forge: Forge) -> None:
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer._key import SSlibKey

    def envelope(document: dict[str, Any]) -> Envelope:
        return Envelope.from_dict(copy.deepcopy(document["dsseEnvelope"]))

    key = SSlibKey(
        forge.key_id,
        "ecdsa",
        "ecdsa-sha2-nistp256",
        {"public": forge.key_file.read_text()},
    )
    document = json.loads(honest)
    assert list(envelope(document).verify([key], 1)) == [forge.key_id]
    body = base64.b64decode(document["dsseEnvelope"]["payload"])
    document["dsseEnvelope"]["payload"] = base64.b64encode(body.replace(b"true", b"null", 1)).decode()
    with pytest.raises(VerificationError):
        envelope(document).verify([key], 1)


def test_a_file_that_is_no_p256_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    with pytest.raises(Misused, match="cannot read"):
        keys.load_public(path)
    other = keys.public_pem(ec.generate_private_key(ec.SECP384R1()).public_key())
    for content in (
        b"",
        b"junk",
        other,
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        bytes(20_000),
    ):
        path.write_bytes(content)
        with pytest.raises(Misused, match=r"no P-256 public key"):
            keys.load_public(path)
