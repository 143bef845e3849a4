"""The profile of a bubblewrap cell: mounts, environment and argument list as data, and its digest.

Everything here is pure. The argument list of a real launch and the template that the digest covers come out of the
same function, so a change of either changes the digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from sandbox import filters, landlock
from sandbox.cell import Kind, canonical
from sandbox.limits import DEFAULTS

CELL_ID = 65532
"""uid and gid as the program sees them."""

Sort = Literal["ro", "rw", "tmpfs", "proc", "dev", "device", "symlink", "remount"]


@dataclass(frozen=True, kw_only=True)
class Mount:
    """One entry of the mount table."""

    sort: Sort
    target: str
    source: str = ""
    """Path on the host; for a symlink its content."""
    size: str = ""
    perms: str = ""
    staged: bool = True
    """False: the source is the kernel's own (`/dev/null`, `/proc/sys`) and is not moved by the staging step."""


SHIM = "/shim/inside.py"
CANARY = "/shim/canary.py"
"""Mounted and in no rule of Landlock: the shim tries to open it."""

MASKS = (
    "keys", "key-users", "kallsyms", "config.gz", "timer_list", "kmsg", "kcore", "sysrq-trigger",
    "interrupts", "cmdline", "swaps", "pressure/cpu", "pressure/io", "pressure/irq", "pressure/memory",
)  # fmt: skip
"""Files of /proc that tell of the host or act on it; each is covered by a `/dev/null` that cannot be opened."""

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
"""What `--dev` binds from the host."""
OPENED_DEVICES = ("null", "zero", "full", "random", "urandom")
"""Those that Landlock lets open; a cell has no terminal."""
INGEST_DEVICES = ("null", "urandom")
"""All that the interpreter needs."""
GPU_DEVICES = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")
"""Beside `nvidia<i>` of each leased index; never another index, modeset, caps or dri."""

_ENVIRONMENT = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "HF_HUB_OFFLINE": "1",
    "HOME": "/scratch",
    "LANG": "C.UTF-8",
    "MKL_NUM_THREADS": "{cpus}",
    "OMP_NUM_THREADS": "{cpus}",
    "PATH": "/nonexistent",
    "PWD": "/",
    "PYTHONHASHSEED": "0",
    "TMPDIR": "/scratch",
}
ENVIRONMENT: Mapping[Kind, Mapping[str, str]] = MappingProxyType(
    {
        "ingest": MappingProxyType({**_ENVIRONMENT, "HOME": "/", "TMPDIR": "/"}),
        "check": MappingProxyType(_ENVIRONMENT),
        "check_gpu": MappingProxyType({**_ENVIRONMENT, "CUDA_VISIBLE_DEVICES": "{gpus}"}),
    }
)
"""The complete environment by kind; PWD is bubblewrap's. `{gpus}` counts from 0: a cell sees its own devices only."""

FLAGS = (
    # --unshare-all alone only tries the user namespace, and --disable-userns then refuses.
    "--unshare-user", "--unshare-all", "--disable-userns", "--assert-userns-disabled", "--die-with-parent",
    "--new-session", "--clearenv", "--cap-drop", "ALL", "--uid", str(CELL_ID), "--gid", str(CELL_ID),
    "--hostname", "cell",
)  # fmt: skip

PYTHON_FLAGS = ("-P", "-s", "-S", "-B")
"""No current directory, user folder, `.pth`, sitecustomize or bytecode; `-I` would ignore PYTHONHASHSEED."""


def tail(kind: Kind, masks: Sequence[str], scratch: str, shm: str, gpus: Sequence[str] = ()) -> tuple[Mount, ...]:
    """Return the mounts that follow those of code and data.

    Args:
        kind: an ingest cell gets two devices and nothing else: no process file system and no memory to write to.
        masks: those of `MASKS` that exist on the host: covering an absent one makes bubblewrap fail.
        scratch: bytes of /scratch, "0" for none.
        shm: bytes of /dev/shm, "0" for none.
        gpus: indices of the leased GPUs.
    """
    last = Mount(sort="remount", target="/")
    if kind == "ingest":
        return (*(_device(name) for name in INGEST_DEVICES), last)
    nodes = [*(f"nvidia{index}" for index in gpus), *GPU_DEVICES] if kind == "check_gpu" else []
    return (
        *([Mount(sort="tmpfs", target="/scratch", size=scratch, perms="0700")] if scratch != "0" else []),
        Mount(sort="proc", target="/proc"),
        *(Mount(sort="ro", target=f"/proc/{name}", source="/dev/null", staged=False) for name in masks),
        Mount(sort="ro", target="/proc/sys", source="/proc/sys", staged=False),
        *([Mount(sort="ro", target="/sys", source="/sys", staged=False)] if kind == "check_gpu" else []),
        Mount(sort="dev", target="/dev"),
        *(_device(name) for name in nodes),  # after --dev, whose own file system would cover them
        *([Mount(sort="tmpfs", target="/dev/shm", size=shm)] if shm != "0" else []),  # noqa: S108 - in the cell
        Mount(sort="remount", target="/dev"),  # without it /dev is a writable, unsized tmpfs: a hole in memory
        last,
    )


