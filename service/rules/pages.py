"""Pages of a list: sizes, filters, and tokens that mean something only to this server and this question."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from dataclasses import dataclass

from service.rules import names
from service.rules.errors import Refusal
from service.rules.states import AuditState

SIZE_DEFAULT = 50
SIZE_MAX = 1000
FILTER_MAX = 1000
"""Characters of a filter."""

_TERM = re.compile(r"\s*([a-z_]+)\s*=\s*\"?([A-Za-z0-9_/.:-]+)\"?\s*")
_MAC_BYTES = 16


@dataclass(frozen=True)
class Position:
    """The last row of a page; the next page begins below it."""

    at: int
    """Milliseconds since 1970: when the row was made."""
    id: str


@dataclass(frozen=True, kw_only=True)
class AuditFilter:
    """Which audits a list shows; None shows all."""

    state: str | None = None
    model: str | None = None
    """Manifest digest."""
    check: str | None = None


def page_size(asked: int) -> int:
    """Return how many rows to read: 0 means 50, above 1000 means 1000.

    Raises:
        Refusal: BAD_PAGE_SIZE: negative.
    """
    if asked < 0:
        raise Refusal("BAD_PAGE_SIZE", f"page_size {asked} is negative.", metadata={"page_size": str(asked)})
    return min(asked or SIZE_DEFAULT, SIZE_MAX)


def seal(key: bytes, question: tuple[str, ...], position: Position) -> str:
    """Return a token for the page after `position`.

    Args:
        key: the server's secret.
        question: principal, method and all arguments of the list except the page's size.
        position: the last row that was given out.
    """
    body = json.dumps([position.at, position.id], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_mac(key, question, body) + body).decode()


def unseal(key: bytes, question: tuple[str, ...], token: str) -> Position | None:
    """Return the position in a token, None for the empty one. A token grants nothing: every page authorises anew.

    Raises:
        Refusal: BAD_PAGE_TOKEN: not made by this server for this question.
    """
    if not token:
        return None
    try:
        raw = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        raw = b""
    mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
    if base64.urlsafe_b64encode(raw).decode() != token or not hmac.compare_digest(mac, _mac(key, question, body)):
        raise Refusal("BAD_PAGE_TOKEN", "page_token was not given out for this question.")
    at, identifier = json.loads(body)
    return Position(at, identifier)


def _mac(key: bytes, question: tuple[str, ...], body: bytes) -> bytes:
    asked = hashlib.sha256(json.dumps(question).encode()).digest()
    return hmac.new(key, asked + body, hashlib.sha256).digest()[:_MAC_BYTES]


def audit_filter(text: str) -> AuditFilter:
    """Read `field = value` terms on state, model, check, joined by AND.

    Raises:
        Refusal: BAD_FILTER, naming the word that is not understood.
    """
    if not text.strip():
        return AuditFilter()
    if len(text) > FILTER_MAX:
        raise Refusal("BAD_FILTER", f"The filter has more than {FILTER_MAX} characters.")
    found: dict[str, str] = {}
    for term in re.split(r"\s+AND\s+", text):
        parts = _TERM.fullmatch(term)
        if parts is None:
            raise _bad(f"{names.shown(term)!r} is not a term", term)
        field, value = parts[1], parts[2]
        if field in found:
            raise _bad(f"{field} appears twice", field)
        found[field] = _value(field, value)
    return AuditFilter(**found)


def _value(field: str, value: str) -> str:
    if field == "state":
        state = value.removeprefix("STATE_")
        if state not in AuditState.__members__:
            raise _bad(f"{names.shown(value)!r} is no state; states are {', '.join(AuditState.__members__)}", value)
        return state
    if field == "model":
        if not names.is_model(value):
            raise _bad("model is compared with models/{64 hex}", value)
        return names.model(value)
    if field == "check":
        bare = names.bare_check(value if value.startswith("checks/") else f"checks/{value}")
        if bare is None:
            raise _bad("check is compared with checks/{name}", value)
        return bare
    raise _bad(f"{names.shown(field)!r} is no field of a filter", field)


def _bad(what: str, word: str) -> Refusal:
    return Refusal("BAD_FILTER", f"In the filter, {what}.", metadata={"word": names.shown(word)})
