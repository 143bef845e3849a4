"""Resource names: text in, checked parts out. A name is never guessed, trimmed or echoed raw."""

from __future__ import annotations

import re
from dataclasses import dataclass

from service.rules.errors import Refusal

SIZE_MAX = 2**53 - 1
"""Largest size that every JSON reader of a manifest reads exactly."""

_HEX64 = re.compile(r"[0-9a-f]{64}")
_UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})/(0|[1-9][0-9]{0,15})")
_UPLOAD = re.compile(rf"uploads/({_UUID4.pattern})/{_BLOB.pattern}")
_MODEL = re.compile(r"models/([0-9a-f]{64})")
_APPROVAL = re.compile(r"models/([0-9a-f]{64})/approvals/([0-9a-f]{32})")
_AUDIT = re.compile(r"audits/([0-9a-f]{32})")
_REPORT = re.compile(r"audits/([0-9a-f]{32})/reports/r([1-9][0-9]{0,5})")
_WEBHOOK = re.compile(r"webhooks/([a-z0-9-]{4,63})")
_CLIENT_ID = re.compile(r"[a-z0-9-]{4,63}")
_SCHEDULE = re.compile(rf"schedules/({_CLIENT_ID.pattern})")
_DELIVERY = re.compile(rf"{_WEBHOOK.pattern}/deliveries/([0-9a-f]{{32}})")
_CHECK = re.compile(r"checks/([a-z][a-z0-9_]{0,62})")


@dataclass(frozen=True)
class BlobName:
    """What bytes are called: their digest and size."""

    sha256: str
    size: int


@dataclass(frozen=True)
class UploadName:
    """One attempt of a client to send one blob."""

    id: str
    """UUID4 text."""
    blob: BlobName


def is_sha256(text: str) -> bool:
    """Tell whether the text is a digest as we write it: 64 lower-case hex digits."""
    return _HEX64.fullmatch(text) is not None


def is_digest(sha256: str, size: int) -> bool:
    """Tell whether a digest and a size can name a blob."""
    return is_sha256(sha256) and 0 <= size <= SIZE_MAX


def is_client_id(text: str) -> bool:
    """Tell whether the text is an id that a caller may choose: 4 to 63 of a-z, 0-9 and -."""
    return _CLIENT_ID.fullmatch(text) is not None


def request_id(text: str) -> str:
    """Return a request id in lower case.

    Raises:
        Refusal: BAD_REQUEST_ID.
    """
    if not _UUID4.fullmatch(text.lower()):
        raise Refusal("BAD_REQUEST_ID", "request_id is required and is a UUID4 as text.")
    return text.lower()


def blob(name: str) -> BlobName:
    """Read `blobs/sha256/{hex}/{size}`.

    Raises:
        Refusal: BAD_RESOURCE_NAME.
    """
    digest, size = _parts(_BLOB, name, "blobs/sha256/{64 hex}/{size}")
    return BlobName(digest, _size(size, name))


def upload(name: str) -> UploadName:
    """Read `uploads/{uuid4}/blobs/sha256/{hex}/{size}`.

    Raises:
        Refusal: BAD_RESOURCE_NAME.
    """
    identifier, digest, size = _parts(_UPLOAD, name, "uploads/{uuid4}/blobs/sha256/{64 hex}/{size}")
    return UploadName(identifier, BlobName(digest, _size(size, name)))


def model(name: str) -> str:
    """Return the manifest digest of `models/{64 hex}`.

    Raises:
        Refusal: BAD_RESOURCE_NAME.
    """
    return _parts(_MODEL, name, "models/{64 hex}")[0]


def model_or_all(name: str) -> str | None:
    """Return the manifest digest of `models/{64 hex}`, None of `models/-`: whatever model it is.

    Raises:
        Refusal: BAD_RESOURCE_NAME.
    """
    return None if name == "models/-" else model(name)


def approval(name: str) -> tuple[str, str]:
    """Return the model and the id of `models/{64 hex}/approvals/{32 hex}`.

    Raises:
        Refusal: BAD_RESOURCE_NAME.
    """
    digest, identifier = _parts(_APPROVAL, name, "models/{64 hex}/approvals/{32 hex}")
    return digest, identifier


def audit(name: str) -> str:
    """Return the id of `audits/{32 hex}`.

    Raises:
        Refusal: BAD_RESOURCE_NAME.
    """
    return _parts(_AUDIT, name, "audits/{32 hex}")[0]


def report(name: str) -> tuple[str, int]:
    """Return the audit's id and the number of `audits/{32 hex}/reports/r{n}`.

    Raises:
        Refusal: BAD_RESOURCE_NAME.
    """
    identifier, number = _parts(_REPORT, name, "audits/{32 hex}/reports/r{n}")
    return identifier, int(number)


def check(name: str) -> str:
    """Return the bare name of `checks/{name}`.

    Raises:
        Refusal: BAD_RESOURCE_NAME.
    """
    return _parts(_CHECK, name, "checks/{name}")[0]


def schedule(name: str) -> str:
    """Return the id of `schedules/{id}`.

    Raises:
        Refusal: BAD_RESOURCE_NAME.
    """
    return _parts(_SCHEDULE, name, "schedules/{id}")[0]


def webhook(name: str) -> str:
    """Return the id of `webhooks/{id}`.

    Raises:
        Refusal: BAD_RESOURCE_NAME.
    """
    return _parts(_WEBHOOK, name, "webhooks/{id}")[0]


def delivery(name: str) -> tuple[str, str]:
    """Return the ids of webhook and delivery of `webhooks/{id}/deliveries/{32 hex}`.

    Raises:
        Refusal: BAD_RESOURCE_NAME.
    """
    identifier, number = _parts(_DELIVERY, name, "webhooks/{id}/deliveries/{32 hex}")
    return identifier, number


def bare_check(name: str) -> str | None:
    """Return the bare name of `checks/{name}`, or None if the text is none."""
    found = _CHECK.fullmatch(name)
    return found[1] if found else None


def is_model(name: str) -> bool:
    """Tell whether the text is `models/{64 hex}`."""
    return _MODEL.fullmatch(name) is not None


def _size(text: str, name: str) -> int:
    if int(text) > SIZE_MAX:
        text = f"The size in the name {shown(name)!r} is above {SIZE_MAX}."
        raise Refusal("BAD_RESOURCE_NAME", text, metadata={"name": shown(name), "limit": str(SIZE_MAX)})
    return int(text)


def _parts(pattern: re.Pattern[str], name: str, form: str) -> tuple[str, ...]:
    found = pattern.fullmatch(name)
    if found is None:
        raise Refusal(
            "BAD_RESOURCE_NAME",
            f"The name {shown(name)!r} is not of the form {form}.",
            metadata={"name": shown(name), "form": form},
        )
    return found.groups()


def shown(text: str, limit: int = 96) -> str:
    """Return foreign text as safe to print: ASCII, no control characters, at most `limit` characters."""
    clean = "".join(letter if " " <= letter <= "~" else f"\\u{{{ord(letter):x}}}" for letter in text[: limit + 1])
    return clean if len(clean) <= limit else clean[: limit - 3] + "..."
