"""An approval: a model owner's signed consent to audits of the model by another tenant (specs: service, section 14).

A DSSE envelope over one JSON document. Whoever reads it obeys three rules: a field that is missing, or that this
release does not know, is refused and never read as "unlimited"; `[]` allows nothing and `"*"` is the only word for
everything; the id is made of the signed bytes, so the same consent, signed again, is the same approval.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from assay import canonical, dsse, moments, strict_json
from assay.errors import Malformed, shown
from assay.manifest import is_sha256

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

PAYLOAD_TYPE = "application/vnd.assay.approval.v1+json"
SCHEMA = "assay-approval/v1"

BYTES_MAX = 64 * 1024
"""Of an envelope: 64 checks and some hundred digests of data; the API's own cap."""

CHECKS_MAX = 64
"""As many as an audit may ask."""

DATA_MAX = 512
"""Digests of data; in hexadecimal they still fit the envelope's cap."""

OUTPUT_CAP_MAX = 65_536
LIFETIME_CAP_MAX = 1_048_576
"""Bytes; specs: service, section 14. An owner cannot allow more than the service ever releases."""

RUNS_MAX = 1_000_000
"""A consent without an end is no consent; a run a minute reaches this in two years."""

ANY = "*"
LEVELS = ("weights", "activations", "gradients", "training_data")
"""Levels of access, as checks declare them in the catalogue."""

_TENANT = re.compile(r"[!-~]{1,64}")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_VERSION = re.compile(r"[ -~]{1,32}")


@dataclass(frozen=True, kw_only=True)
class ApprovedCheck:
    """One check that may be asked."""

    name: str
    version: str
    code_sha256: str
    """Digest of the code that answers, as the catalogue names it."""
    params_sha256: str
    """SHA-256 of the canonical parameters, every default filled in; "*" allows any."""


