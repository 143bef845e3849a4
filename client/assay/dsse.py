"""DSSE: what is signed, and how. ECDSA on P-256 with SHA-256, signatures in DER.

P-256 because four independent stacks verify it. The algorithm comes from the reader's trusted key, never from the
envelope. `cryptography` is imported where it is used, so that reading formats costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
"""The payload type of every in-toto Statement."""

SIGNATURE_MAX = 72
"""Longest DER form of a P-256 signature: two integers of 33 bytes, two headers of 2, one of 2."""


def pae(payload_type: str, body: bytes) -> bytes:
    """Return the pre-authentication encoding: the bytes that are signed. Lengths count bytes, not characters."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)


def sign(key: EllipticCurvePrivateKey, payload_type: str, body: bytes) -> bytes:
    """Return the DER signature over the pre-authentication encoding.

    The nonce is derived from key and message (RFC 6979): no random source can leak the key, and signing the same
    statement again gives the same report.
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    return key.sign(pae(payload_type, body), ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


def verify(key: EllipticCurvePublicKey, payload_type: str, body: bytes, signature: bytes) -> bool:
    """Tell whether a DER signature verifies. A raw r||s or a sloppy DER form never does."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    if not is_canonical_der(signature):
        return False
    try:
        key.verify(signature, pae(payload_type, body), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def is_canonical_der(signature: bytes) -> bool:
    """Tell whether the bytes are the one DER form of a pair of positive integers; high s is allowed."""
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

    if len(signature) > SIGNATURE_MAX:
        return False
    try:
        r, s = decode_dss_signature(signature)
        return r > 0 and s > 0 and encode_dss_signature(r, s) == signature
    except ValueError:
        return False
