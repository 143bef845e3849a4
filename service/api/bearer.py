"""Bearer tokens: the issuers' keys from files, one signature, and then `service.rules.bearer`.

Which keys there are and what algorithm each is for stands in the issuer's file. The token only names a key (`kid`) of
an issuer that the configuration names; it brings no key, no address of one, and no algorithm of its own choice.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay import strict_json
from assay.errors import Malformed
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc import jws
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from service.rules.access import Caller, Role
from service.rules.bearer import RSA_BITS_MIN, TOKEN_MAX, Token, check_claims, check_header, issuer_of, refuse
from service.rules.errors import Refusal

JWKS_MAX = 256 << 10
"""Bytes of an issuer's key file; a key of RSA has under 1 KiB."""

KEYS_MAX = 64
"""Keys of one issuer."""

LOG = logging.getLogger("assay.api")

_KINDS: Mapping[tuple[str, str | None], tuple[str, Any]] = {
    ("EC", "P-256"): ("ES256", ECKey),
    ("OKP", "Ed25519"): ("EdDSA", OKPKey),
    ("RSA", None): ("RS256", RSAKey),
}
"""(kty, crv) -> the one algorithm that such a key is for."""

_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
"""Members that only a private or symmetric key has (RFC 7518, section 6)."""


_BASE64 = re.compile(r"[A-Za-z0-9_-]+")


class JwksRefused(Exception):
    """An issuer's key file cannot be used; the message names file, key and reason."""


@dataclass(frozen=True, kw_only=True)
class Issuer:
    """One issuer of tokens, as the operator configures it."""

    issuer: str
    """Exactly the token's `iss`."""
    audience: str
    """What the token's `aud` must name."""
    jwks: Path
    """Its public keys, a JSON Web Key Set."""
    tenants: tuple[str, ...]
    """Whose principals it may speak for, and nobody else's."""
    roles: tuple[Role, ...] = (Role.AUDITOR, Role.GATE)
    """Roles of the principals that it may speak for."""

    def speaks_for(self, caller: Caller) -> bool:
        """Tell whether a token of this issuer is a credential of a principal.

        Both must say so: the principal's row names the issuer, and the issuer's section its tenant and role.
        """
        return caller.issuer == self.issuer and caller.tenant in self.tenants and caller.role in self.roles


@dataclass(frozen=True, kw_only=True)
class _VerifyingKey:
    algorithm: str
    key: Any


class _Registry(jws.JWSRegistry):
    """joserfc's own algorithms, three of them: it warns of the name EdDSA, which the specification lists."""

    def get_alg(self, name: str) -> Any:
        if name not in ("ES256", "EdDSA", "Ed25519", "RS256"):
            raise UnsupportedAlgorithmError(name)
        return self.algorithms["Ed25519" if name == "EdDSA" else name]


class _Keys:
    """An issuer's keys, read again when its file changes. A file that became unusable leaves no key."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._keys = read_jwks(issuer.jwks)
        self._seen = _stamp(issuer.jwks)

    def find(self, kid: str) -> _VerifyingKey | None:
        seen = _stamp(self._issuer.jwks)
        if seen != self._seen:
            self._seen = seen
            try:
                self._keys = read_jwks(self._issuer.jwks)
            except JwksRefused as error:
                LOG.error("tokens of an issuer are refused until its keys can be read: %s", error)
                self._keys = {}
        return self._keys.get(kid)


class Bearers:
    """Verifies tokens of the configured issuers.

    Args:
        issuers: who may issue, each once.
        clock: seconds since 1970.

    Raises:
        JwksRefused: a key file is unusable; the server must not start.
    """

    def __init__(self, issuers: Sequence[Issuer], *, clock: Callable[[], float] = time.time) -> None:
        self._issuers = {one.issuer: one for one in issuers}
        self._keys = {one.issuer: _Keys(one) for one in issuers}
        self._clock = clock

    def verify(self, text: str, certificate_pem: bytes | None) -> Token:
        """Return what a token says, once its signature and every claim hold.

        Args:
            text: the token in its compact form.
            certificate_pem: the certificate that the connection shows; None if it shows none.

        Raises:
            Refusal: BAD_TOKEN naming what is wrong; never why a signature does not hold.
        """
        if not self._issuers:
            refuse("this server has no issuer")
        header, claims = _parts(text)
        algorithm, kid = check_header(header)
        issuer = self._issuers.get(issuer_of(claims))
        if issuer is None:
            refuse("iss is no issuer of this server")
        key = self._keys[issuer.issuer].find(kid)
        if key is None:
            refuse("kid names no key of its issuer")
        if algorithm != key.algorithm:
            refuse("alg is not what its key is for")
        try:
            jws.deserialize_compact(text, key.key, registry=_Registry())
        except (JoseError, ValueError):
            raise Refusal("BAD_TOKEN", "The token is not accepted: its signature does not hold.") from None
        thumbprint = None if certificate_pem is None else thumbprint_of(certificate_pem)
        return check_claims(claims, audience=issuer.audience, now=self._clock(), thumbprint=thumbprint)

    def believes(self, token: Token, caller: Caller) -> bool:
        """Tell whether a verified token's issuer may speak for the principal that the token names."""
        return self._issuers[token.issuer].speaks_for(caller)


