"""Attacks on limits: more processes, memory, files or time than were given. Each stops by itself at twice the limit."""

from __future__ import annotations

import errno
import os
import resource
import signal
import threading
import time

from .words import THROUGH, Found, Parameters, Probe, each, held, syscall, tried

_OWNER = 0o600


def forks(parameters: Parameters) -> Found:
    """Fork twice as often as allowed; every child waits for the end of a pipe."""
    try:
        read_end, write_end = os.pipe()
    except OSError as error:  # a cell that may have no processes may have no pipes
        return {"forks": errno.errorcode.get(error.errno or 0, "OSError")}
    children = []
    word = THROUGH
    try:
        for _ in range(2 * parameters["processes"]):
            pid = os.fork()
            if pid == 0:
                os.close(write_end)
                os.read(read_end, 1)
                os._exit(0)
            children.append(pid)
    except OSError as error:
        word = errno.errorcode.get(error.errno or 0, "OSError")
    finally:
        os.close(write_end)
        os.close(read_end)
        for pid in children:
            os.waitpid(pid, 0)
    return {"forks": word if len(children) < parameters["processes"] else THROUGH}


def threads(parameters: Parameters) -> Found:
    """Start twice as many threads as allowed."""
    done = threading.Event()
    started = []
    word = THROUGH
    try:
        for _ in range(2 * parameters["processes"]):
            one = threading.Thread(target=done.wait, daemon=True)
            one.start()
            started.append(one)
    except RuntimeError:  # the interpreter's word for EAGAIN and EPERM alike
        word = "EAGAIN"
    finally:
        done.set()
    return {"threads": word if len(started) < parameters["processes"] else THROUGH}


def space(parameters: Parameters) -> Found:
    """Fill scratch and shared memory with twice their size, in files that are each within the limit of a file."""
    return each(
        {
            "scratch": lambda: _fill(parameters["scratch"], parameters["scratch_bytes"]),
            "shm": lambda: _fill(parameters["shm"], parameters["shm_bytes"]),
        }
    )


def _fill(folder: str, size: int) -> None:
    made = []
    try:
        for index in range(8):
            path = f"{folder}/fill-{index}"
            made.append(path)
            with open(path, "xb", buffering=0) as stream:
                if stream.write(b"\1" * (size // 4)) != size // 4:
                    raise OSError(errno.ENOSPC, "short write")
    finally:
        for path in made:
            if os.path.exists(path):
                os.unlink(path)


def file_size(parameters: Parameters) -> Found:
    """Write a file beyond what a file may have."""

    def write() -> None:
        with open(f"{parameters['out_dir']}/holes", "r+b", buffering=0) as stream:
            stream.seek(parameters["file_bytes"])
            stream.write(b"1")

    return {"file": tried(write)}


def priority(_parameters: Parameters) -> Found:
    """Run before others."""
    return {"nice": tried(lambda: os.setpriority(os.PRIO_PROCESS, 0, -5))}


def core(_parameters: Parameters) -> Found:
    """Be allowed a core file of more than one byte, now or by a new limit."""

    def raised() -> None:
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (2, 2))
        except ValueError:  # above the hard limit
            raise OSError(errno.EPERM, "limit") from None

    soft, _hard = resource.getrlimit(resource.RLIMIT_CORE)
    return {"allowed": held(0 <= soft <= 1, "EPERM"), "limit": tried(raised)}


def sleep(_parameters: Parameters) -> Found:
    """Outlast the wall clock."""
    time.sleep(60)
    return {"outlasted": THROUGH}


def stop(_parameters: Parameters) -> Found:
    """Stop oneself, so that nothing can be waited for."""
    try:
        os.kill(os.getpid(), signal.SIGSTOP)
    except OSError:  # a cell that may send no signals sleeps
        time.sleep(60)
    return {"outlasted": THROUGH}


def spin(parameters: Parameters) -> Found:
    """Use the processor for longer than allowed."""
    while time.process_time() < parameters["spin_s"]:
        pass
    return {"spun": THROUGH}


def memory(parameters: Parameters) -> Found:
    """Touch more memory than allowed and stay."""
    held = b"\1" * parameters["held_bytes"]
    time.sleep(parameters["stay_s"])
    return {"held": THROUGH if held else "ENOMEM"}


def unmapped(_parameters: Parameters) -> Found:
    """Hold memory that no process has: in a memory file that is not mapped, and in objects of the namespace."""
    found = {"memory_file": tried(_memory_file)}
    for name, make, remove in (
        ("shared_memory", (29, 0, 2**20, _OWNER), (31, 0, 0)),
        ("messages", (68, 0, _OWNER), (71, 0, 0)),
        ("semaphores", (64, 0, 1, _OWNER), (66, 0, 0)),
    ):
        found[name] = tried(lambda make=make, remove=remove: _made(make, remove))  # type: ignore[misc]
    return found


def _memory_file() -> None:
    descriptor = syscall(319, b"assay", 1)
    try:
        os.write(descriptor, bytes(2**20))
    finally:
        os.close(descriptor)


def _made(make: tuple[int, ...], remove: tuple[int, ...]) -> None:
    number, *given = remove
    made = syscall(*make)
    syscall(number, made, *given)


PROBES: dict[str, Probe] = {
    "forks": forks, "threads": threads, "space": space, "file_size": file_size, "priority": priority, "core": core,
    "unmapped": unmapped,
    "sleep": sleep, "stop": stop, "spin": spin, "memory": memory,
}  # fmt: skip
