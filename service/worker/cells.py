"""The cells of an attempt: one for each model alone parses its files, the last measures what those accepted.

Where data is read in shards, a cell between them makes the plan; the attempt at one shard has a single cell, which sees
no model. Each is gone, with every process of it, before the next is planned. The inputs are verified once for all.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sandbox.budget import progress_bits
from sandbox.cell import Input, Order, Outcome, Slot
from sandbox.errors import CellRefused, SandboxError
from sandbox.inputs import Held
from sandbox.inputs import held as hold
from service.rules.states import ExitClass
from service.worker.artefacts import promised_by, within
from service.worker.bench import Bench
from service.worker.classes import class_of_outcome
from service.worker.errors import HostFault, Reason, Stopped
from service.worker.hostile import CellResult, parse_result
from service.worker.ingest import Ingested, PassedOn, parse_ingest, pass_on
from service.worker.materialise import Inputs
from service.worker.order import Shards, architectures_of, make_ingest_order, make_order, make_stage_order
from service.worker.promises import Promise
from service.worker.pulse import Pulse
from service.worker.record import model_read, model_refused
from service.worker.request import Request
from service.worker.shards import PLAN_SLOTS, SCAN_SLOTS, Staged, parse_staged, sharded_at


@dataclass(kw_only=True)
class Cells:
    """Runs an attempt's cells; knows afterwards how far it came, whatever was raised."""

    bench: Bench
    request: Request
    pulse: Pulse
    seed: int
    stage: str = ""
    """Which cell was started last."""
    shown_bytes: int = 0
    """What progress is charged: the auditor watches it while a cell runs, whatever becomes of the cell."""
    outcomes: list[Outcome] = field(default_factory=list)
    """Of each cell that ran, in their order."""
    result: CellResult | None = None
    """Set once the attempt has an answer to every check."""
    staged: Staged | None = None
    """Set once the attempt has a plan of more than one shard, or the part of one; then nothing is answered."""

    def run(
        self, inputs: Inputs, promises: Mapping[str, Promise], aside: Path, shards: Shards | None = None
    ) -> ExitClass | None:
        """Run all of them; None if `result` or `staged` is set, else the class of the end of the cell that died.

        Args:
            inputs: the materialised files.
            promises: what the catalogue says of each check, by name.
            aside: a private folder for what is passed on.
            shards: what other cells made of the shards, where the data was read so.

        Raises:
            Stopped: no result is wanted any more.
            ResultRejected: what a cell left is not acceptable.
            CellRefused, CellFailed, HostFault: the host could not do its part.
        """
        table = architectures_of(self.bench.guest)
        read: list[Ingested] = []
        passed_on: list[PassedOn] = []
        with hold((*inputs.files, *inputs.more, table), self.bench.work_dir, None) as kept:
            self.pulse.phase("ingesting", 0, len(inputs.models))
            for model in inputs.models:
                nonce, paths = secrets.token_hex(32), {file.path for file in model.manifest.files}
                ran = self._run(make_ingest_order(self.bench, self.request, model, table, nonce=nonce), kept)
                died = class_of_outcome(ran)
                if died is not None:
                    return died
                read.append(parse_ingest(ran.result or b"", nonce=nonce, paths=paths))
                if read[-1].refused:
                    self.result = model_refused(read, self.request.checks)
                    return None
                passed_on.append(pass_on(ran.slots, paths, aside, model.name))
                self.pulse.phase("ingesting", len(read), len(inputs.models))
            if shards is None and sharded_at(self.request, promises) is not None:
                died = self._stage(kept, inputs.data, PLAN_SLOTS, None)
                if died is not None or self.staged is not None:
                    return died
            nonce = secrets.token_hex(32)
            slots = [one.slot for one in promised_by(self.request.checks, promises)]
            order = make_order(
                self.bench, self.request, inputs, passed_on, nonce=nonce, seed=self.seed, slots=slots, shards=shards
            )
            paths = {file.path for file in inputs.manifest.files}
            return self._measure(order, kept, read, promises, paths)

    def scan(self, data: Sequence[Input], shards: Shards) -> ExitClass | None:
        """Run the one cell of a shard; None if `staged` is set, else the class of its end.

        Args:
            data: the data, in the request's order.
            shards: which shard of which plan.

        Raises:
            Stopped, ResultRejected, CellRefused, CellFailed, HostFault: as `run`.
        """
        with hold((*data, *shards.inputs), self.bench.work_dir, None) as kept:
            return self._stage(kept, data, SCAN_SLOTS, shards)

    def _stage(
        self, kept: Held, data: Sequence[Input], slots: Sequence[Slot], shards: Shards | None
    ) -> ExitClass | None:
        nonce = secrets.token_hex(32)
        order = make_stage_order(
            self.bench, self.request, data, nonce=nonce, seed=self.seed, slots=slots, shards=shards
        )
        ran = self._run(order, kept)
        died = class_of_outcome(ran)
        if died is None:
            self.staged = parse_staged(ran.result or b"", nonce=nonce, slots=slots, filled=ran.slots)
        return died

    def _measure(
        self, order: Order, kept: Held, read: Sequence[Ingested], promises: Mapping[str, Promise], paths: set[str]
    ) -> ExitClass | None:
        ran = self._run(order, kept)
        died = class_of_outcome(ran)
        if died is not None:
            return died
        result = parse_result(
            ran.result or b"",
            nonce=order.nonce,
            asked=self.request.checks,
            promises=promises,
            paths=paths,
            slots=ran.slots,
        )
        whole = model_read(read, replace(result, output_bytes=result.output_bytes + self.shown_bytes))
        self.result = within(whole, self.request.output_bytes)
        return None

    def _run(self, order: Order, kept: Held) -> Outcome:
        self.pulse.go_on()
        self.stage = order.kind
        self.shown_bytes += -(-progress_bits(len(order.steps)) // 8)
        try:
            outcome = self.bench.cell.run(order, on_step=self.pulse.phase, cancelled=self.pulse.must_stop, held=kept)
        except CellRefused as error:
            if self._order_alone(error):
                raise HostFault(f"the {order.kind} cell of this order alone: {error}; others are armed here") from error
            raise
        self.outcomes.append(outcome)
        if outcome.why == "cancelled":
            raise Stopped(self.pulse.reason() or Reason.STALE)
        return outcome

    def _order_alone(self, error: CellRefused) -> bool:
        """Say whether other cells are armed here, so that this one's order is to blame and not the host.

        A tenant may send what takes too long to start. That must cost the job a strike; were it read as lost isolation,
        the job would go on to close one worker after the other.
        """
        if error.code != "not_armed":
            return False
        try:
            self.bench.cell.prove()
        except SandboxError:
            return False
        return True