def thumbprint_of(certificate_pem: bytes) -> str:
    """Return a certificate's `x5t#S256`: base64url of the SHA-256 of its DER (RFC 8705, section 3.1)."""
    der = x509.load_pem_x509_certificate(certificate_pem).public_bytes(Encoding.DER)
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()


def token_in(metadata: Sequence[tuple[str, str | bytes]]) -> str | None:
    """Return the token of a call's metadata, None if there is no authorization in it.

    Raises:
        Refusal: BAD_TOKEN: several, or another scheme.
    """
    found = [value for key, value in metadata if key.lower() == "authorization"]
    if not found:
        return None
    value = found[0]
    if len(found) > 1 or not isinstance(value, str):
        refuse("there is more than one authorization")
    scheme, _, token = value.partition(" ")
    if scheme.lower() != "bearer" or not token:
        refuse("authorization is not: Bearer TOKEN")
    return token


def read_jwks(path: Path) -> dict[str, _VerifyingKey]:
    """Read an issuer's public keys.

    Raises:
        JwksRefused: unreadable, not strict JSON, a key without kid or with another's, a private or symmetric one, one
            of another kind than P-256, Ed25519 and RSA of at least 2048 bits.
    """
    try:
        value = strict_json.loads(path.read_bytes(), JWKS_MAX)
    except (OSError, Malformed) as error:
        raise JwksRefused(f"{path}: cannot be read as a JSON Web Key Set: {error}") from None
    listed = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(listed, list) or not 0 < len(listed) <= KEYS_MAX:
        raise JwksRefused(f'{path}: expected {{"keys": [...]}} with 1 to {KEYS_MAX} keys')
    found: dict[str, _VerifyingKey] = {}
    for position, one in enumerate(listed):
        try:
            kid, key = _key(one)
            if kid in found:
                raise JwksRefused("another key has its kid; give each its own")
        except JwksRefused as error:
            raise JwksRefused(f"{path}: keys[{position}]: {error}") from None
        found[kid] = key
    return found


def _key(value: Any) -> tuple[str, _VerifyingKey]:
    if not isinstance(value, dict):
        raise JwksRefused("is no JSON object")
    kid = value.get("kid")
    if not isinstance(kid, str) or not kid:
        raise JwksRefused("has no kid")
    if _PRIVATE & value.keys():
        raise JwksRefused("holds a private or symmetric key; give the public half alone")
    kind = _KINDS.get((str(value.get("kty")), value.get("crv") if value.get("kty") != "RSA" else None))
    if kind is None:
        raise JwksRefused("is neither P-256, Ed25519 nor RSA")
    algorithm, importer = kind
    names = {algorithm, "Ed25519"} if algorithm == "EdDSA" else {algorithm}
    if value.get("use", "sig") != "sig" or value.get("alg", algorithm) not in names:
        raise JwksRefused(f"is not for signatures of {algorithm}")
    members = {name: value[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in value}
    return kid, _VerifyingKey(algorithm=algorithm, key=_imported(importer, members))


def _imported(importer: Any, members: dict[str, Any]) -> Any:
    if importer is RSAKey:
        # Before the import: joserfc only warns of a short one.
        try:
            bits = int.from_bytes(_decoded(members.get("n")), "big").bit_length()
        except _NotBase64:
            bits = 0
        if bits < RSA_BITS_MIN:
            raise JwksRefused(f"is an RSA key of {bits} bits; at least {RSA_BITS_MIN} are needed")
    try:
        key = importer.import_key(members)
        _ = key.public_key  # builds it: a point off the curve shows here and not at the first token
    except (JoseError, ValueError, KeyError, TypeError) as error:
        raise JwksRefused(f"is no usable key: {type(error).__name__}") from None
    return key


def _parts(text: str) -> tuple[Any, Any]:
    """Return header and claims as strict JSON, from which nothing follows before the signature is verified."""
    if len(text) > TOKEN_MAX or not text.isascii():
        refuse(f"it has more than {TOKEN_MAX} characters, or others than ASCII")
    pieces = text.split(".")
    if len(pieces) != 3 or not all(pieces):
        refuse("it has not the form header.claims.signature")
    try:
        header, claims = (strict_json.loads(_decoded(piece), TOKEN_MAX, fractions=True) for piece in pieces[:2])
    except (Malformed, _NotBase64):
        refuse("its header or claims are no JSON, or name a member twice")
    return header, claims


class _NotBase64(ValueError):
    """A text is no base64url without padding."""


def _decoded(text: Any) -> bytes:
    if not isinstance(text, str) or not _BASE64.fullmatch(text):
        raise _NotBase64
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise _NotBase64 from None


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
