"""What is executed to start one cell: the shim's plan, bubblewrap's arguments, a root worker's staging step."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sandbox import filters, landlock, limits
from sandbox.bubblewrap import preflight, profile, stage
from sandbox.bubblewrap.plan import Plan
from sandbox.bubblewrap.settings import BubblewrapSettings
from sandbox.cell import Order
from sandbox.cgroups import Group
from sandbox.channels import Pipes
from sandbox.errors import CellFailed

# Imported here and there from the same folder: so it is compiled once, not at every start. The folder is last in the
# path, for other files of it have names of the standard library.
_STAGE = f"import sys; sys.path.append({str(Path(stage.__file__).parent)!r}); import stage; stage.main()"
_HIGH = 200
"""Above every number that the shim puts something at."""


def add_filter(pipes: Pipes, program: bytes) -> None:
    """Give the child a descriptor from which bubblewrap reads the outer filter; it is closed with the child's ends.

    Raises:
        CellFailed: spawn_failed, when the host has no descriptor left.
    """
    if not program:
        return
    try:
        descriptor = os.memfd_create("filter", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, program)
            os.lseek(descriptor, 0, os.SEEK_SET)
            pipes.child["filter"] = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _HIGH)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CellFailed("spawn_failed", str(error)) from None


def shim_plan(
    order: Order,
    planned: Plan,
    caps: Mapping[str, int],
    pipes: Pipes,
    abi: int,
    preload: tuple[str, ...] | None = None,
) -> str:
    """Return what the shim is told; see `sandbox.inside`."""
    return json.dumps(
        {
            "fds": {role: pipes.child[role] for role in ("result", "progress", "status", "go")},
            "rlimits": limits.rlimits(caps),
            "landlock": landlock.planned(abi, planned.rules),
            "filter": filters.inner(order.kind).hex(),
            "canary": profile.CANARY,
            "front": ["/code"],
            "back": list(planned.python_path),
            "preload": preload,
            "module": order.module,
            "arguments": list(order.arguments),
        }
    )


def command(
    settings: BubblewrapSettings, planned: Plan, pipes: Pipes, shim: str, uid: int | None, group: Group | None
) -> list[str]:
    """Return the command that the launcher executes.

    Args:
        settings: paths.
        planned: mounts and environment.
        pipes: the child's ends are named by number.
        shim: the shim's plan.
        uid: who a root worker becomes first; None for a worker that is not root.
        group: what it enters first.

    Raises:
        CellRefused: prefix_unreadable.
    """
    inner = [str(settings.interpreter), *profile.PYTHON_FLAGS, profile.SHIM, shim]
    info, program = str(pipes.child["info"]), str(pipes.child.get("filter", ""))
    mounts = list(planned.mounts)
    sources = [one for one in mounts if one.sort in ("ro", "rw") and one.staged] if uid is not None else []
    place = {one: index for index, one in enumerate(sources)}
    mounts = [replace(one, source=f"{{stage}}/{place[one]}") if one in place else one for one in mounts]
    made = [str(settings.bwrap), *profile.arguments(mounts, planned.environment, info, program, inner)]
    if uid is None:
        preflight.check_sources(planned)
        if group is None:
            return made
    procs = [str(path) for path in group.procs] if group else []
    gathered = [("rw:" if one.sort == "rw" else "ro:") + one.source for one in sources]
    return [
        sys.executable, "-I", "-S", "-B", "-c", _STAGE, str(stage.STAY if uid is None else uid), str(os.getpid()),
        str(len(procs)), *procs, str(len(gathered)), *gathered, *made,
    ]  # fmt: skip
