"""The envelope of a trust root: DSSE with several signatures, under a payload type of its own.

The type keeps roots and reports apart: the signature of one never verifies as the other's.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assay import canonical, dsse, strict_json
from assay.errors import Malformed, Wrong, shown
from assay.keys import TrustedKey, key_id
from assay.shape import SHA256, TEXT, check, exactly
from assay.tlog.notes import decode_base64
from assay.trust.document import BYTES_MAX

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

PAYLOAD_TYPE = "application/vnd.assay.trust-root.v1+json"
ENVELOPE_MAX = 512 * 1024
"""Bytes of an envelope: a document at its cap in base64, and its signatures."""

SIGNATURES_MAX = 64
"""Most signatures: two generations of root keys, far above any quorum of people."""

_SHAPE = {"payload": TEXT, "payloadType": exactly(PAYLOAD_TYPE), "signatures": [{"keyid": SHA256, "sig": TEXT}]}


@dataclass(frozen=True)
class Envelope:
    """Signed bytes and who is said to have signed them."""

    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]
    """Key id and DER signature; a key may appear twice, and counts once."""


def sign(payload: bytes, keys: Iterable[EllipticCurvePrivateKey]) -> bytes:
    """Return the envelope of a trust root, signed by each of the keys."""
    signatures = [
        {
            "keyid": key_id(private.public_key()),
            "sig": base64.b64encode(dsse.sign(private, PAYLOAD_TYPE, payload)).decode(),
        }
        for private in keys
    ]
    body = base64.b64encode(payload).decode()
    return canonical.dumps({"payload": body, "payloadType": PAYLOAD_TYPE, "signatures": signatures})


def read(data: bytes) -> Envelope:
    """Read an envelope strictly.

    Raises:
        Malformed: not strict JSON, another payload type, no or too many signatures, or sloppy base64 or DER.
    """
    value = strict_json.loads(data, ENVELOPE_MAX)
    check(value, _SHAPE)
    listed = value["signatures"]
    if not 1 <= len(listed) <= SIGNATURES_MAX:
        raise Malformed("root_signatures", "/signatures", f"expected 1 to {SIGNATURES_MAX}, found {len(listed)}")
    signatures: list[tuple[str, bytes]] = []
    for index, one in enumerate(listed):
        der = decode_base64(one["sig"], f"/signatures/{index}/sig")
        if not dsse.is_canonical_der(der):
            raise Malformed("root_der", f"/signatures/{index}/sig", "the signature is not in canonical DER")
        signatures.append((one["keyid"], der))
    payload = decode_base64(value["payload"], "/payload")
    if len(payload) > BYTES_MAX:
        raise Malformed("size_cap", "/payload", f"a trust root has at most {BYTES_MAX} bytes")
    return Envelope(payload, tuple(signatures))


def signers(envelope: Envelope, keys: Mapping[str, TrustedKey]) -> frozenset[str]:
    """Return which of some keys signed an envelope; signatures of other keys are ignored.

    Raises:
        Wrong: a signature under one of these keys does not verify.
    """
    found: set[str] = set()
    for keyid, signature in envelope.signatures:
        if keyid not in keys:
            continue
        if not dsse.verify(keys[keyid].public, PAYLOAD_TYPE, envelope.payload, signature):
            raise Wrong(f"the trust root's signature of key {shown(keyid[:8])}… does not verify")
        found.add(keyid)
    return frozenset(found)
