"""Cells in containers of an operator's engine: the same order, outcome and suite as by bubblewrap.

The image is the operator's, by digest, and is never the auditor's. Nothing of the host is mounted but inputs, slots,
and the code that the order names, which the host has measured. What differs from a bubblewrap cell is stated: the
result comes back in a file that the host made, because an engine passes no descriptor; progress has no channel; and
behind a sentry (`runsc`) the layers are listed as the sentry's, because the host cannot see them.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sandbox import filters, inside, landlock, limits, statements
from sandbox.bubblewrap import plan as planning
from sandbox.bubblewrap.profile import CANARY, PYTHON_FLAGS, SHIM
from sandbox.cell import Cancelled, Kind, OnStep, Order, Outcome, Proof, Seal, Slot, ignore, never
from sandbox.container import engine, gate, prelude, profile
from sandbox.container.contained import Contained, begin
from sandbox.container.ending import check_over, fetch, settle
from sandbox.container.profile import Created
from sandbox.container.settings import CELL_ID, ContainerSettings, check_settings
from sandbox.errors import CellFailed, CellRefused, SandboxError
from sandbox.filters import oci
from sandbox.inputs import Held, Prepared, prepared
from sandbox.orders import check_order
from sandbox.slots import Opened
from sandbox.supervise import outcome

__all__ = ["ContainerCell", "ContainerSettings"]

_CANARY = Path(inside.__file__).with_name("canary.py")


class ContainerCell:
    """Runs orders in containers. One object serves many runs, from any thread."""

    def __init__(self, settings: ContainerSettings) -> None:
        self.settings = settings
        self._host: tuple[str, bool] | None = None
        self._proof: Proof | None = None

    def prove(self) -> Proof:
        """Attack the wall from inside real containers, with controls outside; see `sandbox.selfcheck`.

        Raises:
            CellRefused: selfcheck_open, selfcheck_void, or a layer that could not be armed.
        """
        from sandbox.container.proving import prove

        self._host = None
        try:
            # Until it is done the last proof stands: a cell that ends meanwhile has one in its seal.
            self._proof = prove(self)
        except SandboxError:
            self._proof = None
            raise
        return self._proof

    def version(self) -> str:
        """Return the versions of engine and runtime, once it is known that they can do what a cell needs.

        Raises:
            CellRefused: engine_missing, engine_below_minimum, image_not_by_digest, cgroup_unusable,
                seccomp_unsupported, arch_unsupported.
        """
        return self._checked()[0]

    def host_now(self) -> str:
        """Return the same, asked anew: what a proof holds for."""
        self._host = None
        return self.version()

    def sweep(self, cells: Path) -> int:
        """Remove containers of workers that were killed; return how many there were. Call it at a worker's start.

        Args:
            cells: where workers keep the files of their cells; what nobody holds has been swept from it by now.

        Raises:
            CellRefused: as `version`.
            CellFailed: cell_unkillable, spawn_failed.
        """
        self.host_now()
        return engine.sweep_orphans(self.settings, profile.LABEL, profile.RESULT, cells)

    def run(
        self, order: Order, *, on_step: OnStep = ignore, cancelled: Cancelled = never, held: Held | None = None
    ) -> Outcome:
        """Run one order; see `sandbox.cell.Cell.run`. Progress is not told."""
        check_order(order)
        if order.kind not in profile.KINDS:
            raise CellRefused("profile_invalid", f"kind {order.kind} has no container profile")
        caps = limits.resolve(_with_result(order), self.settings.cpus)
        version, rootless = self._checked()
        owner = CELL_ID if os.geteuid() == 0 else None
        with prepared(order, self.settings.work_dir, owner, held) as ready, _result(ready, caps, owner) as result:
            made = self._created(order, ready, caps, rootless)
            with self._container(made) as container:
                run = begin(self.settings, container, caps, order.steps, on_step)
                try:
                    layers = self._arm(run, made)
                    run.slots = ready.opened
                    why = run.follow(cancelled)
                    if why:
                        run.kill()
                    else:
                        check_over(run)
                    run.bury()
                    settle(run)
                    fetch(run, result)
                    return outcome(run, why, ready, lambda count: self._seal(order, version, caps, layers, count))
                finally:
                    run.close()

    def _checked(self) -> tuple[str, bool]:
        check_settings(self.settings)
        filters.outer("check")
        if self._host is None:
            self._host = engine.check_host(self.settings)
        return self._host

    @property
    def abi(self) -> int:
        """The version of Landlock that a cell puts on; a sentry has none."""
        return 0 if self.settings.is_sentry else landlock.abi()

    @contextmanager
    def _container(self, made: Created) -> Iterator[str]:
        """Create a container that is what was asked for; nothing of it is left afterwards."""
        container = engine.create(self.settings, profile.arguments(self.settings, made))
        try:
            try:
                gate.check_created(self.settings, made, engine.inspect(self.settings, container))
            except (LookupError, TypeError) as error:
                raise CellRefused("not_armed", f"the engine's words are not understood: {error!r}"[:300]) from None
            yield container
        finally:
            engine.remove(self.settings, container)

    def _arm(self, run: Contained, made: Created) -> Mapping[str, Any]:
        """Wait for the shim, look at it from outside as far as there is something to see, and let it go on."""
        line = run.said(self.settings.start_s)
        gate.check_shim(line, self.abi)
        layers = gate.sentry_layers()
        if not self.settings.is_sentry:
            pid = engine.inspect(self.settings, run.container)["State"]["Pid"]
            layers = gate.check_kernel(run.container, int(pid), made)
            run.watch(int(pid))
        if not run.go():
            raise CellRefused("not_armed", "the shim ended before the start")
        loaded = (filters.digest(oci.document("check")), filters.digest(profile.stacked(made.kind)))
        image = self.settings.image.rpartition(":")[2]
        return MappingProxyType({**layers, "seccomp_sha256": loaded, "landlock_abi": self.abi, "image_sha256": image})

    def _created(self, order: Order, ready: Prepared, caps: Mapping[str, int], rootless: bool) -> Created:
        mounts = [
            (str(Path(inside.__file__)), SHIM, False),
            (str(Path(prelude.__file__)), profile.PRELUDE, False),
            (str(_CANARY), CANARY, False),
            *((planning.check_source(one.source), f"/code/{one.name}", False) for one in order.code),
            *((str(ready.root / "in" / name), f"/in/{name}", False) for name in ready.inputs),
            *((str(ready.root / "out" / slot.name), f"/out/{slot.name}", True) for slot, _ in ready.slots),
            (str(ready.root / "out" / Path(profile.RESULT).name), profile.RESULT, True),
        ]
        rules_file = ready.root / "filter.json"
        rules_file.write_bytes(oci.document("check"))
        rules_file.chmod(0o444)
        user, userns = self._user(rootless)
        return Created(
            name=f"assay-cell-{secrets.token_hex(16)}",
            kind=order.kind,
            mounts=tuple(mounts),
            user=user,
            userns=userns,
            filter_file=str(rules_file),
            limits=caps,
            environment=profile.environment(order.kind, self.settings.cpus),
            command=(*PYTHON_FLAGS, profile.PRELUDE, self._plan(order, caps)),
        )

    def _user(self, rootless: bool) -> tuple[str, str]:
        """Return `--user` and `--userns`: never root, and the owner of the slots' files."""
        if os.geteuid() == 0 or self.settings.engine == "podman":
            mapped = f"keep-id:uid={CELL_ID},gid={CELL_ID}" if rootless else ""
            return f"{CELL_ID}:{CELL_ID}", mapped
        return f"{os.getuid()}:{os.getgid()}", ""

    def _plan(self, order: Order, caps: Mapping[str, int]) -> str:
        slots = [*(slot.name for slot in order.slots), Path(profile.RESULT).name]
        made = profile.rules(order.kind, self.settings.executable, slots)
        # The engine's limit of processes holds; this one would be shared by all cells of one uid.
        rlimits = {name: pair for name, pair in limits.rlimits(caps).items() if name != "NPROC"}
        return json.dumps(
            {
                "result": profile.RESULT,
                "environment": profile.environment(order.kind, self.settings.cpus),
                "folder": "/",
                "shim": SHIM,
                "rlimits": rlimits,
                "landlock": landlock.planned(self.abi, made),
                "filter": profile.stacked(order.kind).hex(),
                "canary": CANARY,
                "front": ["/code"],
                "back": list(self.settings.python_path),
                "preload": None,
                "module": order.module,
                "arguments": list(order.arguments),
            }
        )

    def _seal(self, order: Order, version: str, caps: Mapping[str, int], layers: Mapping[str, Any], count: int) -> Seal:
        by_engine = ("memory_bytes", "processes")
        # The group of a container that the host's kernel runs is read back; of a sentry's the engine's word is taken.
        by = "engine" if self.settings.is_sentry else "cgroup"
        held = [replace(one, by=by, aggregate=True) if one.name in by_engine else one for one in limits.sealed(caps)]
        return Seal(
            stage=order.kind,
            backend="container",
            version=version,
            policy_sha256=profile.digest(self.settings.engine, self.settings.runtime, order.kind),
            layers=layers,
            limits=tuple(held),
            statements=self._statements(),
            selfcheck_sha256=self._proof.sha256 if self._proof else None,
            network="none",
            output_bytes=count,
            output_cap=caps["result_bytes"] + sum(slot.max_bytes for slot in order.slots),
        )

    def _statements(self) -> tuple[str, ...]:
        made = statements.of_bubblewrap(self.abi, grouped=True, swap_limited=True)
        return tuple(sorted((*made, *(statements.SENTRY if self.settings.is_sentry else ()))))


def _with_result(order: Order) -> Order:
    """The order whose largest slot is at least the result: what a program may write to one file follows from it."""
    most = order.limits.get("result_bytes", limits.DEFAULTS[order.kind]["result_bytes"])
    if type(most) is not int:
        return order  # refused by whoever looks at the limits
    return replace(order, slots=(*order.slots, Slot(name=".result", max_bytes=most + 1, released=False)))


@contextmanager
def _result(ready: Prepared, caps: Mapping[str, int], owner: int | None) -> Iterator[Opened]:
    """Make the file that the result comes back in, as a slot is made."""
    name = Path(profile.RESULT).name
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(ready.root / "out" / name, flags, 0o600)
    except OSError as error:
        raise CellFailed("host_lost", str(error)) from None
    try:
        if owner is not None:
            os.fchown(descriptor, owner, owner)
        status = os.fstat(descriptor)
        slot = Slot(name=name, max_bytes=caps["result_bytes"], released=False)
        yield slot, descriptor, (status.st_dev, status.st_ino)
    finally:
        os.close(descriptor)


def kinds() -> tuple[Kind, ...]:
    """Return the kinds of cells that have a container profile."""
    return profile.KINDS
