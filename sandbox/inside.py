"""The shim: trusted, and the first code inside a cell.

It puts the channels at fixed numbers, limits itself, closes Landlock and the inner filter behind itself, tries one file
that must be out of reach, says one line on the status channel and waits. Nothing of the order is imported before the
host, having looked at this process from outside, has answered. A spare cell, which waits for an order that nobody knows
yet, imports the release's own modules behind the wall, takes the order, lowers its limits and then waits the same way.

Argument: one JSON object {"fds": {role: number}, "rlimits": {name: [soft, hard]}, "landlock": null | {"abi": n,
"handled": [fs, net, scoped], "rules": [[path, rights], ...]}, "filter": hex of sock_filter[] or "", "canary": path or
"", "front": [...], "back": [...], "preload": null | [module, ...], "module": str, "arguments": [...]}; the rights are
the kernel's bits. A spare reads one line from the go channel: {"rlimits", "module", "arguments"}.

What is mounted at /code is run from its sources alone. Digests cover sources, so no bytecode that lies beside them is
ever read, whoever put it there.

When the module has ended, its threads are waited for, exit functions called and streams flushed; then the process ends
at once, for to take torch apart takes longer than many a check. A file that a program leaves open is not flushed.

Every start of a cell waits for this file, so it imports next to nothing: `json`, `ctypes` and `typing` take longer than
all of its work.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

RESULT, PROGRESS, STATUS, GO = 3, 4, 5, 6
OUT_OF_MEMORY = 75
"""Exit status that tells the host of a MemoryError that nobody caught."""
NOT_ARMED = 70
"""Exit status of a shim that could not arm itself, or was not let go."""

_HIGH = 1024
"""Numbers below are closed one by one where there is no call for it; the gate sees what is left above."""
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT, _SECCOMP = 444, 445, 446, 317
_PATH_BENEATH, _FILTER, _TSYNC = 1, 1, 1
_OF_FILES = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15
"""Rights that a rule for anything but a directory may give: execute, write, read, truncate, ioctl."""
_DIRECTORY, _TYPE = 0o040000, 0o170000
_LINE = 2**16
_NATIVE = "plugins"
"""The folder of /code whose extension modules may be loaded: the digest of third parties' code has every file."""


class Refused(Exception):
    """A layer could not be put on; its code and item go to the host."""


def parsed(text: str) -> Any:
    """Return the value of a JSON text, read by the part of `json` that is written in C.

    The text is the host's own; `json` itself takes 8 ms to import.
    """
    try:
        from _json import make_scanner
    except ImportError:  # an interpreter without it
        import json

        return json.loads(text)

    class Context:
        strict, object_hook, object_pairs_hook = True, None, None
        parse_float, parse_int, parse_constant = float, int, float
        memo: dict[str, str] = {}  # noqa: RUF012

    context: Any = Context()
    return make_scanner(context)(text, 0)[0]


class _Kernel:
    """System calls by number. `ctypes` is a large wrapper of these few types."""

    def __init__(self) -> None:
        import _ctypes

        class Long(_ctypes._SimpleCData):  # type: ignore[type-arg]
            _type_ = "l"

        class Byte(_ctypes._SimpleCData):  # type: ignore[type-arg]
            _type_ = "c"

        class Call(_ctypes.CFuncPtr):
            _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
            _restype_ = Long

        own: Any = None  # the program itself
        self._c: Any = _ctypes
        self._byte: Any = Byte
        self._call: Any = Call(_ctypes.dlsym(_ctypes.dlopen(own, 0), "syscall"))

    def call(self, *arguments: int | bytes | None) -> int:
        """Make the call; OSError when the kernel refuses."""
        answer = int(self._call(*arguments))
        if answer < 0:
            number = self._c.get_errno()
            raise OSError(number, os.strerror(number))
        return answer

    def at(self, content: bytes) -> tuple[bytes, Any]:
        """Return an address of these bytes, as bytes, and what must be held while it is in use."""
        held = (self._byte * len(content)).from_buffer_copy(content)
        return _word(self._c.addressof(held)), held


def _word(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(8, "little") for number in numbers)


def _arrange(fds: dict[str, int]) -> None:
    """Put each channel at its number and close all others; the numbers that come in are far above.

    `dup2` that does not inherit is `dup3`, which the filter of an ingest cell does not know.
    """
    for role, number in (("result", RESULT), ("progress", PROGRESS), ("status", STATUS), ("go", GO)):
        os.dup2(fds[role], number)
        os.set_inheritable(number, False)
    for number in fds.values():
        os.close(number)
    os.closerange(GO + 1, _HIGH)


def _limit(rlimits: dict[str, list[int]]) -> None:
    import resource

    for name, (soft, hard) in rlimits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (soft, hard))


def _restrict(kernel: _Kernel, landlock: dict[str, Any]) -> None:
    """Close the file system but for the rules. A rule that cannot be made is a refusal, never skipped."""
    abi = landlock["abi"]
    words = 1 if abi < 4 else 2 if abi < 6 else 3
    item = "ruleset"
    try:
        ruleset = kernel.call(_LANDLOCK_CREATE, _word(*landlock["handled"][:words]), 8 * words, 0)
        for item, rights in landlock["rules"]:
            place = os.open(item, os.O_PATH | os.O_CLOEXEC)
            if os.fstat(place).st_mode & _TYPE != _DIRECTORY:
                rights &= _OF_FILES
            kernel.call(_LANDLOCK_ADD, ruleset, _PATH_BENEATH, _word(rights) + place.to_bytes(4, "little"), 0)
            os.close(place)
        item = "restrict"
        kernel.call(_LANDLOCK_RESTRICT, ruleset, 0)
        os.close(ruleset)
    except OSError as error:
        raise Refused("landlock_partial", f"{item}: {error.strerror}") from None


