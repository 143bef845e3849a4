"""One spare: a cell that waits for an order, how it is made, and whether an order fits it."""

from __future__ import annotations

import os
import resource
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sandbox import bubblewrap, inside, limits
from sandbox.bubblewrap import BubblewrapCell, BubblewrapSettings, Launch, plan
from sandbox.bubblewrap.grouping import grouped
from sandbox.cell import CodeMount, OnStep, Order, Slot
from sandbox.channels import Pipes
from sandbox.inputs import Prepared, prepared
from sandbox.supervise import Running

_OPEN_ENDED: Mapping[str, int] = {"cpu_s": 10**6, "file_bytes": 2**40, "address_bytes": 2**46}
"""What a spare may have until its order says less; only the release's own code runs in that time."""
_KERNEL = {"cpu_s": "CPU", "file_bytes": "FSIZE", "address_bytes": "AS"}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What cannot be changed once a cell is started; an order of another shape starts cold."""

    code: tuple[CodeMount, ...]
    slots: tuple[Slot, ...]
    """Names and caps: the host's descriptors are judged by them at the end."""
    mounted: tuple[int, int]
    """Bytes of /scratch and /dev/shm."""
    grouped: tuple[int, ...]
    """Limits that a control group holds; empty without one."""
    imported: int
    """Of the state on the disk of everything that a spare imports, or that starts it."""


@dataclass(frozen=True, kw_only=True)
class Spare:
    """A started cell without an order."""

    shape: Shape
    launch: Launch
    ready: Prepared
    pid: int
    pipes: Pipes
    stack: ExitStack
    """Takes away its folder and its control group."""
    kill_bound_s: float

    @contextmanager
    def taken(self, caps: Mapping[str, int], steps: tuple[str, ...], on_step: OnStep) -> Iterator[Running]:
        """Take charge of it; whatever happens, nothing of it is left afterwards.

        Raises:
            CellFailed: spawn_failed, cell_unkillable.
        """
        run: Running | None = None
        with self.stack:
            try:
                given = (self.pid, self.pipes, caps, steps, on_step, self.launch.group)
                run = Running.begin(*given, kill_bound_s=self.kill_bound_s)
                yield run
            finally:
                if run is not None:
                    run.close()
                else:
                    self.pipes.close()

    def discard(self) -> None:
        """End it unused.

        Raises:
            CellFailed: cell_unkillable.
        """
        with self.taken(self.launch.caps, (), lambda *_: None):
            pass

    def fits(self, shape: Shape, caps: Mapping[str, int]) -> bool:
        """Tell whether an order can run here: limits can be lowered only."""
        mine, asked = limits.rlimits(self.launch.caps), limits.rlimits(caps)
        lower = all(value <= most for name in asked for value, most in zip(asked[name], mine[name], strict=True))
        return self.shape == shape and lower


def make(cell: BubblewrapCell, order: Order, preload: tuple[str, ...]) -> Spare:
    """Start a spare for orders like this one. Returns at once: it arms itself and imports on its own.

    Raises:
        CellRefused: as the start of any cell.
        CellFailed: the machine failed.
    """
    settings = cell.settings
    order = replace(order, module="none", arguments=(), inputs=(), request=b"", nonce=secrets.token_hex(32), steps=())
    caps = limits.resolve(order, settings.cpus)
    shape = shape_of(order, caps, settings)  # before anything is imported
    caps |= {name: _at_most(name, value) for name, value in _OPEN_ENDED.items()}
    uid = settings.cell_uid if os.geteuid() == 0 else None
    version = cell.version(order.kind)
    with ExitStack() as stack:
        group = stack.enter_context(grouped(settings.cgroup_parent, order, caps))
        ready = stack.enter_context(prepared(order, settings.work_dir, uid, late=True))
        planned = plan.make(order, ready, settings, caps, Path(inside.__file__))
        launch = Launch(order, planned, caps, uid, group, version, preload)
        pid, pipes = cell.spawn(launch)
        pipes.close_child()
        return Spare(
            shape=shape,
            launch=launch,
            ready=ready,
            pid=pid,
            pipes=pipes,
            stack=stack.pop_all(),
            kill_bound_s=settings.kill_bound_s,
        )


def shape_of(order: Order, caps: Mapping[str, int], settings: BubblewrapSettings) -> Shape:
    """Return what an order asks of a cell before it starts."""
    held = ("memory_bytes", "processes") if settings.cgroup_parent is not None else ()
    return Shape(
        code=order.code,
        slots=order.slots,
        mounted=(caps["scratch_bytes"], caps["shm_bytes"]),
        grouped=tuple(caps[name] for name in held),
        imported=hash(tuple(_states(order.code, settings))),
    )


def _at_most(name: str, value: int) -> int:
    """Return no more than this host lets its own processes have; a CPU limit needs a second above it."""
    hard = resource.getrlimit(limits.number_of(_KERNEL[name]))[1]
    return value if hard == resource.RLIM_INFINITY else min(value, hard - (name == "cpu_s"))


def _states(code: Iterable[CodeMount], settings: BubblewrapSettings) -> Iterator[tuple[str, ...]]:
    """Tell inode, size and times of mounted code, file by file; of packages, their folder's, which an install changes.

    ctime cannot be set back. Bytecode is left out: others compile what lies beside it.
    """
    shim, own = Path(inside.__file__), Path(bubblewrap.__file__).parent
    for path in (settings.bwrap, settings.interpreter, *settings.site_packages, shim, *sorted(own.glob("*.py"))):
        yield _state(path)
    for mount in code:
        yield (mount.name, *_state(mount.source))
        for folder, names, files in os.walk(mount.source):
            names[:] = sorted(name for name in names if name != "__pycache__")
            for name in sorted(files):
                yield _state(Path(folder, name))


def _state(path: Path) -> tuple[str, ...]:
    try:
        seen = path.stat()
    except OSError as error:
        return str(path), str(error.errno)
    size = seen.st_size if stat.S_ISREG(seen.st_mode) else 0
    return str(path), f"{seen.st_dev} {seen.st_ino} {seen.st_mode} {size} {seen.st_mtime_ns} {seen.st_ctime_ns}"
