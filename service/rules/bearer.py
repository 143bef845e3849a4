"""What a bearer token must say, once its signature is known to be good; pure, with the clock handed in.

Nothing here looks up a key. The role and the tenant of whoever is named come from the database, never from a claim.
Tokens are the one place where a wall clock decides: their times are the issuer's. It decides who may call, never which
lease or result counts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from service.rules.errors import Refusal

ALGORITHMS: Mapping[str, str] = {
    "ES256": "ES256",
    "EdDSA": "EdDSA",
    "Ed25519": "EdDSA",
    "RS256": "RS256",
}
"""What a header may say -> which of the three algorithms that is (specs: service, section 14). RFC 9864 gives EdDSA
over Ed25519 the name Ed25519; it is the same signature."""

LEEWAY_S = 60
"""Seconds by which the issuer's clock and ours may differ (specs: service, section 14)."""

LIFETIME_MAX_S = 15 * 60
"""Longest time from `iat` to `exp` (specs: service, section 14)."""

TOKEN_MAX = 8 << 10
"""Characters of a token: the limit of all metadata of a call (specs: service, section 15)."""

RSA_BITS_MIN = 2048
"""RFC 7518, section 3.3: shorter keys must not be used with RS256."""

_HEADER = frozenset({"alg", "kid", "typ"})
"""Members of a header that are understood. A `crit`, `jku`, `x5u`, `x5c` or `jwk` would let the token choose how, or
with whose key, it is verified: each is refused, not skipped."""

_TYPES = frozenset({"jwt", "at+jwt"})
"""RFC 7519, section 5.1, and RFC 9068, section 2.1; compared without regard to case."""

_PRINCIPAL = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")
_TEXT_MAX = 256
_AUDIENCES_MAX = 16


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token whose signature and claims hold."""

    principal: str
    """Id of a row of the database."""
    issuer: str
    expires_at: int
    """Seconds since 1970."""
    jti: str | None
    is_bound: bool
    """It names the certificate that the connection must show, and the connection shows it."""

    @property
    def use_sha256(self) -> str:
        """What is remembered of a token that may be used once; the token cannot be told from it.

        Raises:
            Refusal: BAD_TOKEN: it has no `jti`.
        """
        if self.jti is None:
            refuse("jti is missing, and a token that is bound to no certificate changes something only once")
        return hashlib.sha256(f"{self.issuer}\0{self.jti}".encode()).hexdigest()


def refuse(text: str) -> NoReturn:
    """Refuse a token.

    Raises:
        Refusal: BAD_TOKEN.
    """
    raise Refusal("BAD_TOKEN", f"The token is not accepted: {text}.", metadata={"why": text})


def check_header(header: Any) -> tuple[str, str]:
    """Return (algorithm, kid) of a token's header.

    Raises:
        Refusal: BAD_TOKEN: a member beyond alg, kid and typ, an algorithm that is not on the list, no kid.
    """
    if not isinstance(header, dict):
        refuse("its header is no JSON object")
    unknown = sorted(header.keys() - _HEADER)
    if unknown:
        refuse("its header has a member beyond alg, kid and typ")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        refuse(f"alg is none of {', '.join(ALGORITHMS)}")
    kid = header.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= _TEXT_MAX:
        refuse("kid is missing")
    typ = header.get("typ", "JWT")
    if not isinstance(typ, str) or typ.lower() not in _TYPES:
        refuse("typ is not JWT")
    return ALGORITHMS[algorithm], kid


def issuer_of(claims: Any) -> str:
    """Return who says to have issued a token: chooses among configured issuers, and proves nothing.

    Raises:
        Refusal: BAD_TOKEN.
    """
    if not isinstance(claims, dict):
        refuse("its claims are no JSON object")
    issuer = claims.get("iss")
    if not isinstance(issuer, str):
        refuse("iss is missing")
    return issuer


def check_claims(claims: Mapping[str, Any], *, audience: str, now: float, thumbprint: str | None) -> Token:
    """Return what a token says, if it may be believed here and now.

    Args:
        claims: of a token whose signature holds.
        audience: what this service is called in `aud`.
        now: seconds since 1970.
        thumbprint: base64url of the SHA-256 of the certificate that the connection shows; None if it shows none.

    Raises:
        Refusal: BAD_TOKEN naming the claim.
    """
    _check_audience(claims.get("aud"), audience)
    issued, begins, expires = (_moment(claims, name) for name in ("iat", "nbf", "exp"))
    if issued > now + LEEWAY_S:
        refuse("iat lies in the future")
    if begins > now + LEEWAY_S:
        refuse("nbf lies in the future")
    if expires <= now - LEEWAY_S:
        refuse("exp has passed")
    if not 0 < expires - issued <= LIFETIME_MAX_S:
        refuse(f"exp is not within {LIFETIME_MAX_S} s after iat")
    principal = claims.get("sub")
    if not isinstance(principal, str) or not _PRINCIPAL.fullmatch(principal):
        refuse("sub is no principal's id")
    jti = claims.get("jti")
    if jti is not None and (not isinstance(jti, str) or not 0 < len(jti) <= _TEXT_MAX):
        refuse("jti is no text of 1 to 256 characters")
    return Token(
        principal=principal,
        issuer=issuer_of(claims),
        expires_at=expires,
        jti=jti,
        is_bound=_is_bound(claims, thumbprint),
    )


def _check_audience(named: Any, audience: str) -> None:
    all_named = named if isinstance(named, list) else [named]
    if len(all_named) > _AUDIENCES_MAX or not all(isinstance(one, str) for one in all_named):
        refuse("aud is missing, or no text or list of texts")
    if audience not in all_named:
        refuse("aud does not name this service")


def _moment(claims: Mapping[str, Any], name: str) -> int:
    value = claims.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        refuse(f"{name} is missing, or no whole number of seconds")
    return value


def _is_bound(claims: Mapping[str, Any], thumbprint: str | None) -> bool:
    """Tell whether the token is bound to the connection's certificate (RFC 8705, section 3.1).

    Raises:
        Refusal: BAD_TOKEN: it is bound to another one, or in a way that is not understood.
    """
    if "cnf" not in claims:
        return False
    bound = claims["cnf"]
    if not isinstance(bound, dict) or set(bound) != {"x5t#S256"}:
        refuse("cnf is not just x5t#S256")
    named = bound["x5t#S256"]
    if not isinstance(named, str) or not _THUMBPRINT.fullmatch(named):
        refuse("cnf.x5t#S256 is no SHA-256 in base64url")
    if named != thumbprint:
        refuse("cnf.x5t#S256 is not the certificate of this connection")
    return True
