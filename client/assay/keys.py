"""Keys: P-256 public keys in PEM, named by the SHA-256 of their SubjectPublicKeyInfo."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import Misused

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

PEM_MAX = 16 * 1024
"""A P-256 key in PEM has 178 bytes."""


@dataclass(frozen=True)
class TrustedKey:
    """A public key that the reader chose to trust. A key found beside a report is never one."""

    id: str
    """Hex SHA-256 of the key's SubjectPublicKeyInfo in DER."""
    public: EllipticCurvePublicKey


def key_id(public: EllipticCurvePublicKey) -> str:
    """Return a key's name: hex SHA-256 of its SubjectPublicKeyInfo in DER."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def public_pem(public: EllipticCurvePublicKey) -> bytes:
    """Return a public key as PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def load_public(path: Path) -> TrustedKey:
    """Read a trusted public key.

    Raises:
        Misused: the file cannot be read, or is no P-256 public key in PEM.
    """
    try:
        with path.open("rb") as file:
            return parse_public(file.read(PEM_MAX + 1), str(path))
    except OSError as error:
        raise Misused(f"cannot read the key {path}: {error.strerror}") from error


def parse_public(pem: bytes, where: str) -> TrustedKey:
    """Read a trusted public key from PEM bytes; `where` names it in messages.

    Raises:
        Misused: no P-256 public key in PEM.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        public = load_pem_public_key(pem) if len(pem) <= PEM_MAX else None
    except (ValueError, UnsupportedAlgorithm):
        public = None
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise Misused(f"{where} is no P-256 public key in PEM (BEGIN PUBLIC KEY); give the operator's report key")
    return TrustedKey(key_id(public), public)
