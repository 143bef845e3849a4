"""What a revoked certificate could call itself next: each other signature that holds gives it another thumbprint."""

from __future__ import annotations

import datetime
import hashlib
import ssl
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from service.rules import certificates
from service.rules.certificates import CertificateMalformed, read, thumbprints

NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ada")])


def signed_by_itself(key: Any) -> x509.Certificate:
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(NAME).issuer_name(NAME).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def holds(der: bytes, authority: x509.Certificate) -> bool:
    try:
        x509.load_der_x509_certificate(der).verify_directly_issued_by(authority)
    except InvalidSignature:
        return False
    return True


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_twin_of_every_curve_is_looked_for(curve: ec.EllipticCurve) -> None:
    made = signed_by_itself(ec.generate_private_key(curve))
    pem = made.public_bytes(Encoding.PEM)
    own = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.decode())).hexdigest()
    twins = [der for der in certificates._twins(made) if holds(der, made)]
    assert len(twins) == 1
    assert thumbprints(pem)[0] == own
    assert hashlib.sha256(twins[0]).hexdigest() in thumbprints(pem)
    twin = x509.load_der_x509_certificate(twins[0]).public_bytes(Encoding.PEM)
    assert own in thumbprints(twin)  # also where it was the twin that was revoked


def test_signature_that_has_no_twin_has_one_thumbprint() -> None:
    pem = signed_by_itself(ed25519.Ed25519PrivateKey.generate()).public_bytes(Encoding.PEM)
    assert len(thumbprints(pem)) == 1


def test_what_cannot_be_read_is_no_certificate() -> None:
    whole = signed_by_itself(ec.generate_private_key(ec.SECP256R1())).public_bytes(Encoding.PEM)
    for pem in (b"", b"junk", whole[:200], whole.replace(b"MII", b"AAA", 1)):
        with pytest.raises(CertificateMalformed, match="cannot be read"):
            thumbprints(pem)
        with pytest.raises(CertificateMalformed, match="no certificate in PEM"):
            read(pem)
