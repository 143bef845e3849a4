"""Attacks on processes: the host's, the launcher, and one's own that should end."""

from __future__ import annotations

import os
import signal
import time

from .words import THROUGH, Found, Parameters, Probe, held, in_child, syscall, tried

_PTRACE, _ATTACH, _DETACH, _TRACEME = 101, 16, 17, 0
_VM_READ, _VM_WRITE, _KCMP, _PIDFD_OPEN, _PIDFD_GETFD, _PIDFD_SIGNAL, _TGKILL = 310, 311, 312, 434, 438, 424, 234
_SESSION = 124
_FCNTL, _FLOCK, _INOTIFY_INIT, _INOTIFY_ADD_WATCH, _IN_OPEN = 72, 73, 294, 254, 0x20
_SETLK, _SETOWN, _SETSIG, _OFD_SETLK, _SETLEASE, _RDLCK, _LOCK_SH = 6, 8, 10, 37, 1024, 0, 1
_OWN = 8
"""A cell that runs this has fewer processes than that."""


def _listed() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def _is_own(pid: int) -> bool:
    """Tell whether the number is also one of the cell's own: then it says nothing about the host's process."""
    seen = _listed()
    return len(seen) < _OWN and pid in seen


def trace(parameters: Parameters) -> Found:
    """Trace the launcher, process 1 and a sibling; outside, children of one's own."""
    found = {}
    for name, pid in (("launcher", parameters["pid"]), ("init", 1), ("sibling", 0)):
        found[name] = _traced(pid if parameters["inside"] else 0)
    found["traceme"] = in_child(lambda: syscall(_PTRACE, _TRACEME, 0, 0, 0))
    me = os.getpid()
    for name, given in {
        "vm_read": (_VM_READ, me, 0, 0, 0, 0, 0), "vm_write": (_VM_WRITE, me, 0, 0, 0, 0, 0),
        "kcmp": (_KCMP, me, me, 99, 0, 0), "pidfd_open": (_PIDFD_OPEN, me, 1 << 30),
        "pidfd_getfd": (_PIDFD_GETFD, -1, 0, 0),
    }.items():  # fmt: skip
        found[name] = tried(lambda given=given: syscall(*given))  # type: ignore[misc]
    return found


def _traced(pid: int) -> str:
    child = 0
    if pid == 0:
        try:
            child = pid = os.fork()
        except OSError:
            return "EPERM"
        if pid == 0:
            time.sleep(60)
            os._exit(0)
    try:
        word = tried(lambda: syscall(_PTRACE, _ATTACH, pid, 0, 0))
        if word == THROUGH:
            os.waitpid(pid, 0)
            syscall(_PTRACE, _DETACH, pid, 0, 0)
        return word
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def signals(parameters: Parameters) -> Found:
    """Stop a process that the host started for this; outside a second one."""
    pid: int = parameters["victim"]
    if parameters["inside"] and _is_own(pid):
        return dict.fromkeys(("null", "stop", "thread", "group"), "own number")
    return {
        "null": tried(lambda: os.kill(pid, 0)),
        "stop": tried(lambda: os.kill(pid, signal.SIGSTOP)),
        "thread": tried(lambda: syscall(_TGKILL, pid, pid, signal.SIGSTOP)),
        "group": tried(lambda: os.killpg(pid, signal.SIGSTOP)),
        "session": _session(parameters),
    }


def _session(parameters: Parameters) -> str:
    """Be in the launcher's session. One that is outside of this namespace has no number here: 0."""
    try:
        shared = 0 if parameters["inside"] else syscall(_SESSION, parameters["pid"])
        return held(syscall(_SESSION, 0) != shared, "own")
    except OSError:
        return "EPERM"


def others(parameters: Parameters) -> Found:
    """Look into the launcher: environment, command line, memory map; and list all processes."""
    pid = parameters["pid"]
    found = {}
    for name in ("environ", "cmdline", "maps"):
        own = parameters["inside"] and _is_own(pid)
        found[name] = "own number" if own else tried(lambda name=name: _read(f"/proc/{pid}/{name}"))  # type: ignore[misc]
    return {**found, "list": held(len(_listed()) <= 3, "own")}


def _read(path: str) -> None:
    with open(path, "rb") as stream:
        print(stream.read(4096).hex()[:64], flush=True)


def descriptors(_parameters: Parameters) -> Found:
    """Hold a descriptor that was not declared (0 to 4 are), or stand in a directory of the host."""
    stray = False
    for number in range(5, 4096):
        try:
            os.fstat(number)
        except OSError:
            continue
        stray = True
    return {"stray": held(not stray, "0 to 4"), "cwd": held(os.getcwd() == "/", "root")}


def orphan(_parameters: Parameters) -> Found:
    """Leave a process behind that has its own session, ignores signals and closes nothing."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            time.sleep(60)
        os._exit(0)
    os.wait()
    return {"left": THROUGH}


def shared_files(parameters: Parameters) -> Found:
    """Lock, lease and watch a file that others may have open too: each tells them something, or tells of them."""
    found = {}
    for name, call in {
        "lease": (_FCNTL, _SETLEASE, _RDLCK), "lock": (_FCNTL, _SETLK, bytes(32)),
        "open_file_lock": (_FCNTL, _OFD_SETLK, bytes(32)), "owner": (_FCNTL, _SETOWN, os.getpid()),
        "signal": (_FCNTL, _SETSIG, signal.SIGURG), "flock": (_FLOCK, _LOCK_SH),
    }.items():  # fmt: skip
        found[name] = tried(lambda call=call: _on_input(parameters["input"], *call))  # type: ignore[misc]
    found["inotify"] = tried(lambda: _watched(parameters["input"].encode()))
    return found


def _on_input(path: str, number: int, *given: int | bytes) -> None:
    """Make a call on an open file; bytes of zeros are a lock for reading on all of it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscall(number, descriptor, *given)
    finally:
        os.close(descriptor)


def _watched(path: bytes) -> None:
    descriptor = syscall(_INOTIFY_INIT, 0)
    try:
        syscall(_INOTIFY_ADD_WATCH, descriptor, path, _IN_OPEN)
    finally:
        os.close(descriptor)


PROBES: dict[str, Probe] = {
    "trace": trace, "signals": signals, "shared_files": shared_files, "others": others,
    "descriptors": descriptors, "orphan": orphan,
}  # fmt: skip
