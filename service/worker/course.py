"""What is known of an attempt so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sandbox.cell import Outcome
from service.rules.logs import escaped
from service.rules.states import ExitClass
from service.store.budget import CAPS, Caps
from service.store.jobs import Ending, Lease
from service.worker.cells import Cells
from service.worker.classes import note_of
from service.worker.hostile import CellResult
from service.worker.record import Provenance
from service.worker.request import Request
from service.worker.shards import Staged


@dataclass(kw_only=True)
class Run:
    """An attempt; filled as it goes on."""

    held: Lease
    request: Request | None = None
    weights_sha256: str = ""
    base_weights_sha256: str = ""
    caps: Caps = CAPS
    """Most bytes that may leave about the model over its lifetime, an owner's consent considered."""
    provenance: Mapping[str, Provenance] = field(default_factory=dict)
    cells: Cells | None = None
    sharded: int | None = None
    """Position of the check whose data is read in shards; None where the request has none, or none of its data."""

    @property
    def outcomes(self) -> Sequence[Outcome]:
        """Of each cell that ran, in their order."""
        return self.cells.outcomes if self.cells else ()

    @property
    def result(self) -> CellResult | None:
        """An answer to every check, once there is one."""
        return self.cells.result if self.cells else None

    @property
    def staged(self) -> Staged | None:
        """A plan of more than one shard, or the part of one: then nothing is answered."""
        return self.cells.staged if self.cells else None

    @property
    def labels(self) -> dict[str, Any]:
        """Fields of this attempt's log lines."""
        held = self.held
        return {"audit": held.audit, "job": held.job, "attempt": held.number, "token": held.token}

    def ending(self, exit_class: ExitClass, note: str = "") -> Ending:
        """Return the end of the attempt, with the seal and usage of each cell that ran."""
        cells = tuple({**one.seal.to_json(), "usage": one.usage.to_json()} for one in self.outcomes)
        notes = [*(note_of(one) for one in self.outcomes), note]
        return Ending(
            exit_class=exit_class,
            cells=cells,
            note=escaped("\n".join(notes).strip()),
            output_bytes=self.charge,
            weights_sha256=self.weights_sha256,
            base_weights_sha256=self.base_weights_sha256,
        )

    @property
    def charge(self) -> int:
        """What may have left, in bytes: an accepted result, else no more than the progress that was shown."""
        if self.result:
            return self.result.output_bytes
        return self.cells.shown_bytes if self.cells else 0
