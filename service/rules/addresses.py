"""May the service call this address? Pure: text in, a target or a refusal out; nothing is resolved here.

A URL of a caller is a way to make the service talk to its own network (server-side request forgery). So the form is
narrow, not repaired: what two parsers could read differently is refused. Names are resolved by whoever connects, at
creation and again at every try; every address must pass `is_public`, and the checked address itself is connected to.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

PORT = 443
"""Of https; other ports are an operator's to allow (specs: service, section 13)."""

URL_MAX = 2_048
"""Characters of a URL: what the database's column holds."""

NAME_MAX, LABEL_MAX = 253, 63
"""Characters of a host name and of each of its labels (RFC 1035, section 2.3.4)."""

ADDRESSES_MAX = 64
"""Addresses of one name: a longer answer is no receiver's, and each is looked at."""

Resolver = Callable[[str, float, str], Sequence[str]]
"""Returns every address of a host name, as text, within so many seconds, for somebody: one tenant's lookups that hang
may not take the places of another's.

Raises OSError where the name has none or nobody answers, TimeoutError where it took too long.
"""


def resolve_nothing(host: str, timeout_s: float, asker: str) -> Sequence[str]:
    """Know no name: the `Resolver` where none was given, so that forgetting one forbids every name."""
    return ()


_FORM = re.compile(
    r"https://(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,254})(?::(?P<port>[1-9][0-9]{0,4}))?"
    # RFC 3986: path and query of unreserved, sub-delims, ":", "@" and whole escapes; no fragment, which never travels.
    r"(?P<path>(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)*)"
    r"(?P<query>\?(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?"
)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

_REFUSED_V4 = tuple(
    ipaddress.IPv4Network(text)
    # 6to4 relays; and protocol assignments, of which Python releases know more or less.
    for text in ("192.88.99.0/24", "192.0.0.0/24")
)
_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
_REFUSED_V6 = tuple(
    ipaddress.IPv6Network(text)
    # Teredo and 6to4 carry an IPv4 address inside; 3fff::/20 is documentation, newer than Python 3.11's table.
    for text in ("2001::/32", "2002::/16", "3fff::/20")
)


class Forbidden(Exception):
    """The service does not call this.

    Args:
        why: what is wrong with the URL or the address, for its owner; quotes nothing of the service's network.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """What an operator allows beyond https to public addresses on port 443."""

    ports: frozenset[int] = frozenset({PORT})
    loopback: bool = False
    """Receivers on this very machine too: for development, off by default."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A URL that may be called if its addresses pass."""

    host: str
    """A name in lower case, or an address without brackets: for certificate and SNI."""
    port: int
    path: str
    """Path and query as sent."""

    @property
    def authority(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORT else f"{host}:{self.port}"

    @property
    def address(self) -> IPv4Address | IPv6Address | None:
        """The host where it is an address; None where it is a name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None


def target(url: str, allowed: Allowed) -> Target:
    """Read a URL.

    Args:
        url: as its owner wrote it.
        allowed: the operator's rules.

    Raises:
        Forbidden: not of the one form `https://HOST[:PORT][/PATH][?QUERY]`, a port or an address that is not allowed.
    """
    if len(url) > URL_MAX:
        raise Forbidden(f"the URL has {len(url)} characters, the limit is {URL_MAX}")
    parts = _FORM.fullmatch(url)
    if parts is None:
        raise Forbidden(
            "the URL is not https://HOST[:PORT][/PATH][?QUERY] in plain ASCII, without user, fragment, backslash or "
            "space; a name in other letters is written in its xn-- form"
        )
    port = int(parts["port"] or PORT)
    if port not in allowed.ports:
        listed = ", ".join(map(str, sorted(allowed.ports)))
        raise Forbidden(f"port {port} is not among those that the operator allows: {listed}")
    found = Target(host=_host(parts["host"], allowed), port=port, path=(parts["path"] or "/") + (parts["query"] or ""))
    if found.address is not None:
        require_all([found.host], allowed)
    return found


def require_all(addresses: Sequence[str], allowed: Allowed) -> tuple[str, ...]:
    """Return the addresses, canonical and in their order, if every one of them may be called.

    Args:
        addresses: all that a name resolves to.
        allowed: the operator's rules.

    Raises:
        Forbidden: there is none, or one may not be called. Which of both is not told: whether a name of the service's
            own network exists must not be found out by trying.
    """
    if not 1 <= len(addresses) <= ADDRESSES_MAX or not all(may_call(text, allowed) for text in addresses):
        raise Forbidden("the host has no address, or not all of its addresses are public ones")
    return tuple(dict.fromkeys(str(ipaddress.ip_address(text)) for text in addresses))


def may_call(text: str, allowed: Allowed) -> bool:
    """Tell whether an address may be connected to; what is no address never may."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if "%" in text:  # a zone names an interface of this machine
        return False
    return is_public(address) or (allowed.loopback and unmapped(address).is_loopback)


def unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address inside `::ffff:a.b.c.d`, else the address itself."""
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Tell whether an address lies in the public internet (specs: service, section 13).

    `is_global` alone says True for 64:ff9b::7f00:1, ::7f00:1, 224.0.0.1, fec0::1 and 192.88.99.1 (measured on Python
    3.11), which reach this machine, many machines, a site, or a relay.
    """
    address = unmapped(address)
    if not address.is_global or address.is_multicast:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _REFUSED_V4)
    return address in _UNICAST_V6 and not any(address in network for network in _REFUSED_V6)


def _host(text: str, allowed: Allowed) -> str:
    """Return a host in lower case, checked by form alone.

    Raises:
        Forbidden: no address as `ipaddress` writes it, and no name of two labels or more whose last is no number.
    """
    if text.startswith("["):
        try:
            return str(IPv6Address(text[1:-1]))
        except ValueError:
            raise Forbidden("the host in brackets is no IPv6 address") from None
    host = text.lower()
    if host == "localhost" and allowed.loopback:
        return host
    labels = host.split(".")
    # A last label that is a number makes the whole an IPv4 address in some form (WHATWG URL, "ends in a number"):
    # 127.1, 0x7f.1, 017700000001, 2130706433. Only the plain four decimal numbers are read.
    if _NUMBER.fullmatch(labels[-1]):
        try:
            return str(IPv4Address(host))
        except ValueError:
            raise Forbidden("the host is a number, or an IPv4 address that is not written as a.b.c.d") from None
    if len(host) > NAME_MAX or len(labels) < 2 or not all(_LABEL.fullmatch(label) for label in labels):
        raise Forbidden("the host is no full name: two labels or more of letters, digits and -, no dot at the end")
    return host
