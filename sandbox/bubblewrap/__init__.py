"""Cells by bubblewrap: unprivileged namespaces, a planned mount table, and a gate that looks before it says go."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox import filters, inside, landlock, limits, procfs, statements
from sandbox.bubblewrap import command, gate, plan, preflight, profile
from sandbox.bubblewrap.grouping import grouped
from sandbox.bubblewrap.settings import BubblewrapSettings
from sandbox.cell import Cancelled, Kind, OnStep, Order, Outcome, Proof, Seal, ignore, never
from sandbox.cgroups import Group
from sandbox.channels import Pipes
from sandbox.errors import CellFailed, CellRefused, SandboxError
from sandbox.inputs import Held, Prepared, prepared
from sandbox.orders import check_order
from sandbox.supervise import Launcher, Running, outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BubblewrapCell", "BubblewrapSettings"]

GATE_S = 10.0
"""How long arming may take; a torch-sized mount table takes 30 ms."""
_SHIM = Path(inside.__file__)
_SHIM_CODES = ("landlock_partial", "seccomp_unsupported")
"""Refusals that only the shim can notice."""


class BubblewrapCell:
    """Runs orders in bubblewrap cells. One object serves many runs, from any thread."""

    def __init__(self, settings: BubblewrapSettings | None = None) -> None:
        self.settings = settings or BubblewrapSettings()
        self._launcher = Launcher()
        self._proof: Proof | None = None

    @property
    def kill_bound_s(self) -> float:
        """How long after a kill the last process may take to go."""
        return self.settings.kill_bound_s

    def prove(self) -> Proof:
        """Attack the wall from inside real cells, with controls outside; see `sandbox.selfcheck`.

        Raises:
            CellRefused: selfcheck_open, selfcheck_void, or a layer that could not be armed.
        """
        from sandbox.selfcheck import prove

        try:
            # Until it is done the last proof stands: a cell that ends meanwhile has one in its seal.
            self._proof = prove(self)
        except SandboxError:
            self._proof = None
            raise
        return self._proof

    def version(self, kind: Kind = "check") -> str:
        """Return bubblewrap's version, once it is known that it can do what a cell of this kind needs.

        Raises:
            CellRefused: bwrap_missing, bwrap_setuid, bwrap_option_missing, userns_disabled, host_uid_root,
                arch_unsupported.
        """
        if os.geteuid() == 0 and not self.settings.cell_uid:
            raise CellRefused("host_uid_root")
        filters.outer(kind)
        return preflight.check_bwrap(self.settings.bwrap, profile.options_used(profile.template(kind)[0]))

    def run(
        self, order: Order, *, on_step: OnStep = ignore, cancelled: Cancelled = never, held: Held | None = None
    ) -> Outcome:
        """Run one order; see `sandbox.cell.Cell.run`."""
        check_order(order)
        caps = limits.resolve(order, self.settings.cpus)
        version = self.version(order.kind)
        uid = self.settings.cell_uid if os.geteuid() == 0 else None
        with (
            grouped(self.settings.cgroup_parent, order, caps) as group,
            prepared(order, self.settings.work_dir, uid, held) as ready,
        ):
            launch = Launch(order, plan.make(order, ready, self.settings, caps, _SHIM), caps, uid, group, version)
            with self._started(launch, on_step) as run:
                layers = arm(run, launch, said(run))
                return self.follow(run, launch, ready, layers, cancelled)

    def follow(
        self, run: Running, launch: Launch, ready: Prepared, layers: Mapping[str, Any], cancelled: Cancelled
    ) -> Outcome:
        """Follow a cell that was let go until nothing of it is left."""
        run.slots = ready.opened
        why = run.follow(cancelled)
        if why:
            run.kill()
        run.bury()
        return outcome(run, why, ready, lambda count: self._seal(launch, layers, count))

    def close(self) -> None:
        """End the launching thread, and with it whatever still runs."""
        self._launcher.close()

    @contextmanager
    def _started(self, launch: Launch, on_step: OnStep) -> Iterator[Running]:
        """Start the cell; whatever happens, nothing of it is left afterwards."""
        run: Running | None = None
        pid, pipes = self.spawn(launch)
        try:
            given = (pid, pipes, launch.caps, launch.order.steps, on_step, launch.group)
            run = Running.begin(*given, kill_bound_s=self.kill_bound_s)
            yield run
        finally:
            if run is not None:
                run.close()
            else:
                pipes.close()

    def spawn(self, launch: Launch) -> tuple[int, Pipes]:
        """Start a cell, whose shim arms itself and waits; the caller must reap the pid and close the pipes.

        Raises:
            CellRefused: prefix_unreadable.
            CellFailed: spawn_failed.
        """
        try:
            pipes = Pipes()
        except OSError as error:
            raise CellFailed("spawn_failed", str(error)) from None
        try:
            command.add_filter(pipes, filters.outer(launch.order.kind))
            given = (launch.order, launch.planned, launch.caps, pipes, launch.abi, launch.preload)
            shim = command.shim_plan(*given)
            made = command.command(self.settings, launch.planned, pipes, shim, launch.uid, launch.group)
            return self._launcher.spawn(made, pipes, Path("/"), {}), pipes
        except BaseException:  # an interrupt too: nobody else would close them
            pipes.close()
            raise

    def _seal(self, launch: Launch, layers: Mapping[str, Any], count: int) -> Seal:
        order, caps, group = launch.order, launch.caps, launch.group
        made = statements.of_bubblewrap(
            launch.abi,
            grouped=group is not None,
            swap_limited=group is not None and group.swap_limited,
            warm=launch.preload is not None,
            more_groups=not {*launch.groups} <= {os.getegid()},
        )
        return Seal(
            stage=order.kind,
            backend="bubblewrap",
            version=launch.version,
            policy_sha256=profile.digest(order.kind, warm=launch.preload is not None),
            layers=layers,
            limits=limits.sealed(caps, grouped=group is not None),
            statements=made,
            selfcheck_sha256=self._proof.sha256 if self._proof else None,
            network="none",
            output_bytes=count,
            output_cap=caps["result_bytes"] + sum(slot.max_bytes for slot in order.slots),
        )


@dataclass(frozen=True)
class Launch:
    """One run as it was decided, before anything of it exists."""

    order: Order
    planned: plan.Plan
    caps: Mapping[str, int]
    uid: int | None
    """Who the cell is on the host when the worker is root."""
    group: Group | None
    version: str
    """bubblewrap's."""
    preload: tuple[str, ...] | None = None
    """What a cell imports that is started before its order is known; None for any other."""
    abi: int = field(default_factory=lambda: landlock.abi())

    @property
    def groups(self) -> tuple[int, ...]:
        """Supplementary groups of the cell on the host: a worker that is not root can only hand on its own."""
        return () if self.uid is not None else tuple(sorted(os.getgroups()))


