"""The twin of a cell for tests and development: same pipes, caps and supervision, and no isolation whatever."""

from __future__ import annotations

import json
import os
import platform
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from sandbox import inside, limits, statements
from sandbox.cell import (
    KILL_BOUND_S,
    Cancelled,
    Case,
    OnStep,
    Order,
    Outcome,
    Proof,
    Seal,
    canonical,
    check_kill_bound,
    ignore,
    never,
)
from sandbox.channels import Pipes
from sandbox.errors import CellFailed
from sandbox.inputs import Held, Prepared, prepared
from sandbox.orders import check_order
from sandbox.supervise import Launcher, Running, outcome

TWIN_PROFILE = canonical({"backend": "process", "layers": {}})
_NOT_LIMITED = frozenset({"processes", "scratch_bytes", "shm_bytes"})
_LEFT_TO_HOST = frozenset({"NPROC", "MEMLOCK"})
"""Without a user namespace NPROC would count all of this user's processes, ours included."""


class ProcessCell:
    """Runs an order as an ordinary child process. Its seal says `nothing_isolated`.

    The working directory holds `in/`, `out/` and `scratch/`; a program that shall run here and in a real cell, whose
    working directory is `/`, names them relative to it.
    """

    def __init__(
        self,
        *,
        unsafe: bool = False,
        cpus: int | None = None,
        work_dir: Path | None = None,
        kill_bound_s: float = KILL_BOUND_S,
    ) -> None:
        """Make a twin.

        Args:
            unsafe: must be True; nothing else admits that there is no wall.
            cpus: threads that libraries may use; None means all.
            work_dir: where private folders are made.
            kill_bound_s: how long after a kill the last process may take to go.

        Raises:
            ValueError: `unsafe` is not True, or no such bound can be promised.
        """
        if unsafe is not True:
            raise ValueError("ProcessCell isolates nothing; say unsafe=True, and use it for tests and development only")
        self._cpus = cpus or os.cpu_count() or 1
        self._work_dir = work_dir
        self.kill_bound_s = check_kill_bound(kill_bound_s)
        self._launcher = Launcher()

    def prove(self) -> Proof:
        """Return a proof that claims nothing: there is no wall to attack."""
        return Proof(
            backend="process",
            version=platform.python_version(),
            profile_sha256=_sha256(TWIN_PROFILE),
            kernel=platform.release(),
            probes_sha256=_sha256(b""),
            cases=(Case(id="isolation", word="void", got="nothing_isolated"),),
        )

    def run(
        self, order: Order, *, on_step: OnStep = ignore, cancelled: Cancelled = never, held: Held | None = None
    ) -> Outcome:
        """Run one order; see `sandbox.cell.Cell.run`."""
        check_order(order)
        caps = limits.resolve(order, self._cpus)
        with prepared(order, self._work_dir, None, held) as ready:
            pipes = Pipes()
            run: Running | None = None
            try:
                pid = self._launcher.spawn(
                    _arguments(order, ready, caps, pipes), pipes, ready.root, self._environment(ready)
                )
                run = _OwnGroup.begin(pid, pipes, caps, order.steps, on_step, kill_bound_s=self.kill_bound_s)
                run.go()
                run.slots = ready.opened
                why = run.follow(cancelled)
                if why:
                    run.kill()
                run.bury()
                return outcome(run, why, ready, lambda count: _seal(order, caps, count))
            finally:
                run.close() if run else pipes.close()

    def close(self) -> None:
        """End the launching thread."""
        self._launcher.close()

    def _environment(self, ready: Prepared) -> Mapping[str, str]:
        scratch = str(ready.root / "scratch")
        cpus = str(self._cpus)
        return MappingProxyType(
            {
                "HOME": scratch,
                "TMPDIR": scratch,
                "LANG": "C.UTF-8",
                "PATH": "/nonexistent",
                "PYTHONHASHSEED": "0",
                "HF_HUB_OFFLINE": "1",
                "OMP_NUM_THREADS": cpus,
                "MKL_NUM_THREADS": cpus,
                "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
            }
        )


class _OwnGroup(Running):
    """Without a pid namespace the process group is all there is to kill; who leaves it, escapes."""

    def kill(self) -> None:
        super().kill()
        try:
            os.killpg(self.pid, 9)
        except ProcessLookupError:
            return
        except PermissionError as error:
            raise CellFailed("cell_unkillable", str(error)) from None


def _arguments(order: Order, ready: Prepared, caps: Mapping[str, int], pipes: Pipes) -> list[str]:
    code = ready.root / "code"
    code.mkdir(mode=0o700)
    for one in order.code:
        (code / one.name).symlink_to(one.source.resolve())
    rlimits = {name: pair for name, pair in limits.rlimits(caps).items() if name not in _LEFT_TO_HOST}
    plan = {
        "fds": {role: pipes.child[role] for role in ("result", "progress", "status", "go")},
        "rlimits": rlimits,
        "front": [str(code)],
        "back": [sysconfig.get_paths()["purelib"]],
        "module": order.module,
        "arguments": list(order.arguments),
    }
    return [sys.executable, "-P", "-s", "-S", "-B", str(Path(inside.__file__)), json.dumps(plan)]


def _seal(order: Order, caps: Mapping[str, int], count: int) -> Seal:
    return Seal(
        stage=order.kind,
        backend="process",
        version=platform.python_version(),
        policy_sha256=_sha256(TWIN_PROFILE),
        layers=MappingProxyType({}),
        limits=limits.sealed(caps, unenforced=_NOT_LIMITED),
        statements=statements.PROCESS,
        selfcheck_sha256=None,
        network="host",
        output_bytes=count,
        output_cap=caps["result_bytes"] + sum(slot.max_bytes for slot in order.slots),
    )


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()
