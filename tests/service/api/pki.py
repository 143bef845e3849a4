"""A certificate authority for tests, and the certificates that it makes."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.x509.oid import NameOID


def make_certificates(folder: Path, principals: Sequence[str]) -> None:
    """Make ca, server, one certificate per principal, "stranger" (no such principal) and "nobody" (no name of ours)."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _certify(folder, "ca", ca_key, None, [])
    for name in ("server", *principals, "stranger", "nobody"):
        uri = x509.UniformResourceIdentifier(f"assay:principal:{name}")
        local: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        special: dict[str, list[x509.GeneralName]] = {"server": local, "nobody": [x509.DNSName("nobody")]}
        _certify(folder, name, ec.generate_private_key(ec.SECP256R1()), (ca, ca_key), special.get(name, [uri]))


def make_another(folder: Path, principal: str, file: str) -> Path:
    """Make a second certificate of a principal, with a key of its own, as {file}.pem; return its path."""
    ca = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    ca_key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    uri = x509.UniformResourceIdentifier(f"assay:principal:{principal}")
    _certify(folder, file, ec.generate_private_key(ec.SECP256R1()), (ca, ca_key), [uri])
    return folder / f"{file}.pem"


def make_twin(folder: Path, name: str, file: str) -> Path:
    """Write {file}.pem: the same certificate with the other signature that (r, s) of ECDSA implies, (r, n - s).

    Whoever has the certificate can make it, without the authority's key.
    """
    found = x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())
    r, s = decode_dss_signature(found.signature)
    other = encode_dss_signature(r, ec.SECP256R1().group_order - s)
    der = found.public_bytes(serialization.Encoding.DER)
    # Header of 4 bytes, then what is signed and the algorithm, then header (2), no unused bits (1), signature.
    inner = der[4 : -len(found.signature) - 3] + bytes((3, len(other) + 1, 0)) + other
    twin = x509.load_der_x509_certificate(b"\x30\x82" + len(inner).to_bytes(2, "big") + inner)
    (folder / f"{file}.pem").write_bytes(twin.public_bytes(serialization.Encoding.PEM))
    (folder / f"{file}.key").write_bytes((folder / f"{name}.key").read_bytes())
    return folder / f"{file}.pem"


def _certify(
    folder: Path,
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None,
    places: list[x509.GeneralName],
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if places:
        builder = builder.add_extension(x509.SubjectAlternativeName(places), critical=False)
    made = builder.sign(issuer[1] if issuer else key, hashes.SHA256())
    (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made
