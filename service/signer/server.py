"""The socket: who may ask, how much, how often, and in which words. No operation takes bytes to sign."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assay import canonical, strict_json
from assay.errors import Malformed
from assay.shape import AUDIT, COUNT, Kind, check
from assay.tlog.entries import is_reason

from service.signer.refusal import CannotServe, Refused

LINE_MAX = 4096
"""Bytes of a request; the longest honest one has about 150."""

PATIENCE_S = 10.0
"""How long a connection may take to send its line."""

CONNECTIONS_MAX = 16
"""Served at once: the scheduler needs one or two."""

_STRIPES = 64
"""Locks, chosen by the audit's name."""

_REASON = Kind("a word of letters and underscores", lambda v: isinstance(v, str) and v.isidentifier() and len(v) <= 64)

WITHDRAWAL_REASON = Kind("at most 32 of a-z, 0-9 and _, a letter first", lambda v: isinstance(v, str) and is_reason(v))

_WORDS: Mapping[str, Mapping[str, Any]] = {
    "register": {"audit": AUDIT},
    "seal": {"audit": AUDIT, "token": COUNT},
    "void": {"audit": AUDIT, "reason": _REASON},
    "withdraw": {"audit": AUDIT, "reason": WITHDRAWAL_REASON},
}
"""Every operation and exactly its fields."""

Answer = Callable[[Mapping[str, Any]], dict[str, Any]]


@dataclass
class Allowance:
    """A bucket of operations that refills evenly: a stolen scheduler cannot make the signer work without end."""

    per_minute: int
    clock: Callable[[], float] = time.monotonic
    _left: float = field(init=False)
    _seen: float = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self._left, self._seen = float(self.per_minute), self.clock()

    def take(self) -> None:
        """Take one operation.

        Raises:
            Refused: RATE_LIMITED.
        """
        with self._lock:
            now = self.clock()
            self._left = min(float(self.per_minute), self._left + (now - self._seen) * self.per_minute / 60)
            self._seen = now
            if self._left < 1:
                raise Refused("RATE_LIMITED", f"more than {self.per_minute} operations a minute; ask again later")
            self._left -= 1


class Server:
    """Answers one JSON line per connection with one JSON line.

    Args:
        path: the socket, made with mode 0600; a stale one is replaced.
        allowed_uid: the only user that is answered.
        allowance: how many operations are done.
        answer: does an operation, or raises `Refused`.

    Raises:
        CannotServe: the socket cannot be opened.
    """

    def __init__(self, path: Path, allowed_uid: int, allowance: Allowance, answer: Answer) -> None:
        self._path = path
        self._uid = allowed_uid
        self._allowance = allowance
        self._answer = answer
        self._slots = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self._locks = [threading.Lock() for _ in range(_STRIPES)]
        self._socket = _listen(path, allowed_uid)

    def serve(self) -> None:
        """Answer until `close` is called."""
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # closed
            self._slots.acquire()
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def close(self) -> None:
        """Stop accepting; operations under way are safe to lose, since each step of theirs can be repeated."""
        self._path.unlink(missing_ok=True)
        # shutdown wakes the accept that another thread sleeps in; close alone does not.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _converse(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(PATIENCE_S)
                if _peer_uid(connection) == self._uid:
                    connection.sendall(canonical.dumps(self._respond(_read_line(connection))) + b"\n")
        except OSError:
            pass  # the asker went away; it asks again
        finally:
            self._slots.release()

    def _respond(self, line: bytes) -> dict[str, Any]:
        try:
            asked = _parse(line)
            self._allowance.take()
            # One operation at a time for each audit; two audits rarely share a lock and never suffer from it.
            with self._locks[int(asked["audit"][:8], 16) % _STRIPES]:
                return {"ok": True, **self._answer(asked)}
        except Refused as refused:
            told = {"ok": False, "code": refused.code, "retryable": refused.retryable, "message": str(refused)}
            return told | ({"blob": refused.blob} if refused.blob else {})


def _listen(path: Path, allowed_uid: int) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        # The mode is set on the inode before its name exists: nobody can connect in between.
        os.fchmod(listening.fileno(), 0o600)
        listening.bind(str(path))
        path.chmod(0o600)
        if allowed_uid != os.getuid():
            os.chown(path, allowed_uid, -1)
        listening.listen(CONNECTIONS_MAX)
    except OSError as error:
        listening.close()
        raise CannotServe(f"cannot open the signer's socket {path} for user {allowed_uid}: {error}") from error
    return listening


def _peer_uid(connection: socket.socket) -> int:
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", packed)
    return int(uid)


def _read_line(connection: socket.socket) -> bytes:
    line, deadline = b"", time.monotonic() + PATIENCE_S
    while b"\n" not in line and len(line) <= LINE_MAX and time.monotonic() < deadline:
        piece = connection.recv(LINE_MAX + 1 - len(line))
        if not piece:
            break
        line += piece
    return line


def _parse(line: bytes) -> dict[str, Any]:
    try:
        if not line.endswith(b"\n"):
            raise Refused("BAD_REQUEST", f"a request is one line of at most {LINE_MAX} bytes")
        asked = strict_json.loads(line, LINE_MAX)
        op = asked.get("op") if isinstance(asked, dict) else None
        words = _WORDS.get(op) if isinstance(op, str) else None
        if words is None or set(asked) != {"op", *words}:
            raise Refused(
                "BAD_REQUEST", "operations are register(audit), seal(audit, token), void and withdraw(audit, reason)"
            )
        check(asked, words)
    except Malformed as error:
        raise Refused("BAD_REQUEST", str(error)) from error
    request: dict[str, Any] = asked
    return request
