"""Started by a root worker: gathers the sources in an own mount namespace, becomes nobody, and executes bubblewrap.

Where a cell has control groups it enters them first, and then it is started by a worker that is not root, too.

A program: UID PARENT N group... N source... argument...; UID -1 stays who it is; a source is `ro:path` or `rw:path`,
and `{stage}/<i>` in an argument stands for the i-th. Standard library only. Whatever fails ends it with status 97 and a
line on stderr, before bubblewrap exists. Each start waits for its imports: `json` and `typing` take longer than it.

Why: bubblewrap started by root maps the cell's user to host root, whose limits do not count and for whom files under
/proc/sys open for writing; and an interpreter under a home of mode 0700 is out of reach for anybody else.
"""

from __future__ import annotations

import _ctypes
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

FAILED = 97
STAY = -1
"""Instead of a uid: remain who you are."""
GROUNDS = ("/mnt", "/srv", "/tmp")  # noqa: S108 - covered by an own tmpfs before use, in an own namespace
"""Reachable by everybody on every usual host; the first that exists becomes the gathering place."""

CLONE_NEWNS = 0x00020000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 24, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
CAPABILITIES = 64
"""More than any kernel has; dropping an unknown one is EINVAL and ends the loop."""

SIGKILL = 9
_DIRECTORY, _TYPE = 0o040000, 0o170000


class _Int(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "i"


class _Long(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "L"


class _Function(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Int


def _libc(name: str) -> Any:
    own: Any = None  # the program itself
    return _Function(_ctypes.dlsym(_ctypes.dlopen(own, 0), name))


_MOUNT, _UNSHARE, _PRCTL = _libc("mount"), _libc("unshare"), _libc("prctl")


def die(text: str) -> NoReturn:
    """Say what failed and end."""
    os.write(2, f"stage: {text}\n".encode("utf-8", "backslashreplace"))
    os._exit(FAILED)


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """Make one mount, or end."""
    arguments = [one.encode() if one is not None else None for one in (source, target, kind)]
    if _MOUNT(*arguments, _Long(flags), data.encode() if data else None) != 0:
        die(f"mount {target}: {os.strerror(_ctypes.get_errno())}")


def gather(sources: list[str]) -> str:
    """Bind each source read-only, nosuid and nodev under one empty directory; return that directory."""
    if _UNSHARE(CLONE_NEWNS) != 0:
        die(f"unshare: {os.strerror(_ctypes.get_errno())}")
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    held = []
    for one in sources:  # opened before the gathering place covers anything
        try:
            held.append(os.open(one[3:], os.O_PATH | os.O_CLOEXEC))
        except OSError:
            die(f"unreadable {one[3:]}")
    ground = next((path for path in GROUNDS if os.path.isdir(path)), None)
    if ground is None:
        die(f"none of {GROUNDS} exists")
    mount("tmpfs", ground, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m")
    for index, (one, descriptor) in enumerate(zip(sources, held, strict=True)):
        target = f"{ground}/{index}"
        if os.fstat(descriptor).st_mode & _TYPE == _DIRECTORY:
            os.mkdir(target, 0o755)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        mount(f"/proc/self/fd/{descriptor}", target, None, MS_BIND)
        readonly = 0 if one.startswith("rw:") else MS_RDONLY
        mount(None, target, None, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | readonly)
        os.close(descriptor)
    mount(None, ground, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    return ground


def become(uid: int) -> None:
    """Give up root for good: groups, bounding and ambient capabilities, ids."""
    if uid <= 0:
        die("the cell's uid must be above 0")
    os.setgroups([])
    for capability in range(CAPABILITIES):
        if _PRCTL(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    _PRCTL(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    if _PRCTL(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or os.getresuid() != (uid, uid, uid):
        die("root could not be given up")


def enter(groups: list[str]) -> None:
    """Move this process, and with it the whole cell, into its control groups."""
    for path in groups:
        try:
            with open(path, "w") as stream:
                stream.write(str(os.getpid()))
        except OSError as error:
            die(f"group {path}: {error.strerror}")


def counted(arguments: list[str]) -> list[str]:
    """Take a list that its length precedes off the arguments."""
    count = int(arguments.pop(0))
    taken = arguments[:count]
    del arguments[:count]
    return taken


def main() -> None:
    """Enter, gather, become nobody, die with the parent, execute."""
    arguments = sys.argv[1:]
    uid, parent = int(arguments.pop(0)), int(arguments.pop(0))
    enter(counted(arguments))
    sources = counted(arguments)
    ground = ""
    if uid != STAY:
        ground = gather(sources)
        become(uid)
    # Changing the uid clears this signal, so it is asked for only now; a parent that ended before is noticed by pid.
    _PRCTL(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        die("the parent ended")
    for index, one in enumerate(sources):
        if not os.access(f"{ground}/{index}", os.R_OK):
            die(f"unreadable {one[3:]}")
    argv = [one.replace("{stage}", ground, 1) if one.startswith("{stage}/") else one for one in arguments]
    os.chdir("/")
    try:
        os.execve(argv[0], argv, {})  # noqa: S606 - an argument list, no shell
    except OSError as error:
        die(f"execute {argv[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
