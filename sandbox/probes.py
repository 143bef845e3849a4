"""The probes of the self-check: each tries one thing a cell must not allow, and says whether it got through.

One program for both sides: inside a cell it is the untrusted module, outside it is the control, which must get through
or its case proves nothing. Standard library only. Nothing here harms a host if it succeeds.

Arguments: names of probes separated by commas, and one JSON object of parameters.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

Parameters = dict[str, Any]
Answer = tuple[bool, str]
"""Whether the attack got through, and what was seen, in words that are equal from run to run."""


def _tried(attempts: list[tuple[str, Callable[[], object]]]) -> Answer:
    """Make each attempt; one that succeeds is enough to get through."""
    through: list[str] = []
    denied: set[str] = set()
    for name, attempt in attempts:
        try:
            attempt()
        except OSError as error:
            denied.add(errno.errorcode.get(error.errno or 0, "ETIMEDOUT"))
        else:
            through.append(name)
    return (True, "+".join(through)) if through else (False, "/".join(sorted(denied)))


def network(parameters: Parameters) -> Answer:
    """Reach a listener on the host's loopback, by IPv4 and by an abstract socket."""

    def tcp() -> None:
        with socket.create_connection(("127.0.0.1", parameters["port"]), timeout=2):
            return

    def abstract() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
            one.settimeout(2)
            one.connect("\0" + parameters["abstract"])

    return _tried([("tcp", tcp), ("abstract", abstract)])


def namespaces(parameters: Parameters) -> Answer:
    """Share a namespace with the host, or see an interface besides the loopback."""
    same = [name for name, link in parameters["namespaces"].items() if os.readlink(f"/proc/self/ns/{name}") == link]
    others = [name for _index, name in socket.if_nameindex() if name != "lo"]
    if same or others:
        return True, "+".join(sorted(same) + (["interfaces"] if others else []))
    return False, "all differ, lo only"


def canary(parameters: Parameters) -> Answer:
    """Read a file of the host by its path and around corners."""
    path: str = parameters["canary"]
    ways = [path, "/.." + path, "/proc/self/root" + path, "/proc/1/root" + path, "/in/../.." + path]

    def reading(way: str) -> Callable[[], object]:
        def read() -> None:
            with open(way, "rb") as stream:
                # What was read is said aloud, so that the host finds it in result or logs.
                print(stream.read().hex(), flush=True)

        return read

    return _tried([(f"way{index}", reading(way)) for index, way in enumerate(ways)])


def environment(parameters: Parameters) -> Answer:
    """Find anything in the environment that is not in the table, or miss anything of it."""
    table: dict[str, str] = parameters["environment"]
    odd = {name for name in table.keys() | os.environ.keys() if table.get(name) != os.environ.get(name)}
    return (True, "differs") if odd else (False, "equals the table")


def readonly(parameters: Parameters) -> Answer:
    """Change, replace or remove what is mounted read-only."""
    attempts: list[tuple[str, Callable[[], object]]] = []
    for path in parameters["readonly"]:
        if os.path.isdir(path):
            attempts.append(("create", lambda path=path: os.close(os.open(path + "/new", os.O_CREAT | os.O_WRONLY))))  # type: ignore[misc]
            continue
        for flag, name in ((os.O_WRONLY, "write"), (os.O_APPEND | os.O_RDWR, "append"), (os.O_TRUNC | 1, "truncate")):
            attempts.append((name, lambda path=path, flag=flag: os.close(os.open(path, flag))))  # type: ignore[misc]
        attempts += [
            ("chmod", lambda path=path: os.chmod(path, 0o644)),  # type: ignore[misc]
            ("utime", lambda path=path: os.utime(path)),  # type: ignore[misc]
            ("rename", lambda path=path: os.rename(path, path + ".x")),  # type: ignore[misc]
            ("unlink", lambda path=path: os.unlink(path)),  # type: ignore[misc]
        ]
    return _tried(attempts)


