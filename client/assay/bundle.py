"""The Sigstore bundle that carries a report: one DSSE envelope, one signature, a hint of the key.

    {"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json",
     "verificationMaterial":{"publicKey":{"hint":KEYID}},
     "dsseEnvelope":{"payload","payloadType","signatures":[{"sig","keyid":KEYID}]}}

The reader is stricter than the format: what another reader could take for something else is refused. Unknown fields
are ignored. Nothing here says that a signature is good; `assay.verify` does.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

from assay import canonical, strict_json
from assay.dsse import PAYLOAD_TYPE, is_canonical_der
from assay.errors import Malformed, shown
from assay.shape import SHA256, TEXT, check

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
FILE_NAME = "report.sigstore.json"
VSA_FILE_NAME = "vsa.sigstore.json"
TEST_RESULT_FILE_NAME = "test-result.sigstore.json"
REPLICATION_FILE_NAME = "replication.sigstore.json"
"""What lies beside a report that repeats another one, in a bundle of the same form."""
COMPANIONS = (VSA_FILE_NAME, TEST_RESULT_FILE_NAME)
"""What may lie beside a report with a verdict, each in a bundle of the same form."""

BYTES_MAX = 16 * 1024 * 1024
"""A statement at its cap of 8 MiB, in base64."""

_SHAPE = {
    "mediaType": TEXT,
    "verificationMaterial": {"publicKey": {"hint": SHA256}},
    "dsseEnvelope": {"payload": TEXT, "payloadType": TEXT, "signatures": [{"sig": TEXT, "keyid": SHA256}]},
}

_RIVALS = {"verificationMaterial": ("certificate", "x509CertificateChain"), "": ("messageSignature",)}
"""Other members of the format's one-of groups: a reader that picked one of these would see another bundle."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What a bundle carries, decoded."""

    payload: bytes
    """The signed statement; not to be parsed before its signature verified."""
    signature: bytes
    """DER."""
    key_id: str
    """Names the key that is said to have signed; only a hint."""


def write(bundle: Bundle) -> bytes:
    """Return the canonical bytes of a bundle."""
    return canonical.dumps(
        {
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": bundle.key_id}},
            "dsseEnvelope": {
                "payload": base64.b64encode(bundle.payload).decode(),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"sig": base64.b64encode(bundle.signature).decode(), "keyid": bundle.key_id}],
            },
        }
    )


def read(data: bytes) -> Bundle:
    """Read a bundle strictly.

    Raises:
        Malformed: not strict JSON, another media or payload type, not exactly one signature, base64 or DER that is
            not the one form of its bytes, a hint that differs from the keyid, or material that is not ours.
    """
    value = strict_json.loads(data, BYTES_MAX)
    check(value, _SHAPE)
    envelope, material = value["dsseEnvelope"], value["verificationMaterial"]
    _expect(value["mediaType"], MEDIA_TYPE, "/mediaType")
    _expect(envelope["payloadType"], PAYLOAD_TYPE, "/dsseEnvelope/payloadType")
    _refuse_rivals(value, material)
    if len(envelope["signatures"]) != 1:
        at = "/dsseEnvelope/signatures"
        raise Malformed("bundle_signatures", at, f"expected exactly one signature, found {len(envelope['signatures'])}")
    [signature] = envelope["signatures"]
    _expect(signature["keyid"], material["publicKey"]["hint"], "/dsseEnvelope/signatures/0/keyid")
    der = decode_base64(signature["sig"], "/dsseEnvelope/signatures/0/sig")
    if not is_canonical_der(der):
        raise Malformed("bundle_der", "/dsseEnvelope/signatures/0/sig", "the signature is not in canonical DER")
    payload = decode_base64(envelope["payload"], "/dsseEnvelope/payload")
    return Bundle(payload=payload, signature=der, key_id=signature["keyid"])


def _expect(found: str, expected: str, at: str) -> None:
    if found != expected:
        raise Malformed("bundle_form", at, f"expected {shown(expected)}, found {shown(found)}")


def _refuse_rivals(value: dict[str, Any], material: dict[str, Any]) -> None:
    for holder, place in ((value, ""), (material, "verificationMaterial")):
        for field in _RIVALS[place]:
            if field in holder:
                raise Malformed("bundle_form", f"/{place}/{field}".replace("//", "/"), "a report carries no such field")
    if material.get("tlogEntries") not in (None, []):
        raise Malformed("bundle_form", "/verificationMaterial/tlogEntries", "a report carries no Rekor entry")


def decode_base64(text: str, at: str) -> bytes:
    """Decode standard or URL-safe base64 in its one canonical form: padded, zero trailing bits, no mixture.

    Raises:
        Malformed: another form.
    """
    urlsafe = "-" in text or "_" in text
    try:
        raw = text.encode("ascii")
        data = base64.b64decode(raw, altchars=b"-_" if urlsafe else None, validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise Malformed("bundle_base64", at, "not base64") from None
    if (base64.urlsafe_b64encode(data) if urlsafe else base64.b64encode(data)) != raw:
        raise Malformed("bundle_base64", at, "not the canonical base64 of its bytes (padding, trailing bits, alphabet)")
    return data
