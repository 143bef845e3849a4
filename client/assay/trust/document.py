"""What a trust root says: `assay-trust-root/v1`, parsed strictly after its signatures were checked."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from assay import moments, strict_json
from assay.errors import Malformed, shown
from assay.keys import TrustedKey, key_id
from assay.shape import COUNT, MOMENT, OBJECT, TEXT, Kind, Maybe, check, exactly
from assay.tlog import notes
from assay.tlog.leaves import LogKey
from assay.tlog.notes import decode_base64

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

SCHEMA = "assay-trust-root/v1"
SCHEME = "ecdsa-p256-sha256"
"""The one scheme of report and root keys; four independent stacks verify it (specification, section 6)."""

BYTES_MAX = 256 * 1024
"""Bytes of the document: about 500 keys."""

LIFE_MAX = timedelta(days=730)
"""Longest life of a root (specification, section 16): an operator who is gone must not be trusted for ever."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}", re.ASCII)
_REASON_MAX = 512
"""Characters of free text (specification, section 3)."""

_ROLE = {"keyids": [TEXT], "threshold": COUNT}
_KEY = {
    "scheme": exactly(SCHEME),
    "public_spki_b64": TEXT,
    "valid_from": MOMENT,
    "valid_until": MOMENT,
    "revoked_at": Maybe(MOMENT),
    "revoked_reason": Maybe(
        Kind(
            "printable text", lambda value: isinstance(value, str) and value.isprintable() and len(value) <= _REASON_MAX
        )
    ),
}
_SHAPE = {
    "schema": exactly(SCHEMA),
    "version": Kind("a whole number from 1 on", lambda value: type(value) is int and value >= 1),
    "issued_at": MOMENT,
    "expires_at": MOMENT,
    "operator": Kind("a name", lambda value: isinstance(value, str) and _NAME.fullmatch(value) is not None),
    "keys": OBJECT,
    "roles": {"root": _ROLE, "report": _ROLE},
    "logs": [{"origin": TEXT, "vkey": TEXT, "valid_from": MOMENT, "valid_until": MOMENT}],
}


@dataclass(frozen=True, kw_only=True)
class RootKey:
    """A key of a trust root, and when it is good."""

    trusted: TrustedKey
    valid_from: datetime
    valid_until: datetime
    revoked_at: datetime | None
    revoked_reason: str | None

    def good_at(self, at: datetime) -> bool:
        """Tell whether the key is good at a moment: within its span, and before it was revoked."""
        return self.valid_from <= at < self.valid_until and (self.revoked_at is None or at < self.revoked_at)


@dataclass(frozen=True)
class Role:
    """Which keys must sign, and how many of them."""

    keyids: tuple[str, ...]
    threshold: int


@dataclass(frozen=True, kw_only=True)
class RootDocument:
    """One version of an operator's trust root."""

    version: int
    issued_at: datetime
    expires_at: datetime
    operator: str
    keys: dict[str, RootKey]
    root: Role
    report: Role
    logs: tuple[LogKey, ...]


def parse(data: bytes) -> RootDocument:
    """Read the signed bytes of a trust root.

    Raises:
        Malformed: not strict JSON, a field missing or of another kind, a key under another name than its own, a role
            whose threshold its keys cannot reach, or a span of time that ends before it starts.
    """
    value = strict_json.loads(data, BYTES_MAX)
    check(value, _SHAPE)
    issued, expires = moments.parse(value["issued_at"]), moments.parse(value["expires_at"])
    if not issued < expires <= issued + LIFE_MAX:
        raise Malformed(
            "root_life", "/expires_at", f"a root lives longer than no time and at most {LIFE_MAX.days} days"
        )
    keys = {keyid: _key(keyid, one) for keyid, one in value["keys"].items()}
    report = _role(value["roles"]["report"], keys, "/roles/report")
    if report.threshold != 1:
        raise Malformed("root_role", "/roles/report/threshold", "a report carries one signature, so the threshold is 1")
    return RootDocument(
        version=value["version"],
        issued_at=issued,
        expires_at=expires,
        operator=value["operator"],
        keys=keys,
        root=_role(value["roles"]["root"], keys, "/roles/root"),
        report=report,
        logs=_logs(value["logs"]),
    )


def _key(keyid: str, value: Any) -> RootKey:
    at = f"/keys/{shown(keyid, 70)}"
    check(value, _KEY, at)
    public = _public(decode_base64(value["public_spki_b64"], f"{at}/public_spki_b64"), at)
    if key_id(public) != keyid:
        raise Malformed(
            "root_key", at, "a key is listed under the SHA-256 of its SubjectPublicKeyInfo, and this one is not"
        )
    if (value.get("revoked_at") is None) != (value.get("revoked_reason") is None):
        raise Malformed(
            "root_key", f"{at}/revoked_reason", "a revoked key has a moment and a reason, another has neither"
        )
    revoked = value.get("revoked_at")
    start, end = _span(value, at)
    return RootKey(
        trusted=TrustedKey(keyid, public),
        valid_from=start,
        valid_until=end,
        revoked_at=None if revoked is None else moments.parse(revoked),
        revoked_reason=value.get("revoked_reason"),
    )


def _public(der: bytes, at: str) -> EllipticCurvePublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    load: Callable[[bytes], object] = load_der_public_key
    try:
        public = load(der)
    except (ValueError, UnsupportedAlgorithm):
        public = None
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise Malformed("root_key", f"{at}/public_spki_b64", "no P-256 public key in DER")
    return public


def _role(value: Any, keys: dict[str, RootKey], at: str) -> Role:
    keyids = tuple(value["keyids"])
    if len(set(keyids)) != len(keyids):
        raise Malformed("root_role", f"{at}/keyids", "a key is listed twice")
    stray = sorted(set(keyids) - set(keys))
    if stray:
        raise Malformed("root_role", f"{at}/keyids", f"no such key: {shown(stray[0], 24)}")
    if not 1 <= value["threshold"] <= len(keyids):
        raise Malformed("root_role", f"{at}/threshold", f"expected 1 to {len(keyids)}, found {value['threshold']}")
    return Role(keyids, value["threshold"])


def _logs(values: list[Any]) -> tuple[LogKey, ...]:
    found: dict[str, LogKey] = {}
    for index, value in enumerate(values):
        at = f"/logs/{index}"
        vkey = notes.parse_vkey(value["vkey"])
        if vkey.name != value["origin"]:
            raise Malformed("root_log", f"{at}/vkey", "a log's key carries the log's origin as its name")
        if vkey.text in found:
            raise Malformed("root_log", f"{at}/vkey", "a log key is listed twice")
        start, end = _span(value, at)
        found[vkey.text] = LogKey(vkey=vkey, valid_from=start, valid_until=end)
    return tuple(found.values())


def _span(value: Any, at: str) -> tuple[datetime, datetime]:
    start, end = moments.parse(value["valid_from"]), moments.parse(value["valid_until"])
    if start >= end:
        raise Malformed("root_span", f"{at}/valid_until", "a span of time ends before it starts")
    return start, end
