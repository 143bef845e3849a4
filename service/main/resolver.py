"""Names to addresses by this machine's resolver, within a time: the system's own call knows no deadline."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence

LOOKUPS_MAX = 64
"""Lookups at once. One that nobody waits for any more ends when the system's resolver gives up, after some 10 s."""

LOOKUPS_OF_ONE = 2
"""Of them those of one tenant, the abandoned ones too: whoever keeps a name server that never answers waits for its own
lookups and takes nobody else's place. A lookup that is answered takes milliseconds, so 20 webhooks share two places."""

_CHANGED = threading.Condition()
_RUNNING: Counter[str] = Counter()
"""Asker -> lookups that the system has not ended."""


def resolve(host: str, timeout_s: float, asker: str) -> Sequence[str]:
    """Return every address of a name (`service.rules.addresses.Resolver`).

    Raises:
        TimeoutError: no answer within `timeout_s` seconds, or too many lookups wait already.
        OSError: no such name, or no resolver.
    """
    ends = time.monotonic() + timeout_s
    _enter(asker, timeout_s)
    answer: list[Sequence[str] | OSError] = []

    def look() -> None:
        try:
            # Bytes: the name is plain ASCII already, and no codec may make another name of it.
            found = socket.getaddrinfo(_whole(host).encode("ascii"), None, type=socket.SOCK_STREAM)
            answer.append([str(address[0]) for *_, address in found])
        except OSError as error:
            answer.append(error)
        finally:
            _leave(asker)

    thread = threading.Thread(target=look, name="resolve", daemon=True)
    thread.start()
    thread.join(max(0.0, ends - time.monotonic()))
    if not answer:
        raise TimeoutError("the name was not resolved in time")
    if isinstance(answer[0], OSError):
        raise answer[0]
    return answer[0]


def _whole(host: str) -> str:
    """Return the name with its dot at the end: without one the machine's search list would make other names of it.

    `localhost` alone has no other dot, and stands in the machine's own file without one.
    """
    return f"{host}." if "." in host else host


def _enter(asker: str, timeout_s: float) -> None:
    def free() -> bool:
        return _RUNNING[asker] < LOOKUPS_OF_ONE and _RUNNING.total() < LOOKUPS_MAX

    with _CHANGED:
        if not _CHANGED.wait_for(free, timeout_s):
            raise TimeoutError("too many names are being looked up")
        _RUNNING[asker] += 1


def _leave(asker: str) -> None:
    with _CHANGED:
        _RUNNING[asker] -= 1
        if not _RUNNING[asker]:
            del _RUNNING[asker]
        _CHANGED.notify_all()