def arm(run: Running, launch: Launch, status: bytes) -> Mapping[str, Any]:
    """Look at a waiting cell from outside and let it go on; return the layers for the seal.

    Args:
        run: the cell.
        launch: what it was planned to be.
        status: the shim's own line on how it is armed.

    Raises:
        CellRefused: not_armed.
    """
    init, shim = _shim(run)
    run.root = init
    targets = {one.target for one in launch.planned.mounts if one.sort == "tmpfs"}
    # By pid 1, which lives as long as the cell: of a program whose main thread has ended, the root is not told.
    run.tmpfs = tuple(f"/proc/{init}/root{target}" for target in sorted(targets))
    kind = launch.order.kind
    layers = gate.check(
        gate.Armed(
            pid=shim,
            init=init,
            kind=kind,
            mounts=launch.planned.mounts,
            limits=launch.caps,
            inodes=run.pipes.inodes,
            uid=os.geteuid() if launch.uid is None else launch.uid,
            gid=os.getegid() if launch.uid is None else launch.uid,
            groups=launch.groups,
            filters=(filters.digest(filters.outer(kind)), filters.digest(filters.inner(kind))),
            landlock_abi=launch.abi,
            status=status,
            group=launch.group,
        )
    )
    run.look()
    if not run.go():
        raise CellRefused("not_armed", "the shim ended before the start")
    return layers


def said(run: Running, number: int = 0, patience_s: float = GATE_S) -> bytes:
    """Return a line of the shim once it says that it is armed.

    Args:
        run: the cell.
        number: of the line; a spare has more than the first.
        patience_s: how long to wait.

    Raises:
        CellRefused: not_armed, what the shim could not put on, or what bubblewrap's last words mean.
    """
    deadline = time.monotonic() + patience_s
    while run.drain.status.count(b"\n") <= number:
        if run.ended():
            run.bury()
            raise preflight.explain(run.drain.log_tail())
        if time.monotonic() > deadline:
            raise CellRefused("not_armed", "the shim said nothing in time")
        run.drain.pump(0.05)
    line = bytes(run.drain.status).splitlines(keepends=True)[number]
    try:
        said = json.loads(line)
        if said["armed"] is True:
            return line
        code, item = said["code"], str(said["item"])
    except (ValueError, LookupError, TypeError):
        raise CellRefused("not_armed", "the shim's line is malformed") from None
    raise CellRefused(code, item) if code in _SHIM_CODES else CellRefused("not_armed", item)


def _shim(run: Running) -> tuple[int, int]:
    """Return the host pids of the cell's pid 1 and of the shim, its only child."""
    try:
        init = int(json.loads(run.drain.info.split(b"}")[0] + b"}")["child-pid"])
    except (ValueError, KeyError):
        raise CellRefused("not_armed", "bubblewrap did not name its child") from None
    try:
        run.root_fd = os.pidfd_open(init)
    except OSError:
        raise CellRefused("not_armed", "bubblewrap's child ended") from None
    if procfs.fields(init).get("PPid") != str(run.pid):
        raise CellRefused("not_armed", "the named child is not bubblewrap's")
    found = procfs.children(init)
    if len(found) != 1:
        raise CellRefused("not_armed", f"{len(found)} processes before the start")
    return init, found[0]
