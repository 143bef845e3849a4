"""Trust roots for these tests, honest unless told otherwise."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

from assay import canonical, keys
from assay.tlog import notes
from assay.trust import envelope
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LOG = notes.vkey_of(Ed25519PrivateKey.from_private_bytes(bytes(32)), "log.assay.example")


def key(number: int) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(number, ec.SECP256R1())


def name(number: int) -> str:
    return keys.key_id(key(number).public_key())


def listed(number: int, **fields: Any) -> dict[str, Any]:
    der = key(number).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return {
        "scheme": "ecdsa-p256-sha256",
        "public_spki_b64": base64.b64encode(der).decode(),
        "valid_from": "2026-01-01T00:00:00Z",
        "valid_until": "2026-12-31T00:00:00Z",
        "revoked_at": None,
        "revoked_reason": None,
        **fields,
    }


def root(version: int = 1, holders: tuple[int, ...] = (1, 2, 3), reporter: int = 9, **fields: Any) -> dict[str, Any]:
    """The document of a root: any two of the holders may change it."""
    return {
        "schema": "assay-trust-root/v1",
        "version": version,
        "issued_at": f"2026-01-{version:02d}T00:00:00Z",
        "expires_at": "2026-12-31T00:00:00Z",
        "operator": "operator.example",
        "keys": {name(number): listed(number) for number in (*holders, reporter)},
        "roles": {
            "root": {"keyids": [name(number) for number in holders], "threshold": 2},
            "report": {"keyids": [name(reporter)], "threshold": 1},
        },
        "logs": [
            {
                "origin": LOG.name,
                "vkey": LOG.text,
                "valid_from": "2026-01-01T00:00:00Z",
                "valid_until": "2026-12-31T00:00:00Z",
            }
        ],
        **fields,
    }


def signed(document: dict[str, Any], *signers: int) -> bytes:
    return envelope.sign(canonical.dumps(document), [key(number) for number in signers])
