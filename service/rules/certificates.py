"""What a client certificate is called when it is revoked: the SHA-256 of its DER, and every other name it could take.

Whoever holds a certificate that was signed by ECDSA can write a second one of the same content without the authority:
with (r, s) also (r, n - s) verifies. Its thumbprint is another, so a certificate is held against those of both.
"""

from __future__ import annotations

import hashlib
import re

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

PEM_MAX = 64 << 10
"""Bytes of a file with a certificate; ours have about 1 KiB."""

_CURVES = (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())
"""Curves of authorities that gRPC verifies. Which one signed does not show in a certificate, so each is tried."""

_PRINCIPAL = re.compile(r"assay:principal:([a-z0-9][a-z0-9-]{0,62})")

_THUMBPRINT = re.compile(r"[0-9a-f]{64}")


class CertificateMalformed(Exception):
    """Bytes are not one certificate, or a text is no thumbprint; the message says why."""


def principal_in(name: str) -> str | None:
    """Return the principal that a URI of a certificate names; None if it is no such URI."""
    found = _PRINCIPAL.fullmatch(name)
    return None if found is None else found[1]


def thumbprint_from(text: str) -> str:
    """Return a thumbprint as it is stored, however it was written: in upper case, with colons between the bytes.

    Raises:
        CertificateMalformed: it has not 64 hex digits.
    """
    found = text.replace(":", "").lower()
    if not _THUMBPRINT.fullmatch(found):
        raise CertificateMalformed(f"it has not 64 hex digits, but {len(found)} characters")
    return found


def read(pem: bytes) -> tuple[str, str]:
    """Return thumbprint and principal of a file that holds one client certificate.

    Raises:
        CertificateMalformed: it holds none, several, or one that names no principal.
    """
    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise CertificateMalformed("it holds no certificate in PEM") from None
    if len(found) != 1:
        raise CertificateMalformed(f"it holds {len(found)} certificates; give the client's alone")
    try:
        names = found[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        uris = []
    principals = [one for one in map(principal_in, uris) if one is not None]
    if len(principals) != 1:
        raise CertificateMalformed("its certificate names no principal, so nobody calls with it")
    return _sha256(found[0].public_bytes(Encoding.DER)), principals[0]


def thumbprints(pem: bytes) -> tuple[str, ...]:
    """Return every thumbprint under which the certificate of a connection may have been revoked.

    Raises:
        CertificateMalformed: it cannot be read.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        return tuple(map(_sha256, (certificate.public_bytes(Encoding.DER), *_twins(certificate))))
    except ValueError:
        raise CertificateMalformed("the certificate cannot be read") from None


def _twins(certificate: x509.Certificate) -> list[bytes]:
    """Return the certificate's DER with each signature that holds where its own does (SEC 1, section 4.1.4)."""
    if not certificate.signature_algorithm_oid.dotted_string.startswith(_ECDSA):
        return []
    r, s = decode_dss_signature(certificate.signature)
    der, signed = certificate.public_bytes(Encoding.DER), certificate.tbs_certificate_bytes
    tail = _bits(certificate.signature)
    begin = der.index(signed)
    kept = der[begin : len(der) - len(tail)]  # what is signed, and the algorithm
    if der != _header(0x30, len(kept) + len(tail)) + kept + tail:
        raise ValueError("not DER")
    orders = [curve.group_order for curve in _CURVES]
    found = (_bits(encode_dss_signature(r, order - s)) for order in orders if max(r, s) < order)
    return [_header(0x30, len(kept) + len(one)) + kept + one for one in found]


_ECDSA = "1.2.840.10045.4."
"""Arc of the signatures of ECDSA (RFC 5758, section 3.2)."""


def _bits(signature: bytes) -> bytes:
    return _header(0x03, len(signature) + 1) + b"\0" + signature


def _header(tag: int, length: int) -> bytes:
    """Return tag and length in DER (X.690, section 10.1)."""
    if length < 0x80:
        return bytes((tag, length))
    written = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(written))) + written


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