def _device(name: str) -> Mount:
    return Mount(sort="device", target=f"/dev/{name}", source=f"/dev/{name}", staged=False)


def arguments(
    mounts: Sequence[Mount], environment: Mapping[str, str], info: str, program: str, command: Sequence[str]
) -> list[str]:
    """Return bubblewrap's arguments, without the program's own name.

    Args:
        mounts: in the order in which they are made.
        environment: all of it.
        info: number of the descriptor on which bubblewrap tells of its child.
        program: number of the descriptor that holds the outer filter; "" for none.
        command: what is executed in the cell.
    """
    made = [*FLAGS, "--json-status-fd", info]
    for name, value in sorted(environment.items()):
        if name != "PWD":  # set by --chdir
            made += ["--setenv", name, value]
    for mount in mounts:
        made += _option(mount)
    return [*made, "--chdir", "/", *(["--seccomp", program] if program else []), "--", *command]


def _option(mount: Mount) -> list[str]:
    perms = ["--perms", mount.perms] if mount.perms else []
    if mount.sort == "tmpfs":
        return [*perms, "--size", mount.size, "--tmpfs", mount.target]
    if mount.sort in ("proc", "dev"):
        return [f"--{mount.sort}", mount.target]
    if mount.sort == "remount":
        return ["--remount-ro", mount.target]
    option = {"ro": "--ro-bind", "rw": "--bind", "device": "--dev-bind", "symlink": "--symlink"}[mount.sort]
    return [option, mount.source, mount.target]


def options_used(made: Sequence[str]) -> set[str]:
    """Return the options that an argument list uses, for comparison with `--help`."""
    return {one for one in made[: made.index("--")] if one.startswith("--")}


def template(kind: Kind) -> tuple[list[str], tuple[landlock.Rule, ...]]:
    """Return the argument list and the rules of a kind, with roles in place of paths and numbers.

    Args:
        kind: of the cell.
    """
    places = {
        "prefix": "{prefix}", "interpreter": "{interpreter}", "library": "{library}",
        "site-packages": "{site-packages}", "shim": SHIM, "canary": CANARY, "code": "/code/{code}", "inputs": "/in",
    }  # fmt: skip
    mounts = [Mount(sort="ro", target=target, source=f"{{{role}}}") for role, target in places.items()]
    mounts.append(Mount(sort="rw", target="/out/{slot}", source="{slot}"))
    mounts += tail(kind, MASKS, "{scratch_bytes}", "{shm_bytes}", ("{gpu}",))
    command = ["{interpreter}", *PYTHON_FLAGS, SHIM, "{plan}"]
    return arguments(mounts, ENVIRONMENT[kind], "{info}", "{filter}", command), landlock.rules(kind, mounts)


def document(kind: Kind, *, warm: bool = False) -> bytes:
    """Return the canonical profile: roles in place of paths and numbers, so it is equal on every host."""
    made, rules = template(kind)
    return canonical(
        {
            "schema": "assay-profile/v1",
            "backend": "bubblewrap",
            "kind": kind,
            **({"start": "warm"} if warm else {}),
            "arguments": made,
            "filters": [filters.digest(filters.program(layer, kind)) for layer in ("outer", "inner")],
            "landlock": [
                {"path": rule.path, "right": rule.right, "bits": landlock.RIGHTS[rule.right]} for rule in rules
            ],
            "masks": list(MASKS) if kind != "ingest" else [],
            "environment": dict(ENVIRONMENT[kind]),
            "limits": sorted({*DEFAULTS[kind], "cpu_s", "file_bytes", "address_bytes"} - _unlimited(kind)),
        }
    )


def _unlimited(kind: Kind) -> set[str]:
    return {"address_bytes"} if kind == "check_gpu" else set()


def digest(kind: Kind, *, warm: bool = False) -> str:
    """Return the SHA-256 of the canonical profile."""
    return hashlib.sha256(document(kind, warm=warm)).hexdigest()