def _filter(kernel: _Kernel, program: bytes) -> None:
    """Stack the inner filter on every thread."""
    address, held = kernel.at(program)
    try:
        thread = kernel.call(_SECCOMP, _FILTER, _TSYNC, _word(len(program) // 8) + address)
    except OSError as error:
        raise Refused("seccomp_unsupported", str(error.strerror)) from None
    del held
    if thread:  # not an error to the kernel: the id of a thread that could not follow
        raise Refused("seccomp_unsupported", "a thread could not follow")


def _opened(path: str) -> int:
    """Return 0 when the file opens, the errno otherwise."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno or -1
    return 0


def _arm(plan: dict[str, Any]) -> str:
    """Put every layer on; return the status line."""
    _limit(plan["rlimits"])
    landlock, program, canary = plan.get("landlock"), plan.get("filter"), plan.get("canary")
    kernel = _Kernel() if landlock or program else None
    # The same file is opened before and after: EACCES means Landlock only where it was in reach before.
    before = _opened(canary) if canary else 0
    if kernel and landlock:
        _restrict(kernel, landlock)
    if kernel and program:
        _filter(kernel, bytes.fromhex(program))
    after = _opened(canary) if canary else 0
    abi = landlock["abi"] if landlock else 0
    return f'{{"armed":true,"landlock_abi":{abi},"canary_before":{before},"canary_errno":{after}}}\n'


def _taken(plan: dict[str, Any], status: str) -> tuple[dict[str, Any], str]:
    """Import what an order will need, say that this cell is armed, and take the order in when it comes."""
    import importlib

    for name in plan["preload"]:
        importlib.import_module(name)
    if plan["preload"]:
        import gc

        # A million objects of the libraries live as long as the process: no collection looks at them again.
        gc.collect()
        gc.freeze()
    os.write(STATUS, status.encode())
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(GO, _LINE)
        if not piece:
            os._exit(NOT_ARMED)
        line += piece
    order = parsed(line.decode())
    _limit(order["rlimits"])
    return {**plan, **order}, '{"armed":true}\n'


def _refuse(code: str, item: str) -> NoReturn:
    safe = "".join(c if c.isprintable() and c.isascii() and c not in '"\\' else "?" for c in item)
    os.write(STATUS, f'{{"armed":false,"code":"{code}","item":"{safe}"}}\n'.encode())
    os._exit(NOT_ARMED)


def _wait_for_go(status: str) -> None:
    os.write(STATUS, status.encode())
    answer = os.read(GO, 1)
    os.close(STATUS)
    os.close(GO)
    if answer != b"g":
        os._exit(NOT_ARMED)


def _from_sources(roots: list[str]) -> None:
    """Have modules beneath these folders compiled from their sources, never loaded from bytecode."""
    from importlib import machinery

    class Source(machinery.SourceFileLoader):
        def get_code(self, fullname: str) -> Any:
            return self.source_to_code(self.get_data(self.path), self.path)

    sources: Any = (Source, machinery.SOURCE_SUFFIXES)
    native: Any = (machinery.ExtensionFileLoader, machinery.EXTENSION_SUFFIXES)

    def hook(path: str) -> Any:
        whole = os.path.abspath(path)
        for root in roots:
            if whole == root or whole.startswith(f"{root}/"):
                below = whole[len(root) + 1 :].split("/")[0]
                return machinery.FileFinder(whole, *([native] if below == _NATIVE else []), sources)
        raise ImportError

    sys.path_hooks.insert(0, hook)
    sys.path_importer_cache.clear()


def _end(code: object) -> NoReturn:
    """End as the interpreter would by `sys.exit(code)`, but leave the memory to the kernel."""
    import atexit

    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    own: Any = sys.modules.get("threading")
    functions: Any = atexit
    try:
        if own is not None:
            own._shutdown()  # waits for threads
        functions._run_exitfuncs()
    finally:
        try:  # either may be closed, or what a program put in its place
            sys.stdout.flush(), sys.stderr.flush()
        finally:
            os._exit((code or 0) & 0xFF)


def main() -> None:
    """Arm, wait, run the module."""
    plan: dict[str, Any] = parsed(sys.argv[1])
    _arrange(plan["fds"])
    try:
        status = _arm(plan)
    except Refused as refused:
        _refuse(*refused.args)
    sys.path[:] = [*plan["front"], *sys.path, *plan["back"]]
    _from_sources(plan["front"])
    if plan.get("preload") is not None:
        plan, status = _taken(plan, status)
    _wait_for_go(status)
    sys.argv[:] = [plan["module"], *plan["arguments"]]
    import runpy

    try:
        runpy.run_module(plan["module"], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        _end(ended.code)
    except MemoryError:
        os.write(2, b"MemoryError: the cell's memory is used up\n")
        os._exit(OUT_OF_MEMORY)
    _end(None)


if __name__ == "__main__":
    main()
