"""How an attempt is made and told: "through", or the name of the error that stopped it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from typing import Any

Parameters = Mapping[str, Any]
Found = dict[str, str]
"""By attempt, what became of it; several words of one attempt are joined by a slash."""
Probe = Callable[[Parameters], Found]

THROUGH = "through"


def tried(call: Callable[[], object]) -> str:
    """Make one attempt."""
    try:
        call()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "ETIMEDOUT")
    return THROUGH


def each(attempts: Mapping[str, Callable[[], object]]) -> Found:
    """Make every attempt."""
    return {name: tried(call) for name, call in attempts.items()}


def joined(words: list[str]) -> str:
    """Return the words of many tries of one attempt; one that got through is enough."""
    return THROUGH if THROUGH in words else "/".join(sorted({part for word in words for part in word.split("/")}))


def held(fine: bool, word: str) -> str:
    """Return the word for a state that holds, "through" for one that does not."""
    return word if fine else THROUGH


def in_child(call: Callable[[], object]) -> str:
    """Make an attempt in a child, which ends with it; its death by a signal is told by the signal's name."""
    try:
        pid = os.fork()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "OSError")
    if pid == 0:
        number = 255
        try:
            call()
            number = 0
        except OSError as error:
            number = (error.errno or 254) & 255
        finally:
            os._exit(number)
    return _ending(os.waitpid(pid, 0)[1])


def _ending(status: int) -> str:
    import signal

    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    code = os.waitstatus_to_exitcode(status)
    return THROUGH if code == 0 else errno.errorcode.get(code, "EPROTO")


def syscall(number: int, *arguments: int | bytes | None) -> int:
    """Make a system call by number; 0 stands for a null pointer.

    Raises:
        OSError: the kernel's refusal.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    given = [one if isinstance(one, bytes) else ctypes.c_long(one or 0) for one in arguments]
    answer = int(libc.syscall(ctypes.c_long(number), *given))
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer


def opened(path: str, flags: int) -> Callable[[], object]:
    """Return an attempt to open a file, and to do nothing with it."""
    return lambda: os.close(os.open(path, flags | os.O_CLOEXEC))
