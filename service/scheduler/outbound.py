"""One call to a receiver: https to a checked address, in ten seconds, reading at most 4 KiB. Follows nothing.

1. read the URL; 2. resolve its host; 3. every address must pass; 4. connect to a checked address itself, so that a name
that changes its mind meanwhile moves nothing; 5. TLS with the certificate verified for the name; 6. send; 7. read the
status. No variable of the environment names a proxy here, because nothing here reads one.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from service.rules.addresses import Allowed, Forbidden, Resolver, Target, require_all, target
from service.rules.retries import Reply

CALL_S = 10.0
"""From the first lookup to the status, in seconds (specs: service, section 13)."""

CONNECT_S = 4.0
"""For one address, so that a dead one of two leaves time for the other."""

ADDRESSES_TRIED = 3
"""Addresses of one name that are connected to before the try has failed."""

REPLY_MAX = 4_096
"""Bytes of the reply that are read, interim ones among them (specs: service, section 13)."""

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?")
_RETRY_AFTER = re.compile(rb"retry-after:[ \t]*([ -~]{1,64}?)[ \t]*", re.IGNORECASE)

Connect = Callable[[str, int, float], socket.socket]
"""Opens a TCP connection to an address (never a name) and a port within so many seconds; raises OSError."""


@dataclass(frozen=True, kw_only=True)
class OutboundSettings:
    """How receivers are reached."""

    allowed: Allowed = field(default_factory=Allowed)
    ca: Path | None = None
    """PEM of the authorities that receivers' certificates are verified with; None means this machine's."""


@dataclass
class Deadline:
    """How much of a call's time is left.

    Args:
        seconds: of the whole call.
        clock: monotonic, in seconds.
    """

    seconds: float
    clock: Callable[[], float] = time.monotonic
    _ends: float = field(init=False)

    def __post_init__(self) -> None:
        self._ends = self.clock() + self.seconds

    def left(self) -> float:
        """Return the seconds that are left.

        Raises:
            TimeoutError: none are.
        """
        left = self._ends - self.clock()
        if left <= 0:
            raise TimeoutError("the call's time is over")
        return left


def connect(address: str, port: int, timeout_s: float) -> socket.socket:
    """Open a TCP connection to an address; no name is ever looked up here.

    Raises:
        OSError: nobody answered.
    """
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.settimeout(timeout_s)
        opened.connect((address, port))
    except BaseException:
        opened.close()
        raise
    return opened


class Outbound:
    """Calls receivers.

    Args:
        settings: what may be called, and whose certificates are believed.
        resolve: looks names up.
        connect: opens connections.
        call_s: how long one call takes at most, in seconds.

    Raises:
        OSError: the file of authorities cannot be read.
    """

    def __init__(
        self,
        settings: OutboundSettings,
        resolve: Resolver,
        *,
        connect: Connect = connect,
        call_s: float = CALL_S,
    ) -> None:
        self._allowed = settings.allowed
        self._resolve = resolve
        self._connect = connect
        self._call_s = call_s
        self._tls = ssl.create_default_context(cafile=str(settings.ca) if settings.ca else None)
        self._tls.set_alpn_protocols(["http/1.1"])

    def post(self, url: str, headers: Mapping[str, str], body: bytes, tenant: str) -> Reply:
        """Make one call for a tenant; whatever goes wrong is a reply with a word for it."""
        deadline = Deadline(self._call_s)
        try:
            wanted = target(url, self._allowed)
            addresses = require_all(self._addresses(wanted, deadline, tenant), self._allowed)
            with self._open(wanted, addresses, deadline) as opened:
                _send(opened, _request(wanted, headers, body), deadline)
                return _read(opened, deadline)
        except Forbidden:
            return Reply(error="FORBIDDEN_ADDRESS")
        except TimeoutError:
            return Reply(error="TIMED_OUT")
        except ssl.SSLCertVerificationError:
            return Reply(error="BAD_CERTIFICATE")
        except ssl.SSLError:
            return Reply(error="TLS_FAILED")
        except OSError:
            return Reply(error="NOT_REACHED")

    def _addresses(self, wanted: Target, deadline: Deadline, tenant: str) -> tuple[str, ...]:
        if wanted.address is not None:
            return (wanted.host,)
        try:
            return tuple(self._resolve(wanted.host, deadline.left(), tenant))
        except TimeoutError:
            raise
        except OSError:
            return ()  # as a name without addresses: whether a name exists is not told

    def _open(self, wanted: Target, addresses: tuple[str, ...], deadline: Deadline) -> ssl.SSLSocket:
        """Connect to the first checked address that answers, and verify who it is.

        Raises:
            OSError: nobody did, or it is somebody else.
        """
        failure: OSError = OSError("no address was tried")
        for address in addresses[:ADDRESSES_TRIED]:
            try:
                plain = self._connect(address, wanted.port, min(deadline.left(), CONNECT_S))
            except OSError as error:
                deadline.left()
                failure = error
                continue
            try:
                plain.settimeout(deadline.left())
                return self._tls.wrap_socket(plain, server_hostname=wanted.host)
            except BaseException:
                plain.close()
                raise
        raise failure


def _request(wanted: Target, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = [
        f"POST {wanted.path} HTTP/1.1",
        f"Host: {wanted.authority}",
        "User-Agent: assay-webhooks/1",
        "Content-Type: application/cloudevents+json; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def _send(opened: ssl.SSLSocket, data: bytes, deadline: Deadline) -> None:
    view = memoryview(data)
    while view:
        opened.settimeout(deadline.left())
        view = view[opened.send(view) :]


def _read(opened: ssl.SSLSocket, deadline: Deadline) -> Reply:
    """Read to the end of the headers, or 4 KiB in all; what was asked for stands in the first lines.

    A reply that is cut off before says nothing: its status could be the beginning of another one.
    """
    data, left = b"", REPLY_MAX
    while True:
        head, ended, rest = data.partition(b"\r\n\r\n")
        if ended and not _is_interim(head):
            return _reply(head)
        if ended:
            data = rest
            continue
        if not left:
            return _reply(data.rpartition(b"\r\n")[0])  # its whole lines
        opened.settimeout(deadline.left())
        piece = opened.recv(left)
        if not piece:
            return Reply(error="BAD_REPLY")
        data += piece
        left -= len(piece)


def _is_interim(head: bytes) -> bool:
    return head.startswith((b"HTTP/1.1 1", b"HTTP/1.0 1"))


def _reply(head: bytes) -> Reply:
    first, *lines = head.split(b"\r\n")
    status = _STATUS.fullmatch(first)
    if status is None or _is_interim(first):
        return Reply(error="BAD_REPLY")
    asked = [found[1] for line in lines if (found := _RETRY_AFTER.fullmatch(line))]
    return Reply(status=int(status[1]), retry_after=asked[0].decode() if asked else "")
