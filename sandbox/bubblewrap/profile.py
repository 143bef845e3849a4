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

from sandbox.cell import Kind, canonical
from sandbox.limits import DEFAULTS

CELL_ID = 65532
"""uid and gid as the program sees them."""

Sort = Literal["ro", "rw", "tmpfs", "proc", "dev", "symlink", "remount"]


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


MASKS = ("keys", "key-users", "kallsyms", "config.gz", "timer_list", "kmsg", "kcore", "sysrq-trigger")
"""Files of /proc that tell of the host or act on it; each is covered by a `/dev/null` that cannot be opened."""

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
"""What `--dev` binds from the host."""

ENVIRONMENT: Mapping[Kind, Mapping[str, str]] = MappingProxyType(
    {
        "check": MappingProxyType(
            {
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
        )
    }
)
"""The complete environment by kind; PWD is bubblewrap's."""

FLAGS = (
    # --unshare-all alone only tries the user namespace, and --disable-userns then refuses.
    "--unshare-user", "--unshare-all", "--disable-userns", "--assert-userns-disabled", "--die-with-parent",
    "--new-session", "--clearenv", "--cap-drop", "ALL", "--uid", str(CELL_ID), "--gid", str(CELL_ID),
    "--hostname", "cell",
)  # fmt: skip

PYTHON_FLAGS = ("-P", "-s", "-S", "-B")
"""No current directory, user folder, `.pth`, sitecustomize or bytecode; `-I` would ignore PYTHONHASHSEED."""


def tail(kind: Kind, masks: Sequence[str], scratch: str, shm: str) -> tuple[Mount, ...]:
    """Return the mounts that follow those of code and data.

    Args:
        kind: only "check" has a profile.
        masks: those of `MASKS` that exist on the host: covering an absent one makes bubblewrap fail.
        scratch: bytes of /scratch.
        shm: bytes of /dev/shm.
    """
    assert kind == "check"
    return (
        Mount(sort="tmpfs", target="/scratch", size=scratch, perms="0700"),
        Mount(sort="proc", target="/proc"),
        *(Mount(sort="ro", target=f"/proc/{name}", source="/dev/null", staged=False) for name in masks),
        Mount(sort="ro", target="/proc/sys", source="/proc/sys", staged=False),
        Mount(sort="dev", target="/dev"),
        Mount(sort="tmpfs", target="/dev/shm", size=shm),  # noqa: S108 - a mount point inside the cell
        Mount(sort="remount", target="/dev"),  # without it /dev is a writable, unsized tmpfs: a hole in memory
        Mount(sort="remount", target="/"),
    )


def arguments(mounts: Sequence[Mount], environment: Mapping[str, str], info: str, command: Sequence[str]) -> list[str]:
    """Return bubblewrap's arguments, without the program's own name."""
    made = [*FLAGS, "--json-status-fd", info]
    for name, value in sorted(environment.items()):
        if name != "PWD":  # set by --chdir
            made += ["--setenv", name, value]
    for mount in mounts:
        made += _option(mount)
    return [*made, "--chdir", "/", "--", *command]


def _option(mount: Mount) -> list[str]:
    perms = ["--perms", mount.perms] if mount.perms else []
    if mount.sort == "tmpfs":
        return [*perms, "--size", mount.size, "--tmpfs", mount.target]
    if mount.sort in ("proc", "dev"):
        return [f"--{mount.sort}", mount.target]
    if mount.sort == "remount":
        return ["--remount-ro", mount.target]
    option = {"ro": "--ro-bind", "rw": "--bind", "symlink": "--symlink"}[mount.sort]
    return [option, mount.source, mount.target]


def options_used(made: Sequence[str]) -> set[str]:
    """Return the options that an argument list uses, for comparison with `--help`."""
    return {one for one in made[: made.index("--")] if one.startswith("--")}


def document(kind: Kind) -> bytes:
    """Return the canonical profile: roles in place of paths and numbers, so it is equal on every host."""
    roles = ("prefix", "interpreter", "library", "site-packages", "shim", "code", "input")
    mounts = [Mount(sort="ro", target=f"{{{role}}}", source=f"{{{role}}}") for role in roles]
    mounts.append(Mount(sort="rw", target="{slot}", source="{slot}"))
    template = arguments(
        [*mounts, *tail(kind, MASKS, "{scratch_bytes}", "{shm_bytes}")],
        ENVIRONMENT[kind],
        "{info}",
        ["{interpreter}", *PYTHON_FLAGS, "{shim}", "{plan}"],
    )
    return canonical(
        {
            "schema": "assay-profile/v1",
            "backend": "bubblewrap",
            "kind": kind,
            "arguments": template,
            "filters": [],
            "landlock": [],
            "masks": list(MASKS),
            "environment": dict(ENVIRONMENT[kind]),
            "limits": sorted({*DEFAULTS[kind], "cpu_s", "file_bytes", "address_bytes"}),
        }
    )


def digest(kind: Kind) -> str:
    """Return the SHA-256 of the canonical profile."""
    return hashlib.sha256(document(kind)).hexdigest()
