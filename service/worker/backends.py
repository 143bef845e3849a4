"""Cells of two backends for one worker: models are read behind bubblewrap, checks measure in containers.

The ingest cell stays where it is whatever the operator chose: an engine gives every container a process file system,
which that cell must not have (specs: sandbox, section 4). Only containers behind gVisor's sentry are taken: those of
the host's own kernel share its user namespace, so that they cannot show the layers that every cell must.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay import strict_json
from assay.errors import Malformed

from sandbox.cell import KILL_BOUND_S, Cancelled, OnStep, Order, Outcome, Proof, canonical, ignore, never
from sandbox.container import ContainerCell
from sandbox.container.installed import SCHEMA
from sandbox.errors import CellRefused
from sandbox.inputs import Held
from service.worker.record import Installed

if TYPE_CHECKING:
    from sandbox import BubblewrapCell, BubblewrapSettings, CodeMount

LOOK_S = 120
"""Wall time of the cell that looks into the image."""
_MOST = 256 * 1024
_TEXT = 256


class ApartCells:
    """One `Cell`: ingest behind bubblewrap, everything else in containers.

    Args:
        reading: where models are read.
        measuring: where checks measure.
        code: the mounted `sandbox`, whose `container.installed` looks into the image.
    """

    def __init__(self, reading: BubblewrapCell, measuring: ContainerCell, code: CodeMount) -> None:
        self._reading = reading
        self._measuring = measuring
        self._code = code
        self._image: Installed | None = None
        self.both_proofs: tuple[Proof, ...] = ()
        """Of both backends; the seals of each name their own."""

    @property
    def settings(self) -> BubblewrapSettings:
        """Those of the cells that read."""
        return self._reading.settings

    def image(self) -> Installed | None:
        """Return what the image holds, as it was told at the last self-check."""
        return self._image

    def host_now(self) -> str:
        """Return what a proof of the containers holds for: versions of engine and runtime, asked anew."""
        return self._measuring.host_now()

    def prove(self) -> Proof:
        """Prove both backends, and look into the image; the proof of the containers is returned.

        Raises:
            CellRefused: runtime_not_sentry, image_unusable, or a refusal of either backend.
            CellFailed: the machine failed.
        """
        self._check_runtime()
        self._measuring.version()  # what costs nothing is refused first
        reading = self._reading.prove()
        measuring = self._measuring.prove()
        self._image = self._look()
        self.both_proofs = (reading, measuring)
        return measuring

    def run(
        self, order: Order, *, on_step: OnStep = ignore, cancelled: Cancelled = never, held: Held | None = None
    ) -> Outcome:
        """Run one order where its kind belongs; see `sandbox.cell.Cell.run`."""
        if order.kind == "ingest":
            return self._reading.run(order, on_step=on_step, cancelled=cancelled, held=held)
        self._check_runtime()
        return self._measuring.run(order, on_step=on_step, cancelled=cancelled, held=held)

    def sweep(self, cells: Path) -> int:
        """Remove containers of workers that were killed; see `ContainerCell.sweep`."""
        self._check_runtime()
        return self._measuring.sweep(cells)

    def close(self) -> None:
        """Let go of what the cells that read hold."""
        self._reading.close()

    def _check_runtime(self) -> None:
        if not self._measuring.settings.is_sentry:
            raise CellRefused("runtime_not_sentry", self._measuring.settings.runtime)

    def _look(self) -> Installed:
        nonce = secrets.token_hex(32)
        outcome = self._measuring.run(
            Order(
                kind="check",
                module="sandbox.container.installed",
                arguments=(),
                code=(self._code,),
                request=canonical({"nonce": nonce}),
                nonce=nonce,
                limits={"wall_s": LOOK_S},
            )
        )
        try:
            return read_installed(outcome.result or b"", nonce)
        except (Malformed, LookupError, TypeError, ValueError) as error:
            tail = outcome.log_tail.strip().rpartition("\n")[2]
            raise CellRefused("image_unusable", f"{self._measuring.settings.image}: {error}; {tail}"[:300]) from None


def read_installed(data: bytes, nonce: str) -> Installed:
    """Read what an image told of itself.

    Raises:
        Malformed, LookupError, TypeError, ValueError: it is not what was asked for.
    """
    told: Any = strict_json.loads(data, _MOST)
    if (
        type(told) is not dict
        or set(told) != {"schema", "nonce", "python", "packages"}
        or (told["schema"], told["nonce"]) != (SCHEMA, nonce)
    ):
        raise ValueError("it told something else")
    packages = dict(told["packages"]).items()
    texts = [told["python"], *(text for pair in packages for text in pair)]
    if not packages or any(type(one) is not str or not 0 < len(one) <= _TEXT for one in texts):
        raise ValueError("it names no packages, or not by names and versions")
    return Installed(python=told["python"], packages=dict(sorted(packages)))


def kill_bound_of(cell: object) -> float:
    """Return how long a cell may take to die; of one that does not tell, the sandbox's promise."""
    return float(getattr(cell, "kill_bound_s", KILL_BOUND_S))


def image_of(cell: object) -> Callable[[], Installed | None]:
    """Return what asks a cell for its image; cells without one have none."""
    return cell.image if isinstance(cell, ApartCells) else lambda: None
