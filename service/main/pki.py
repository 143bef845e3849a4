"""A certificate authority for development: it makes this machine's server and client certificates, and no others."""

from __future__ import annotations

import datetime
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = datetime.timedelta(days=365)
"""Development certificates are made anew once less than a tenth of this is left."""


def ensure(folder: Path, principals: tuple[str, ...], hosts: tuple[str, ...] = ()) -> None:
    """Make ca.pem, server.pem and one {principal}.pem each, with keys beside them, unless they are there and fresh.

    The server's certificate is for loopback and for `hosts` (names or addresses).
    """
    authority, authority_key = _authority(folder)
    places = x509.SubjectAlternativeName([_general_name(host) for host in ("localhost", "127.0.0.1", *hosts)])
    for name in ("server", *principals):
        if _is_fresh(folder / f"{name}.pem", authority):
            continue
        key = ec.generate_private_key(ec.SECP256R1())
        uri = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"assay:principal:{name}")])
        alternative = places if name == "server" else uri
        _write(folder, name, _certificate(name, key, alternative, (authority, authority_key)), key)


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Read the authority, or make it anew: then every certificate it issued is made anew too."""
    certificate, private = folder / "ca.pem", folder / "ca.key"
    if certificate.exists() and private.exists():
        authority = x509.load_pem_x509_certificate(certificate.read_bytes())
        key = serialization.load_pem_private_key(private.read_bytes(), password=None)
        if _lasts(authority) and isinstance(key, ec.EllipticCurvePrivateKey):
            return authority, key
    fresh = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("Assay private CA", fresh, None, None)
    _write(folder, "ca", authority, fresh)
    return authority, fresh


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _is_fresh(path: Path, authority: x509.Certificate) -> bool:
    if not path.exists() or not path.with_suffix(".key").exists():
        return False
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, InvalidSignature):  # issued by an earlier authority
        return False
    return _lasts(certificate)


def _lasts(certificate: x509.Certificate) -> bool:
    return certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC) > LIFETIME / 10


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    alternative: x509.SubjectAlternativeName | None,
    issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
        .add_extension(
            x509.BasicConstraints(ca=issuer is None, path_length=0 if issuer is None else None), critical=True
        )
    )
    if alternative is not None:
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if name == "server" else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(alternative, critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256())


def _write(folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    target = folder / f"{name}.key"
    target.unlink(missing_ok=True)
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(private)
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
