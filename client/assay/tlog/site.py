"""A log that is read from where it is published: C2SP tlog-tiles below an https prefix.

Nothing that comes is believed for where it came from: tiles are held against a signed checkpoint. TLS keeps others from
showing an old one.
"""

from __future__ import annotations

import time
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from assay.client_errors import Unreachable
from assay.errors import CouldNotTell, Misused, Wrong, shown
from assay.tlog.tiles import Absent, Fetch

PATIENCE_S = 30.0
"""For one file of at most 130 KiB."""

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_ABSENT = frozenset({404, 410})
_PIECE = 64 << 10


class _Stay(HTTPRedirectHandler):
    """Follows nothing: the answer of another place would count as the log's."""

    def redirect_request(self, *_: Any) -> None:
        return None


def site(prefix: str, *, patience_s: float = PATIENCE_S) -> Fetch:
    """Return a reader of a log that is published below a prefix.

    The reader raises Absent for a file that is not there (404, 410), CouldNotTell for any other answer, Unreachable if
    none comes in time, Wrong for a file that is too long.

    Args:
        prefix: `https://HOST/PATH`; plain http on loopback only.
        patience_s: longest time for one file, in seconds.

    Raises:
        Misused: the prefix has another form.
    """
    base = _checked(prefix)
    opener = build_opener(_Stay)

    def fetch(name: str, most: int) -> bytes:
        deadline = time.monotonic() + patience_s
        try:
            data = _read(opener, f"{base}/{name}", most + 1, deadline)
        except HTTPError as error:
            error.close()
            if error.code in _ABSENT:
                raise Absent(f"the log has no file {name}") from None
            raise CouldNotTell(f"log file {name}: {base} answered {error.code}; expected the file") from None
        except (OSError, HTTPException) as error:
            raise Unreachable(f"log file {name}: nothing whole came from {base}: {shown(str(error))}") from None
        if len(data) > most:
            raise Wrong(f"log file {name} has more than {most} bytes")
        return data

    return fetch


def _read(opener: OpenerDirector, url: str, most: int, deadline: float) -> bytes:
    # The scheme was checked with the prefix.
    asked = Request(url, headers={"Accept-Encoding": "identity", "User-Agent": "assay"})  # noqa: S310
    pieces: list[bytes] = []
    with opener.open(asked, timeout=max(0.1, deadline - time.monotonic())) as answer:
        # read1 waits for one packet only, so that a trickle meets the deadline.
        while most > 0 and (piece := answer.read1(min(most, _PIECE))):
            pieces.append(piece)
            most -= len(piece)
            if time.monotonic() > deadline:
                raise TimeoutError("too slow")
        owed = answer.length
    if most > 0 and owed:
        raise TimeoutError(f"it broke off {owed} bytes before its end")
    return b"".join(pieces)


def _checked(prefix: str) -> str:
    try:
        parts = urlsplit(prefix)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise Misused(f"--prefix {shown(prefix)} is no address: {error}") from None
    if not host or not prefix.isascii() or not prefix.isprintable() or " " in prefix:
        raise Misused(f"--prefix {shown(prefix)} is no address of the form https://HOST/PATH")
    if parts.username is not None or parts.query or parts.fragment:
        raise Misused("--prefix takes no user, query or fragment: https://HOST/PATH")
    if parts.scheme != "https" and not (parts.scheme == "http" and host in _LOOPBACK):
        raise Misused(f"--prefix {shown(prefix)}: a log is read by https (plain http from this machine only)")
    return prefix.rstrip("/")
