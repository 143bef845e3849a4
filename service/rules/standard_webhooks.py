"""What a webhook signs with, and the headers of one call. The bytes that are signed are `assay.webhooks`'s account.

A rotation makes a new key, and for a day the one before signs too, so that a receiver changes over when it can. After
several rotations in one day each of the keys signs until its own day is over.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from assay import webhooks

OLD_SECRET_MS = 24 * 3600 * 1000
"""How long the key before the last rotation signs too (specs: service, section 13)."""


OLD_SECRETS_MAX = webhooks.SIGNATURES_MAX - 1
"""Old keys that sign at a time: a receiver looks at no more signatures, and a header stays short."""


class Signing(StrEnum):
    """How a webhook's calls are signed."""

    HMAC = "HMAC"
    """`v1`: a secret that service and receiver share."""
    ED25519 = "ED25519"
    """`v1a`: the receiver can check, and cannot sign."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """One signing key of a webhook."""

    signing: Signing
    private: bytes
    """The shared secret, or the Ed25519 seed; 32 bytes."""

    def __repr__(self) -> str:
        """Leave the key out: no log line may carry it."""
        return f"Key(signing={self.signing})"

    @property
    def told(self) -> str:
        """What the webhook's owner is told once: `whsec_…`, or the public key `whpk_…`."""
        if self.signing is Signing.HMAC:
            return webhooks.secret_of(self.private)
        return webhooks.public_of(self.private)

    def sign(self, signed: bytes) -> str:
        """Return the signature of what `assay.webhooks.content` returned."""
        make = webhooks.sign_hmac if self.signing is Signing.HMAC else webhooks.sign_ed25519
        return make(self.private, signed)


def new_key(signing: Signing) -> Key:
    """Draw a key."""
    return Key(signing=signing, private=secrets.token_bytes(webhooks.KEY_BYTES))


def retired(kept: str, secret: bytes, now: int) -> str:
    """Return the old keys as they are stored, after one more was replaced.

    Args:
        kept: the old keys as they are stored: `[{"secret": hex, "until": ms}]`, the newest first.
        secret: the key that is replaced.
        now: milliseconds since 1970.
    """
    rest = [one for one in json.loads(kept) if now < one["until"]]
    made = [{"secret": secret.hex(), "until": now + OLD_SECRET_MS}, *rest]
    return json.dumps(made[:OLD_SECRETS_MAX], separators=(",", ":"))


def signing_still(kept: str, now: int) -> tuple[bytes, ...]:
    """Return those old keys that sign too, the newest first."""
    return tuple(bytes.fromhex(one["secret"]) for one in json.loads(kept) if now < one["until"])


def last_until(kept: str) -> int | None:
    """Return until when the key before the newest signs, in milliseconds since 1970; None if there is none."""
    return next((int(one["until"]) for one in json.loads(kept)), None)


def headers(keys: Sequence[Key], event_id: str, sent_at_ms: int, body: bytes) -> dict[str, str]:
    """Return the headers of one call, signed with every key.

    Args:
        keys: the newest first.
        event_id: the same in every try.
        sent_at_ms: of this try, milliseconds since 1970; receivers count in seconds.
        body: the same in every try.
    """
    sent_at = sent_at_ms // 1000
    signed = webhooks.content(event_id, sent_at, body)
    return {
        webhooks.ID: event_id,
        webhooks.SENT_AT: str(sent_at),
        webhooks.SIGNATURE: " ".join(key.sign(signed) for key in keys),
    }