@dataclass(frozen=True, kw_only=True)
class Approval:
    """What an owner allows."""

    model: str
    """Digest of the model's manifest."""
    grantee: str
    """The tenant that may audit."""
    checks: tuple[ApprovedCheck, ...]
    data: tuple[str, ...] | None
    """Digests of data, and of a base model's manifest; None is "*": any."""
    access: tuple[str, ...]
    """Levels of access that the checks may need."""
    output_cap_bytes: int
    """Most bytes of answers of one audit."""
    lifetime_cap_bytes: int
    """Most bytes that the grantee may be told about the model over all audits."""
    max_runs: int
    not_after: datetime
    nonce: str
    """64 hexadecimal digits: tells two consents of the same content apart."""

    def document(self) -> dict[str, Any]:
        """Return the plain JSON form."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "grantee": self.grantee,
            "checks": [vars(one) for one in self.checks],
            "data": ANY if self.data is None else list(self.data),
            "access": list(self.access),
            "output_cap_bytes": self.output_cap_bytes,
            "lifetime_cap_bytes": self.lifetime_cap_bytes,
            "max_runs": self.max_runs,
            "not_after": self.not_after.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "nonce": self.nonce,
        }


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """A DSSE envelope of the right form; nothing in it is true before its signature was verified."""

    payload: bytes
    key_id: str
    """What the envelope says; a hint."""
    signature: bytes

    @property
    def id(self) -> str:
        """The approval's id: of the signed bytes alone, because a signature can be made in many ways."""
        return approval_id(self.payload)


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a document."""

    field: str
    """E.g. "checks[0].version"."""
    description: str


def approval_id(payload: bytes) -> str:
    """Return the id of an approval: the first 32 hexadecimal digits of the SHA-256 of its signed bytes."""
    return hashlib.sha256(payload).hexdigest()[:32]


def sign(approval: Approval, key: EllipticCurvePrivateKey) -> bytes:
    """Return the envelope of an approval under an owner's P-256 key.

    Raises:
        Malformed: the document would be refused by every reader.
    """
    from assay.keys import key_id

    payload = canonical.dumps(approval.document())
    read(payload)
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [
            {
                "keyid": key_id(key.public_key()),
                "sig": base64.b64encode(dsse.sign(key, PAYLOAD_TYPE, payload)).decode(),
            }
        ],
    }
    return json.dumps(envelope).encode() + b"\n"


def open_envelope(data: bytes) -> Envelope:
    """Take an envelope apart; nothing is verified.

    Raises:
        Malformed: it is no DSSE envelope with one signature and our payload type, or above BYTES_MAX.
    """
    value = strict_json.loads(data, BYTES_MAX)
    if not isinstance(value, dict) or set(value) != {"payload", "payloadType", "signatures"}:
        raise Malformed("envelope", "", "a DSSE envelope has payload, payloadType and signatures, and nothing else")
    if value["payloadType"] != PAYLOAD_TYPE:
        raise Malformed("envelope", "payloadType", f"is {shown(value['payloadType'], 80)}, not {PAYLOAD_TYPE}")
    signatures = value["signatures"]
    if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(signatures[0], dict):
        raise Malformed("envelope", "signatures", "one signature is needed, of one key of the owner")
    one = signatures[0]
    if set(one) != {"keyid", "sig"} or not is_sha256(one["keyid"]):
        raise Malformed("envelope", "signatures[0]", "has keyid (64 hexadecimal digits) and sig, and nothing else")
    return Envelope(
        payload=_bytes(value["payload"], "payload"),
        key_id=one["keyid"],
        signature=_bytes(one["sig"], "signatures[0].sig"),
    )


def verifies(envelope: Envelope, key: EllipticCurvePublicKey) -> bool:
    """Tell whether an envelope was signed with this key."""
    return dsse.verify(key, PAYLOAD_TYPE, envelope.payload, envelope.signature)


def read(payload: bytes) -> Approval:
    """Read the document of an approval.

    Raises:
        Malformed: code `approval`, at the first field that is missing, unknown or wrong.
    """
    value = strict_json.loads(payload, BYTES_MAX)
    for fault in faults(value):
        raise Malformed("approval", fault.field, fault.description)
    data = value["data"]
    return Approval(
        model=value["model"],
        grantee=value["grantee"],
        checks=tuple(ApprovedCheck(**one) for one in value["checks"]),
        data=None if data == ANY else tuple(data),
        access=tuple(value["access"]),
        output_cap_bytes=value["output_cap_bytes"],
        lifetime_cap_bytes=value["lifetime_cap_bytes"],
        max_runs=value["max_runs"],
        not_after=moments.parse(value["not_after"]),
        nonce=value["nonce"],
    )


def faults(value: Any) -> tuple[Fault, ...]:
    """Return everything that is wrong with a document; nothing means that `read` accepts it."""
    if not isinstance(value, dict):
        return (Fault("", "is no JSON object"),)
    found = [*_keys(value, FIELDS, "")]
    for name, (fits, form) in FIELDS.items():
        if name in value and not fits(value[name]):
            found.append(Fault(name, f"{shown(value[name], 60)} is not {form}"))
    checks = value.get("checks")
    for index, one in enumerate(checks if isinstance(checks, list) else ()):
        found += _check(one, f"checks[{index}]")
    return tuple(found)


def _check(value: Any, at: str) -> Iterator[Fault]:
    if not isinstance(value, dict):
        yield Fault(at, "is no JSON object")
        return
    yield from _keys(value, CHECK_FIELDS, f"{at}.")
    for name, (fits, form) in CHECK_FIELDS.items():
        if name in value and not fits(value[name]):
            yield Fault(f"{at}.{name}", f"{shown(value[name], 60)} is not {form}")


def _keys(value: Mapping[str, Any], known: Mapping[str, Any], at: str) -> Iterator[Fault]:
    for name in known:
        if name not in value:
            yield Fault(f"{at}{name}", "is missing: nothing is allowed by leaving it out")
    for name in value:
        if name not in known:
            yield Fault(f"{at}{shown(name, 40)}", "is not known here, and a restriction must not be lost")


def _whole(highest: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and 0 <= value <= highest


def _text(form: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and bool(form.fullmatch(value))


def _list_of(fits: Callable[[Any], bool], most: int) -> Callable[[Any], bool]:
    def all_fit(value: Any) -> bool:
        return isinstance(value, list) and len(value) <= most and all(fits(one) for one in value)

    return lambda value: all_fit(value) and len(set(value)) == len(value)


def _is_moment(value: Any) -> bool:
    try:
        moments.parse(value)
    except Malformed:
        return False
    return True


_DIGEST = (is_sha256, "64 lower-case hexadecimal digits")
_Rule = tuple[Callable[[Any], bool], str]

CHECK_FIELDS: Mapping[str, _Rule] = {
    "name": (_text(_NAME), "the name of a check"),
    "version": (_text(_VERSION), "a version of at most 32 printable characters"),
    "code_sha256": _DIGEST,
    "params_sha256": (lambda value: value == ANY or is_sha256(value), 'a digest or "*"'),
}

FIELDS: Mapping[str, _Rule] = {
    "schema": (lambda value: value == SCHEMA, f'"{SCHEMA}"'),
    "model": _DIGEST,
    "grantee": (_text(_TENANT), "a tenant: 1 to 64 printable characters without blanks"),
    "checks": (lambda value: isinstance(value, list) and len(value) <= CHECKS_MAX, f"a list of at most {CHECKS_MAX}"),
    "data": (
        lambda value: value == ANY or _list_of(is_sha256, DATA_MAX)(value),
        f'a list of at most {DATA_MAX} different digests, or "*"',
    ),
    "access": (_list_of(lambda one: isinstance(one, str) and one in LEVELS, len(LEVELS)), f"a list of {LEVELS}"),
    "output_cap_bytes": (_whole(OUTPUT_CAP_MAX), f"a whole number up to {OUTPUT_CAP_MAX}"),
    "lifetime_cap_bytes": (_whole(LIFETIME_CAP_MAX), f"a whole number up to {LIFETIME_CAP_MAX}"),
    "max_runs": (_whole(RUNS_MAX), f"a whole number up to {RUNS_MAX}"),
    "not_after": (_is_moment, "a moment like 2026-01-02T03:04:05Z"),
    "nonce": _DIGEST,
}
"""Field -> (what fits, how it is written). All are required."""


def _bytes(text: Any, at: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        data = b""
    if not data or base64.b64encode(data).decode() != text:
        raise Malformed("envelope", at, "is not standard base64")
    return data