def descriptors(_parameters: Parameters) -> Answer:
    """Hold a descriptor that was not declared: 0 to 4 are."""
    held = set()
    for number in range(1024):
        try:
            os.fstat(number)
        except OSError:
            continue
        held.add(number)
    stray = held - set(range(5))
    return (True, "stray") if stray else (False, "0 to 4")


def processes_seen(parameters: Parameters) -> Answer:
    """See or signal (with the null signal) the host's processes."""
    pid: int = parameters["pid"]
    seen = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    if len(seen) > 3:
        return True, "host's /proc"
    return _tried([("signal", lambda: os.kill(pid, 0)), ("cmdline", lambda: os.stat(f"/proc/{pid}/cmdline"))])


def host_root(_parameters: Parameters) -> Answer:
    """Open for writing, and write nothing, a kernel setting that only the host's root may."""
    knob = "/proc/sys/kernel/core_pattern"
    return _tried([("core_pattern", lambda: os.close(os.open(knob, os.O_WRONLY)))])


def file_size(parameters: Parameters) -> Answer:
    """Write a file larger than the scratch space."""

    def write() -> None:
        path = os.path.join(parameters["scratch"], "big")
        with open(path, "wb", buffering=0) as stream:
            for _ in range(parameters["mebibytes"]):
                if stream.write(b"\1" * 2**20) != 2**20:
                    raise OSError(errno.ENOSPC, "short write")

    return _tried([("written", write)])


def process_limit(parameters: Parameters) -> Answer:
    """Fork twice as often as allowed; every child waits for the end of a pipe."""
    wanted = 2 * parameters["processes"]
    read_end, write_end = os.pipe()
    children = []
    try:
        for _ in range(wanted):
            pid = os.fork()
            if pid == 0:
                os.close(write_end)
                os.read(read_end, 1)
                os._exit(0)
            children.append(pid)
    except OSError as error:
        return len(children) >= parameters["processes"], errno.errorcode.get(error.errno or 0, "OSError")
    finally:
        os.close(write_end)
        os.close(read_end)
        for pid in children:
            os.waitpid(pid, 0)
    return True, "forked"


def core_dump(_parameters: Parameters) -> Answer:
    """Be allowed a core file of more than one byte."""
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (2, 2))
    except (OSError, ValueError):
        return False, "limit is final"
    return True, "limit raised"


def sleep(_parameters: Parameters) -> Answer:
    """Outlast the wall clock."""
    time.sleep(60)
    return True, "outlasted"


def memory(parameters: Parameters) -> Answer:
    """Touch more memory than allowed and stay."""
    held = b"\1" * parameters["bytes"]
    time.sleep(parameters["stay_s"])
    return len(held) > 0, "held"


def orphan(_parameters: Parameters) -> Answer:
    """Leave a process behind that has its own session, ignores signals and closes nothing."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            import signal

            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            time.sleep(60)
        os._exit(0)
    os.wait()
    return True, "left behind"


PROBES: dict[str, Callable[[Parameters], Answer]] = {
    "network": network,
    "namespaces": namespaces,
    "canary": canary,
    "environment": environment,
    "readonly": readonly,
    "descriptors": descriptors,
    "processes_seen": processes_seen,
    "host_root": host_root,
    "file_size": file_size,
    "process_limit": process_limit,
    "core_dump": core_dump,
    "sleep": sleep,
    "memory": memory,
    "orphan": orphan,
}


def main() -> None:
    """Run the named probes and write {name: [through, got]} to the descriptor or file that the parameters name."""
    parameters: Parameters = json.loads(sys.argv[2])
    answers: dict[str, Answer] = {}
    for name in sys.argv[1].split(","):
        try:
            answers[name] = PROBES[name](parameters)
        except OSError as error:
            answers[name] = (False, errno.errorcode.get(error.errno or 0, "OSError"))
    with open(parameters["out"], "wb") as stream:
        stream.write(json.dumps(answers).encode())


if __name__ == "__main__":
    main()
