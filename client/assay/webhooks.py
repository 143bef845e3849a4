"""Signed webhooks, for those who receive them: was this call made by the service, is it fresh, is it whole?

    def receive(headers, body):                       # `body` as the bytes that came, before anything parsed them
        delivery = webhooks.verify(SECRET, headers, body)
        if delivery.id not in seen:                   # the same id may come again: a call is made at least once
            ...

The form is that of Standard Webhooks (https://www.standardwebhooks.com, specification 1.0): the headers `webhook-id`,
`webhook-timestamp` and `webhook-signature`, and signatures over `id.timestamp.body`, which are `v1,` with HMAC-SHA256
or `v1a,` with Ed25519. The service signs with the functions of this page, so there is one account of the bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from assay.errors import Misused, Wrong

ID, SENT_AT, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
"""Header names of Standard Webhooks."""

HMAC, ED25519 = "v1", "v1a"
"""Signature versions of Standard Webhooks."""

SECRET, PUBLIC = "whsec_", "whpk_"
"""What a receiver keeps begins so: a shared secret, or the sender's public key (Standard Webhooks)."""

KEY_BYTES = 32
"""Of a secret (specs: service, section 13) and of an Ed25519 key (RFC 8032)."""

TOLERANCE_S = 300
"""A call made longer ago, or so far in the future, is no fresh one: 5 minutes (specs: service, section 13)."""

SIGNATURES_MAX = 16
"""Signatures looked at: a rotation makes two of them, and a forger may not buy work with a long header."""

_ID = re.compile(r"[!-\-/-~]{1,256}")
"""Printable, and no dot: it would let the end of an id pass for a moment in what is signed."""
_SECONDS = re.compile(r"[0-9]{1,12}")


class WrongDelivery(Wrong):
    """A call that must not be believed; answer it with 400.

    Args:
        reason: MISSING_HEADER, BAD_HEADER, TOO_OLD, TOO_NEW or BAD_SIGNATURE.
        message: what was wrong.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A call that was made by the owner of the key, within the tolerance, with these bytes."""

    id: str
    """The event's; equal in every call that tells the same event."""
    sent_at: int
    """Seconds since 1970 by the sender's clock; of this call, not of the event."""


def verify(keys: str | Sequence[str], headers: Mapping[str, str], body: bytes, *, now: float | None = None) -> Delivery:
    """Believe a call, or refuse it.

    Args:
        keys: what CreateWebhook or RotateSecret told, `whsec_…` or `whpk_…`; after a rotation the new and the old one.
        headers: of the call; upper and lower case are equal.
        body: the bytes of the call as they came.
        now: seconds since 1970; by default this machine's clock.

    Raises:
        WrongDelivery: not to be believed.
        Misused: a key is none.
    """
    given = {name.lower(): value for name, value in headers.items()}
    for name in (ID, SENT_AT, SIGNATURE):
        if name not in given:
            raise WrongDelivery("MISSING_HEADER", f"the call has no header {name}")
    if not _ID.fullmatch(given[ID]) or not _SECONDS.fullmatch(given[SENT_AT]) or not given[SIGNATURE].isascii():
        raise WrongDelivery("BAD_HEADER", f"{ID}, {SENT_AT} or {SIGNATURE} has not the form of Standard Webhooks")
    sent_at = int(given[SENT_AT])
    _require_fresh(sent_at, time.time() if now is None else now)
    signed = content(given[ID], sent_at, body)
    signatures = given[SIGNATURE].split(" ", SIGNATURES_MAX)[:SIGNATURES_MAX]
    # Every key and every signature is looked at, however early one fits: how long it takes tells nothing.
    held = [_holds(key, signed, one) for key in ([keys] if isinstance(keys, str) else keys) for one in signatures]
    if not any(held):
        raise WrongDelivery("BAD_SIGNATURE", "no signature of the call fits a given key and these bytes")
    return Delivery(id=given[ID], sent_at=sent_at)


def content(identifier: str, sent_at: int, body: bytes) -> bytes:
    """Return the bytes that are signed: `id.timestamp.body`."""
    return f"{identifier}.{sent_at}.".encode() + body


def sign_hmac(secret: bytes, signed: bytes) -> str:
    """Return a `v1` signature: HMAC-SHA256 in base64."""
    return f"{HMAC},{base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()}"


def sign_ed25519(seed: bytes, signed: bytes) -> str:
    """Return a `v1a` signature: Ed25519 (RFC 8032) in base64.

    Args:
        seed: the private key, 32 bytes.
        signed: what `content` returned.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return f"{ED25519},{base64.b64encode(Ed25519PrivateKey.from_private_bytes(seed).sign(signed)).decode()}"


def public_of(seed: bytes) -> str:
    """Return the public key of an Ed25519 seed as receivers keep it, `whpk_…`."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return (
        PUBLIC + base64.b64encode(Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()).decode()
    )


def secret_of(secret: bytes) -> str:
    """Return a shared secret as receivers keep it, `whsec_…`."""
    return SECRET + base64.b64encode(secret).decode()


def _require_fresh(sent_at: int, now: float) -> None:
    if sent_at < now - TOLERANCE_S:
        raise WrongDelivery("TOO_OLD", f"the call was made {now - sent_at:.0f} s ago, the limit is {TOLERANCE_S} s")
    if sent_at > now + TOLERANCE_S:
        raise WrongDelivery("TOO_NEW", f"the call is from {sent_at - now:.0f} s ahead of this machine's clock")


def _holds(key: str, signed: bytes, signature: str) -> bool:
    """Tell whether one signature is that of one key; a version that is not the key's never is."""
    if key.startswith(SECRET):
        return hmac.compare_digest(sign_hmac(_bytes(key, SECRET), signed).encode(), signature.encode())
    return _holds_ed25519(_bytes(key, PUBLIC), signed, signature)


def _holds_ed25519(public: bytes, signed: bytes, signature: str) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    version, _, text = signature.partition(",")
    try:
        raw = base64.b64decode(text, validate=True)
        Ed25519PublicKey.from_public_bytes(public).verify(raw, signed)
    except (binascii.Error, ValueError, InvalidSignature):
        return False
    return version == ED25519


def _bytes(key: str, prefix: str) -> bytes:
    try:
        raw = base64.b64decode(key.removeprefix(prefix), validate=True) if key.startswith(prefix) else b""
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != KEY_BYTES:
        raise Misused(f"a webhook's key is {SECRET} or {PUBLIC} and base64 of {KEY_BYTES} bytes; rotate it to get one")
    return raw
