"""Names to addresses by this machine's resolver, within a time: the system's own call knows no deadline."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence

LOOKUPS_MAX = 64
"""Lookups at once. One that nobody waits for any more ends when the system's resolver gives up, after some 10 s."""

_SLOTS = threading.BoundedSemaphore(LOOKUPS_MAX)


def resolve(host: str, timeout_s: float) -> Sequence[str]:
    """Return every address of a name (`service.rules.addresses.Resolver`).

    Raises:
        TimeoutError: no answer within `timeout_s` seconds, or too many lookups wait already.
        OSError: no such name, or no resolver.
    """
    if not _SLOTS.acquire(timeout=timeout_s):
        raise TimeoutError("too many names are being looked up")
    answer: list[Sequence[str] | OSError] = []

    def look() -> None:
        try:
            # Bytes: the name is plain ASCII already, and no codec may make another name of it.
            found = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)
            answer.append([str(address[0]) for *_, address in found])
        except OSError as error:
            answer.append(error)
        finally:
            _SLOTS.release()

    thread = threading.Thread(target=look, name="resolve", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not answer:
        raise TimeoutError("the name was not resolved in time")
    if isinstance(answer[0], OSError):
        raise answer[0]
    return answer[0]
