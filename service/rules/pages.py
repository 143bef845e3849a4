"""Pages of a list: sizes, filters, and tokens that mean something only to this server and this question."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from service.rules import names
from service.rules.errors import Refusal
from service.rules.states import AuditState

SIZE_DEFAULT = 50
SIZE_MAX = 1000
LABEL = "label."
"""Before the key of a label, in a filter."""
FILTER_MAX = 1000
"""Characters of a filter."""

_TERM = re.compile(r'\s*([a-z_]+|label\.[a-z0-9-]{1,63})\s*=\s*(?:([A-Za-z0-9_/.:-]+)|"([^"]*)")\s*')
"""A value stands bare, or in double quotes, between which anything else may stand too."""
_AND = re.compile(r'\s+AND\s+(?=(?:[^"]*"[^"]*")*[^"]*$)')
"""Outside of quotes."""
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
    labels: Mapping[str, str] = field(default_factory=dict)
    """All of these."""


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


def audit_filter(text: str, *, asked: bool = True) -> AuditFilter:
    """Read `field = value` terms on state, model, check and label.KEY, joined by AND.

    Args:
        text: the filter.
        asked: whether the caller is shown what was asked; who is not could otherwise read it off the filter.

    Raises:
        Refusal: BAD_FILTER, naming the word that is not understood.
    """
    if not text.strip():
        return AuditFilter()
    if len(text) > FILTER_MAX:
        text = f"The filter has more than {FILTER_MAX} characters."
        raise Refusal("BAD_FILTER", text, metadata={"limit": str(FILTER_MAX)})
    found: dict[str, str] = {}
    labels: dict[str, str] = {}
    for term in _AND.split(text):
        parts = _TERM.fullmatch(term)
        if parts is None:
            raise _bad(f"{names.shown(term)!r} is not a term", term)
        name, value = parts[1], parts[2] if parts[2] is not None else parts[3]
        into = labels if name.startswith(LABEL) else found
        if name.removeprefix(LABEL) in into:
            raise _bad(f"{name} appears twice", name)
        if not asked and name != "state":
            raise _bad(f"{names.shown(name)!r} is of what was asked, which this role is not shown; state is", name)
        if not value.isprintable():
            raise _bad(f"the value {names.shown(value)!r} is not printable, as no label is", value)
        into[name.removeprefix(LABEL)] = value if into is labels else _value(name, value)
    return AuditFilter(**found, labels=labels)


def _value(name: str, value: str) -> str:
    if name == "state":
        state = value.removeprefix("STATE_")
        if state not in AuditState.__members__:
            raise _bad(f"{names.shown(value)!r} is no state; states are {', '.join(AuditState.__members__)}", value)
        return state
    if name == "model":
        if not names.is_model(value):
            raise _bad("model is compared with models/{64 hex}", value)
        return names.model(value)
    if name == "check":
        bare = names.bare_check(value if value.startswith("checks/") else f"checks/{value}")
        if bare is None:
            raise _bad("check is compared with checks/{name}", value)
        return bare
    raise _bad(f"{names.shown(name)!r} is no field of a filter", name)


def _bad(what: str, word: str) -> Refusal:
    return Refusal("BAD_FILTER", f"In the filter, {what}.", metadata={"word": names.shown(word)})
