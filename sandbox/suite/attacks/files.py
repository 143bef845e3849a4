"""Attacks on files: reading what is the host's, changing what is read-only, turning a slot into something else."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from .words import THROUGH, Found, Parameters, Probe, each, held, joined, opened, syscall, tried

_MMAP, _MUNMAP = 9, 11
_READ, _WRITE, _SHARED, _PRIVATE = 1, 2, 1, 2
_HOLE = 4096


def canary(parameters: Parameters) -> Found:
    """Read a file of the host by its path and around corners."""
    path: str = parameters["canary"]
    ways = {
        "absolute": path,
        "dots": "/" + "../" * 20 + path.lstrip("/"),
        "self_root": "/proc/self/root" + path,
        "other_root": parameters["other_root"] + path,
        "cwd": "/proc/self/cwd/" + "../" * 20 + path.lstrip("/"),
    }
    return each({name: _said(way) for name, way in ways.items()})


def _said(path: str) -> Callable[[], object]:
    def read() -> None:
        with open(path, "rb") as stream:
            # What was read is said aloud, so that the host finds it in result or logs.
            print(stream.read().hex(), flush=True)

    return read


def homes(parameters: Parameters) -> Found:
    """List a home with keys and tokens, and the directories where homes and settings are."""
    home: str = parameters["home"]
    secrets = (".ssh/id_ed25519", ".netrc", ".cache/huggingface/token", ".aws/credentials", ".config/gcloud/key.json")
    found = {f"read_{name}": tried(_said(f"{home}/{name}")) for name in secrets}
    found |= {f"list_{path}": tried(lambda path=path: os.listdir(path)) for path in ("/home", "/etc", "/var")}  # type: ignore[misc]
    return {**found, "list_home": tried(lambda: os.listdir(home))}


def readonly(parameters: Parameters) -> Found:
    """Change, replace or remove what is mounted read-only: every mount that can be seen."""
    made: dict[str, list[str]] = {}
    for path in [*parameters["readonly"], *(_mounts() if parameters["inside"] else [])]:
        for name, attempt in _changes(path).items():
            made.setdefault(name, []).append(tried(attempt))
    return {name: joined(words) for name, words in made.items()}


def _mounts() -> list[str]:
    """Return every mount point whose mount is read-only; without a process file system none."""
    try:
        with open("/proc/self/mountinfo") as stream:
            lines = [line.split() for line in stream]
    except OSError:
        return []
    return [parts[4] for parts in lines if "ro" in parts[5].split(",") and not parts[4].startswith("/proc/")]


def _changes(path: str) -> dict[str, Callable[[], object]]:
    if os.path.isdir(path):
        return {
            "create": opened(path.rstrip("/") + "/assay-new", os.O_CREAT | os.O_EXCL | os.O_WRONLY),
            "mkdir": lambda: os.mkdir(path.rstrip("/") + "/assay-new-dir"),
        }
    return {
        "write": opened(path, os.O_WRONLY),
        "append": opened(path, os.O_APPEND | os.O_RDWR),
        "truncate": opened(path, os.O_TRUNC | os.O_WRONLY),
        "chmod": lambda: os.chmod(path, 0o644),
        "utime": lambda: os.utime(path),
        "setxattr": lambda: os.setxattr(path, "user.assay", b"1"),
        "rename": lambda: os.rename(path, path + ".assay"),
        "unlink": lambda: os.unlink(path + ".assay" if os.path.exists(path + ".assay") else path),
    }


def symlinks(parameters: Parameters) -> Found:
    """Link to the canary from scratch, read through the link, and put a link where a slot is."""
    path, scratch, out = parameters["canary"], parameters["scratch"], parameters["out_dir"]
    slot = f"{out}/slot"
    return each(
        {
            "absolute": lambda: os.symlink(path, f"{scratch}/absolute"),
            "relative": lambda: os.symlink("../" * 20 + path.lstrip("/"), f"{scratch}/relative"),
            "follow": _said(f"{scratch}/absolute"),
            "follow_relative": _said(f"{scratch}/relative"),
            "beside_slot": lambda: os.symlink(path, f"{out}/link"),
            "over_slot": lambda: os.replace(f"{out}/link", slot),
        }
    )


def hard_links(parameters: Parameters) -> Found:
    """Link an input and the canary into scratch."""
    scratch = parameters["scratch"]
    return each(
        {
            "input": lambda: os.link(parameters["input"], f"{scratch}/input-link"),
            "canary": lambda: os.link(parameters["canary"], f"{scratch}/canary-link"),
            "slot": lambda: os.link(f"{parameters['out_dir']}/slot2", f"{scratch}/slot-link"),
        }
    )


def slots(parameters: Parameters) -> Found:
    """Make a slot something else than the regular file that the host made, or larger than it may be."""
    out, scratch = parameters["out_dir"], parameters["scratch"]
    slot = f"{out}/slot2"

    def sparse() -> None:
        os.truncate(slot, 2**40)

    def beyond() -> None:
        with open(slot, "r+b", buffering=0) as stream:
            stream.seek(parameters["file_bytes"])
            stream.write(b"1")

    def hole() -> None:
        with open(f"{out}/holes", "r+b", buffering=0) as stream:
            stream.seek(_HOLE)
            stream.write(b"1")

    if parameters["inside"]:
        tried(hole)  # allowed: the host sees zeros, and says so
    return each(
        {
            "sparse": sparse,
            "beyond": beyond,
            "fifo": lambda: os.mkfifo(f"{out}/fifo"),
            "fifo_in_scratch": lambda: os.mkfifo(f"{scratch}/fifo"),
            "socket": lambda: os.mknod(f"{out}/socket", stat.S_IFSOCK | 0o600),
            "directory": lambda: os.mkdir(f"{out}/directory"),
            "unlink": lambda: os.unlink(slot),
        }
    )


def names(parameters: Parameters) -> Found:
    """Create files beside a slot under names that somebody may misread."""
    out = os.fsencode(parameters["out_dir"])
    odd = {
        "newline": b"a\nslot", "escape": b"\x1b[2J", "longest": b"a" * 255, "bad_utf8": b"slot\xff",
        "look_alike": "sl\u043et".encode(), "dots": b"..slot", "comma": b"=slot,1",
    }  # fmt: skip
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    return {name: tried(lambda one=one: os.close(os.open(out + b"/" + one, flags))) for name, one in odd.items()}  # type: ignore[misc]


def devices(parameters: Parameters) -> Found:
    """Make nodes of a disk and of memory."""
    kinds = {"disk": (stat.S_IFBLK, 8, 0), "memory": (stat.S_IFCHR, 1, 1), "port": (stat.S_IFCHR, 1, 4)}

    def made(name: str, kind: int, major: int, minor: int) -> Callable[[], object]:
        def make() -> None:
            path = f"{parameters['scratch']}/node-{name}"
            os.mknod(path, kind, os.makedev(major, minor))  # mode 0: nobody but root could open it
            os.unlink(path)

        return make

    return each({name: made(name, *one) for name, one in kinds.items()})


def shared_mapping(parameters: Parameters) -> Found:
    """Write into an input through a mapping: shared, or read-only by the process's own memory file."""
    path = parameters["mapped"]
    shared = _SHARED if not parameters["inside"] else _PRIVATE
    return {
        "open": tried(opened(path, os.O_RDWR)),
        "map": tried(lambda: _mapped(path, os.O_RDWR, _READ | _WRITE, _SHARED)),
        "map_of_reader": tried(lambda: _mapped(path, os.O_RDONLY, _READ | _WRITE, _SHARED))
        if parameters["inside"]
        else tried(lambda: _mapped(path, os.O_RDWR, _READ | _WRITE, _SHARED)),
        "memory_file": _poked(path, shared, parameters["inside"]),
    }


