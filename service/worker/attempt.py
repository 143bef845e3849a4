"""One attempt at one job: lease, materialise, run, parse, overwrite what the host measured, finalise.

Every write carries the lease's fencing token. Whatever happens, the attempt ends in exactly one of three ways: a
result is stored, the job's end is written, or nothing is written because the lease is over.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sandbox.cell import Outcome
from sandbox.errors import CellFailed, ResultRejected
from service.blobs import BlobError
from service.rules.logs import escaped
from service.rules.manifest import weights_sha256
from service.rules.states import CancelConfirmation, ExitClass, Then, next_step
from service.store import endings, jobs
from service.store.budget import Withheld
from service.store.engine import StoreBusy, StoreError, StoreFenced, StoreUnavailable
from service.store.jobs import Beat, Ending, Lease
from service.worker.bench import Bench
from service.worker.cells import Cells
from service.worker.classes import class_of_error, lost_isolation, note_of
from service.worker.code import measure_code
from service.worker.errors import HostFault, Reason, Stopped, WorkerClosed
from service.worker.hostile import CellResult
from service.worker.materialise import materialise, private_folder
from service.worker.promises import Promise
from service.worker.pulse import Pulse
from service.worker.record import Provenance, Told, answered, budget_spent, host_record, unanswered
from service.worker.request import Request, read_manifest, read_request

log = logging.getLogger("assay.worker")

RETRY_S = 0.2
"""Pause before a write that a busy database refused is tried again; the self-fence bounds how often."""

Done = TypeVar("Done")


@dataclass(kw_only=True)
class _Run:
    """What is known of an attempt so far; filled as it goes on."""

    held: Lease
    request: Request | None = None
    weights_sha256: str = ""
    base_weights_sha256: str = ""
    provenance: Mapping[str, Provenance] = field(default_factory=dict)
    cells: Cells | None = None

    @property
    def outcomes(self) -> Sequence[Outcome]:
        """Of each cell that ran, in their order."""
        return self.cells.outcomes if self.cells else ()

    @property
    def result(self) -> CellResult | None:
        """An answer to every check, once there is one."""
        return self.cells.result if self.cells else None

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


class Attempts:
    """Handles knocks: `attempt` is the queue's handler.

    Args:
        bench: what to work with.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def attempt(self, job_id: str) -> None:
        """Try a job once, if it can be leased.

        Raises:
            WorkerClosed: this process must not lease again.
            Exception: a bug; the attempt has ended as HOST_FAULT if that could still be written.
        """
        bench = self._bench
        if bench.draining():
            return
        leased_at = time.monotonic()
        try:
            with bench.store.begin() as connection:
                held = jobs.lease(connection, job_id, bench.worker)
        except (StoreBusy, StoreUnavailable) as error:
            log.warning("a knock was dropped, the reconciler knocks again: %s", error, extra={"job": escaped(job_id)})
            return
        if held is None:
            log.info("nothing to lease for a knock", extra={"job": escaped(job_id)})
            return
        run = _Run(held=held)
        log.info("attempt started", extra=run.labels)
        pulse = Pulse(bench.store, held, lease_s=bench.lease_s, leased_at=leased_at, draining=bench.draining)
        with pulse:
            self._supervise(run, pulse)

    def _supervise(self, run: _Run, pulse: Pulse) -> None:
        try:
            exit_class, note = self._measure(run, pulse)
        except Stopped as stopped:
            self._stop(run, pulse, stopped.reason)
        except ResultRejected as error:
            self._settle(
                run, pulse, ExitClass.RESULT_REJECTED, f"{run.cells.stage if run.cells else 'no'} cell: {error}"
            )
        except BaseException as error:
            self._fail(run, pulse, error)
        else:
            self._settle(run, pulse, exit_class, note)

    def _measure(self, run: _Run, pulse: Pulse) -> tuple[ExitClass, str]:
        """Run the cells; return the class of their end, with `run.result` set if a document was accepted."""
        bench, held = self._bench, run.held
        request = read_request(bench.blobs, held.request_sha256, held.audit)
        promises = {one.name: self._promise(one.name, one.version) for one in request.checks}
        run.provenance = {
            name: Provenance(code_sha256=measure_code(bench.guest, name, one), catalogue_sha256=one.sha256)
            for name, one in promises.items()
        }
        run.request = request
        manifest = read_manifest(bench.blobs, request.model_sha256)
        run.weights_sha256 = weights_sha256(manifest)
        base = read_manifest(bench.blobs, request.base_sha256) if request.base_sha256 else None
        run.base_weights_sha256 = weights_sha256(base) if base else ""

        def on_file(done: int, owed: int) -> None:
            pulse.phase("materialising", done, owed)
            pulse.go_on()

        run.cells = cells = Cells(bench=bench, request=request, pulse=pulse, seed=held.seed)
        name = f"{held.job}-{held.token}"
        with private_folder(bench.work_dir, name) as folder, private_folder(bench.work_dir, f"{name}-read") as aside:
            given = materialise(bench.blobs, manifest, request, folder, on_file=on_file, base=base)
            died = cells.run(given, promises, aside)
        if died is not None:
            return died, ""
        return (ExitClass.REFUSED if run.result and run.result.model_refused else ExitClass.OK), ""

    def _promise(self, name: str, version: str) -> Promise:
        entry = self._bench.catalogue.entry(name)
        if entry is None or entry.version != version:
            have = "no such check" if entry is None else f"version {entry.version}"
            raise HostFault(f"the request asks for {name} {version}, this worker's catalogue has {have}: upgrade it")
        return entry

    def _settle(self, run: _Run, pulse: Pulse, exit_class: ExitClass, note: str) -> None:
        """End an attempt whose cell is dead: store a result if its class leads to one, else write the end."""
        held = run.held
        then = next_step(
            exit_class,
            strikes=held.strikes,
            attempt=held.tries,
            attempts_max=held.attempts_max,
            repeated=held.crashes if exit_class is ExitClass.CELL_CRASHED else 0,
        )
        if then is not Then.FINALISE:
            self._end(run, pulse, run.ending(exit_class, note))
            return
        assert run.request is not None  # only a cell's end leads to a result
        told = (
            unanswered(run.request.checks, exit_class)
            if run.result is None
            else answered(run.result, run.request.checks, run.request.output_bytes)
        )
        try:
            self._finalise(run, pulse, told, run.ending(exit_class, note))
        except BlobError as error:
            self._end(run, pulse, run.ending(ExitClass.HOST_FAULT, str(error)))

    def _finalise(self, run: _Run, pulse: Pulse, told: Told, ending: Ending) -> None:
        bench, held = self._bench, run.held
        pulse.phase("storing", 0, 1)
        digest = self._put_record(run, told)
        withheld = None
        if ending.output_bytes:  # whether it fits is known only in the transaction: both records lie ready
            assert run.request is not None  # a result has a request
            nothing = budget_spent(run.request.checks)
            withheld = Withheld(record_sha256=self._put_record(run, nothing), outcome=nothing.outcome)

        def store_result() -> bool:
            with bench.store.begin() as connection:
                return jobs.finalise(
                    connection, held, ending, record_sha256=digest, outcome=told.outcome, withheld=withheld
                )

        try:
            released = self._insist(pulse, store_result)
        except StoreFenced:
            # Either another worker has the job, or a cancel came first; the beat tells which.
            with bench.store.begin() as connection:
                heard = jobs.beat(connection, held)
            self._stop(run, pulse, Reason.CANCEL if heard is Beat.CANCEL else Reason.FENCED)
        else:
            outcome = told.outcome if released else "withheld: over a lifetime output cap"
            log.info("finalised as %s, %s", ending.exit_class, outcome, extra=run.labels)

    def _put_record(self, run: _Run, told: Told) -> str:
        """Store the host's record of an attempt, and the files that it names; return its digest."""
        bench, held = self._bench, run.held
        for one in told.artefacts:
            bench.blobs.put(one.filled.content, one.told.sha256)
        record = host_record(
            audit=held.audit,
            token=held.token,
            told=told,
            provenance=run.provenance,
            threads=bench.threads,
            seals=[one.seal for one in run.outcomes],
            image=bench.image(),
        )
        digest = hashlib.sha256(record).hexdigest()
        bench.blobs.put(record, digest)
        return digest

    def _stop(self, run: _Run, pulse: Pulse, reason: Reason) -> None:
        """End an attempt that nobody wants any more; its cell is dead."""
        if reason in (Reason.FENCED, Reason.STALE):
            log.warning("the lease is over (%s): nothing more is written", reason, extra=run.labels)
            self._bench.on_fenced()
            return
        exit_class = ExitClass.CANCELLED if reason is Reason.CANCEL else ExitClass.DRAINED
        self._end(run, pulse, run.ending(exit_class))

    def _fail(self, run: _Run, pulse: Pulse, error: BaseException) -> None:
        """End an attempt that the host could not carry out, and stop this process where it must not go on."""
        exit_class = class_of_error(error)
        log.error("attempt failed: %s", error, extra=run.labels, exc_info=exit_class is None)
        unkillable = isinstance(error, CellFailed) and error.code == "cell_unkillable"
        note = f"{type(error).__name__}: {error}"
        ending = run.ending(exit_class or ExitClass.HOST_FAULT, note)
        self._end(run, pulse, ending, confirmation=None if unkillable else CancelConfirmation.KILLED)
        if exit_class is None:
            raise error
        if unkillable or lost_isolation(error):
            raise WorkerClosed(str(error)) from error

    def _end(
        self,
        run: _Run,
        pulse: Pulse,
        ending: Ending,
        *,
        confirmation: CancelConfirmation | None = CancelConfirmation.KILLED,
    ) -> None:
        bench = self._bench

        def write_end() -> Then:
            with bench.store.begin() as connection:
                return endings.end(
                    connection, run.held, ending, confirmation=confirmation, base_ms=bench.backoff_base_ms
                )

        try:
            then = self._insist(pulse, write_end)
        except StoreError as error:
            log.warning("the end was not written, the reaper will: %s", error, extra=run.labels)
            bench.on_fenced()
        else:
            log.info("ended as %s, then %s", ending.exit_class, then, extra=run.labels)

    def _insist(self, pulse: Pulse, write: Callable[[], Done]) -> Done:
        """Repeat a write that the database is too busy for, as long as the lease surely is ours."""
        while True:
            try:
                return write()
            except (StoreBusy, StoreUnavailable):
                if pulse.reason() in (Reason.FENCED, Reason.STALE):
                    raise
                time.sleep(RETRY_S)
