"""Cells by bubblewrap: unprivileged namespaces, a planned mount table, and a gate that looks before it says go."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox import inside, limits, procfs, statements
from sandbox.bubblewrap import gate, plan, preflight, profile
from sandbox.bubblewrap.settings import BubblewrapSettings
from sandbox.cell import Cancelled, OnStep, Order, Outcome, Proof, Seal, ignore, never
from sandbox.channels import Pipes
from sandbox.errors import CellFailed, CellRefused
from sandbox.inputs import Held, prepared
from sandbox.orders import check_order
from sandbox.supervise import Launcher, Running, outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BubblewrapCell", "BubblewrapSettings"]

GATE_S = 10.0
"""How long arming may take; a torch-sized mount table takes 30 ms."""
_STAGE = Path(__file__).with_name("stage.py")
_SHIM = Path(inside.__file__)


class BubblewrapCell:
    """Runs orders in bubblewrap cells. One object serves many runs, from any thread."""

    def __init__(self, settings: BubblewrapSettings | None = None) -> None:
        self.settings = settings or BubblewrapSettings()
        self._launcher = Launcher()
        self._proof: Proof | None = None

    def prove(self) -> Proof:
        """Attack the wall from inside real cells, with controls outside; see `sandbox.selfcheck`.

        Raises:
            CellRefused: selfcheck_open, selfcheck_void, or a layer that could not be armed.
        """
        from sandbox.selfcheck import prove

        self._proof = None
        self._proof = prove(self)
        return self._proof

    def version(self) -> str:
        """Return bubblewrap's version.

        Raises:
            CellRefused: bwrap_missing, bwrap_setuid, bwrap_option_missing, userns_disabled, host_uid_root.
        """
        if os.geteuid() == 0 and not self.settings.cell_uid:
            raise CellRefused("host_uid_root")
        template = json.loads(profile.document("check"))["arguments"]
        return preflight.check_bwrap(self.settings.bwrap, profile.options_used(template))

    def run(
        self, order: Order, *, on_step: OnStep = ignore, cancelled: Cancelled = never, held: Held | None = None
    ) -> Outcome:
        """Run one order; see `sandbox.cell.Cell.run`."""
        check_order(order)
        caps = limits.resolve(order, self.settings.cpus)
        version = self.version()
        uid = self.settings.cell_uid if os.geteuid() == 0 else None
        with prepared(order, self.settings.work_dir, uid, held) as ready:
            planned = plan.make(order, ready, self.settings, caps, _SHIM)
            with self._started(order, planned, caps, uid, on_step) as run:
                layers = _arm(run, planned, caps)
                why = run.follow(cancelled)
                if why:
                    run.kill()
                run.bury()
                return outcome(run, why, ready, lambda count: self._seal(order, caps, version, layers, count))

    def close(self) -> None:
        """End the launching thread, and with it whatever still runs."""
        self._launcher.close()

    @contextmanager
    def _started(
        self, order: Order, planned: plan.Plan, caps: Mapping[str, int], uid: int | None, on_step: OnStep
    ) -> Iterator[Running]:
        """Start the cell; whatever happens, nothing of it is left afterwards."""
        try:
            pipes = Pipes()
        except OSError as error:
            raise CellFailed("spawn_failed", str(error)) from None
        run: Running | None = None
        try:
            command = self._command(order, planned, caps, pipes, uid)
            pid = self._launcher.spawn(command, pipes, Path("/"), {})
            run = Running.begin(pid, pipes, caps, order.steps, on_step)
            yield run
        finally:
            if run is not None:
                run.close()
            else:
                pipes.close()

    def _command(
        self, order: Order, planned: plan.Plan, caps: Mapping[str, int], pipes: Pipes, uid: int | None
    ) -> list[str]:
        shim_plan = {
            "fds": {role: pipes.child[role] for role in ("result", "progress", "status", "go")},
            "rlimits": limits.rlimits(caps),
            "front": ["/code"],
            "back": list(planned.python_path),
            "module": order.module,
            "arguments": list(order.arguments),
        }
        command = [str(self.settings.interpreter), *profile.PYTHON_FLAGS, plan.SHIM, json.dumps(shim_plan)]
        info = str(pipes.child["info"])
        if uid is None:
            preflight.check_sources(planned)
            made = profile.arguments(planned.mounts, planned.environment, info, command)
            return [str(self.settings.bwrap), *made]
        sources = [one for one in planned.mounts if one.sort in ("ro", "rw") and one.staged]
        place = {one: index for index, one in enumerate(sources)}
        staged = [replace(one, source=f"{{stage}}/{place[one]}") if one in place else one for one in planned.mounts]
        spec = {
            "uid": uid,
            "parent": os.getpid(),
            "sources": [{"path": one.source, "writable": one.sort == "rw"} for one in sources],
            "argv": [str(self.settings.bwrap), *profile.arguments(staged, planned.environment, info, command)],
        }
        return [sys.executable, "-I", "-S", "-B", str(_STAGE), json.dumps(spec)]

    def _seal(self, order: Order, caps: Mapping[str, int], version: str, layers: Mapping[str, Any], count: int) -> Seal:
        return Seal(
            stage=order.kind,
            backend="bubblewrap",
            version=version,
            policy_sha256=profile.digest(order.kind),
            layers=layers,
            limits=limits.sealed(caps),
            statements=statements.BUBBLEWRAP,
            selfcheck_sha256=self._proof.sha256 if self._proof else None,
            network="none",
            output_bytes=count,
            output_cap=caps["result_bytes"] + sum(slot.max_bytes for slot in order.slots),
        )


def _arm(run: Running, planned: plan.Plan, caps: Mapping[str, int]) -> Mapping[str, Any]:
    """Wait for the shim, look at it from outside, and let it go on.

    Raises:
        CellRefused: not_armed, or what bubblewrap's last words mean.
    """
    deadline = time.monotonic() + GATE_S
    while b"\n" not in run.drain.status:
        if run.ended():
            run.bury()
            raise preflight.explain(run.drain.log_tail())
        if time.monotonic() > deadline:
            raise CellRefused("not_armed", "the shim said nothing in time")
        run.drain.pump(0.05)
    init, shim = _shim(run)
    run.root = init
    run.tmpfs = (f"/proc/{shim}/root/scratch", f"/proc/{shim}/root/dev/shm")
    layers = gate.check(gate.Armed(pid=shim, mounts=planned.mounts, limits=caps, inodes=run.pipes.inodes))
    run.look()
    if not run.go():
        raise CellRefused("not_armed", "the shim ended before the start")
    return layers


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
