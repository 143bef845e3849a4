"""Issuers of bearer tokens, honest and not: keys made anew for each test run, and tokens put together by hand."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ISSUER = "https://issuer.example"
AUDIENCE = "assay.example"

Private = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(value: int) -> str:
    return encoded(value.to_bytes((value.bit_length() + 7) // 8, "big"))


@cache
def key(kid: str) -> Private:
    """Return the private key behind a kid: es, es2, ed, rsa, or rsa1024."""
    if kid.startswith("es"):
        return ec.generate_private_key(ec.SECP256R1())
    if kid == "ed":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=1024 if kid == "rsa1024" else 2048)


def jwk(kid: str) -> dict[str, Any]:
    """Return the public half as JSON Web Key."""
    public = key(kid).public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        numbers = public.public_numbers()
        x, y = (encoded(one.to_bytes(32, "big")) for one in (numbers.x, numbers.y))
        return {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": kid, "use": "sig", "alg": "ES256"}
    if isinstance(public, ed25519.Ed25519PublicKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": encoded(public.public_bytes_raw()), "kid": kid}
    assert isinstance(public, rsa.RSAPublicKey)
    return {"kty": "RSA", "n": _number(public.public_numbers().n), "e": "AQAB", "kid": kid, "key_ops": ["verify"]}


def write_jwks(path: Path, *kids: str) -> Path:
    path.write_text(json.dumps({"keys": [jwk(kid) for kid in kids]}))
    return path


def claims(now: float, sub: str = "ada", **changes: Any) -> dict[str, Any]:
    """Return claims that would be believed; a change to None leaves the claim out."""
    at = int(now)
    told: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": sub, "iat": at, "nbf": at, "exp": at + 300}
    return {name: value for name, value in (told | changes).items() if value is not None}


def token(told: Any, kid: str = "es", header: dict[str, Any] | None = None, *, signer: str | None = None) -> str:
    """Return a signed token.

    Args:
        told: the claims, or their bytes.
        kid: which key its header names.
        header: members that the header has besides, or instead; None as a value leaves one out.
        signer: the key that really signs; by default the one that is named.
    """
    names = {"e": "ES256", "r": "RS256"}
    alg = "EdDSA" if kid == "ed" else names[kid[0]]
    head = {"alg": alg, "kid": kid, "typ": "JWT"} | (header or {})
    head = {name: value for name, value in head.items() if value is not None}
    body = told if isinstance(told, bytes) else json.dumps(told).encode()
    signed = f"{encoded(json.dumps(head).encode())}.{encoded(body)}"
    return f"{signed}.{encoded(signature(signed.encode(), signer or kid))}"


def signature(data: bytes, kid: str) -> bytes:
    private = key(kid)
    if isinstance(private, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(private.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return private.sign(data)
    return private.sign(data, padding.PKCS1v15(), hashes.SHA256())


def with_public_key_as_secret(told: dict[str, Any], kid: str) -> str:
    """Return a token whose HMAC's secret is the public key's PEM: believed by readers that take alg from the token."""
    pem = (
        key(kid).public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    head = {"alg": "HS256", "kid": kid, "typ": "JWT"}
    signed = f"{encoded(json.dumps(head).encode())}.{encoded(json.dumps(told).encode())}"
    return f"{signed}.{encoded(hmac.digest(pem, signed.encode(), hashlib.sha256))}"