def _poked(path: str, shared: int, inside: bool) -> str:
    """Write by the memory file; the word is "own copy" when the file is as it was."""
    with open(path, "rb") as stream:
        before = stream.read()
    flags, protection = (os.O_RDONLY, _READ) if inside else (os.O_RDWR, _READ | _WRITE)
    word = tried(lambda: _mapped(path, flags, protection, shared, poke=True))
    with open(path, "rb") as stream:
        after = stream.read()
    return "own copy" if word == THROUGH and after == before else word


def _mapped(path: str, flags: int, protection: int, shared: int, *, poke: bool = False) -> None:
    number = os.open(path, flags)
    try:
        place = syscall(_MMAP, 0, _HOLE, protection, shared, number, 0)
        try:
            if poke:
                memory = os.open("/proc/self/mem", os.O_RDWR)
                try:
                    os.lseek(memory, place, os.SEEK_SET)
                    os.write(memory, b"changed")
                finally:
                    os.close(memory)
        finally:
            syscall(_MUNMAP, place, _HOLE)
    finally:
        os.close(number)


def gpu_nodes(_parameters: Parameters) -> Found:
    """Open devices of GPUs that were not leased, and those that rule over all of them."""
    nodes = ("nvidia0", "nvidia1", "nvidia-modeset", "nvidia-caps/nvidia-cap1", "dri/renderD128", "dri/card0")
    return each({node: opened(f"/dev/{node}", os.O_RDWR) for node in nodes})


def hooks(parameters: Parameters) -> Found:
    """Have code run before the program: by the interpreter's hooks; and see a variable of the launcher."""
    import sys

    table: dict[str, str] = parameters["environment"]
    odd = {name for name in table.keys() | os.environ.keys() if table.get(name) != os.environ.get(name)}
    planted = {"sitecustomize", "usercustomize", "assay_planted"} & sys.modules.keys()
    return {
        "environment": held(not odd, "equal"),
        "secret": held("ASSAY_PLANTED" not in os.environ, "absent"),
        "preload": held(not any(name.startswith("LD_") for name in os.environ), "absent"),
        "hooks": held(not planted, "absent"),
    }


PROBES: dict[str, Probe] = {
    "canary": canary, "homes": homes, "readonly": readonly, "symlinks": symlinks, "hard_links": hard_links,
    "slots": slots, "names": names, "devices": devices, "shared_mapping": shared_mapping, "gpu_nodes": gpu_nodes,
    "hooks": hooks,
}  # fmt: skip
