"""One attempt at one job: lease, materialise, run, parse, overwrite what the host measured, finalise.

Every write carries the lease's fencing token. Whatever happens, the attempt ends in exactly one of three ways: a
result is stored, the job's end is written, or nothing is written because the lease is over.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sandbox.errors import CellFailed, ResultRejected
from service.blobs import BlobError
from service.rules import tracing
from service.rules.logs import escaped
from service.rules.manifest import weights_sha256
from service.rules.states import CancelConfirmation, ExitClass, JobKind, Then, next_step
from service.store import jobs
from service.store.engine import StoreBusy, StoreUnavailable
from service.store.jobs import Ending
from service.store.shards import plan_of, scanned
from service.worker.approved import require_consent
from service.worker.bench import Bench
from service.worker.cells import Cells
from service.worker.classes import class_of_error, lost_isolation
from service.worker.closing import Closing
from service.worker.code import measure_code
from service.worker.course import Run
from service.worker.errors import BlobLost, HostFault, Stopped, WorkerClosed
from service.worker.gathering import Gathered
from service.worker.materialise import copy_all, materialise, private_folder, wanted_data
from service.worker.promises import Promise
from service.worker.pulse import Pulse
from service.worker.record import Provenance, answered, unanswered
from service.worker.request import read_manifest, read_request
from service.worker.shards import sharded_at

log = logging.getLogger("assay.worker")


class Attempts:
    """Handles knocks: `attempt` is the queue's handler.

    Args:
        bench: what to work with.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._closing = Closing(bench)

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
        run = Run(held=held)
        log.info("attempt started", extra=run.labels)
        pulse = Pulse(bench.store, held, lease_s=bench.lease_s, leased_at=leased_at, draining=bench.draining)
        with tracing.span("attempt", held.traceparent, audit=held.audit, job=held.label, attempt=held.number), pulse:
            self._supervise(run, pulse)

    def _supervise(self, run: Run, pulse: Pulse) -> None:
        try:
            exit_class, note = self._measure(run, pulse)
        except Stopped as stopped:
            self._closing.stop(run, pulse, stopped.reason)
        except ResultRejected as error:
            self._settle(
                run, pulse, ExitClass.RESULT_REJECTED, f"{run.cells.stage if run.cells else 'no'} cell: {error}"
            )
        except BaseException as error:
            self._fail(run, pulse, error)
        else:
            self._settle(run, pulse, exit_class, note)

    def _measure(self, run: Run, pulse: Pulse) -> tuple[ExitClass, str]:
        """Run the cells; return the class of their end, with `run.result` set if a document was accepted."""
        bench, held = self._bench, run.held
        request = read_request(bench.blobs, held.request_sha256, held.audit)
        promises = {one.name: self._promise(one.name, one.version) for one in request.checks}
        run.provenance = {
            name: Provenance(code_sha256=measure_code(bench.guest, name, one), catalogue_sha256=one.sha256)
            for name, one in promises.items()
        }
        run.request = request
        run.caps = require_consent(bench.store, held.audit, request, promises, run.provenance)
        manifest = read_manifest(bench.blobs, request.model_sha256)
        run.weights_sha256 = weights_sha256(manifest)
        base = read_manifest(bench.blobs, request.base_sha256) if request.base_sha256 else None
        run.base_weights_sha256 = weights_sha256(base) if base else ""

        def on_file(done: int, owed: int) -> None:
            pulse.phase("materialising", done, owed)
            pulse.go_on()

        run.cells = Cells(bench=bench, request=request, pulse=pulse, seed=held.seed)
        run.sharded = sharded_at(request, promises)
        name = f"{held.job}-{held.token}"
        with private_folder(bench.work_dir, name) as folder, private_folder(bench.work_dir, f"{name}-read") as aside:
            if held.kind is JobKind.SHARD:
                died = self._scan(run, folder, on_file)
            else:
                gathered = self._gathered(run) if held.kind is JobKind.COMBINE else None
                more = gathered.wanted if gathered else ()
                with tracing.span("materialise"):
                    given = materialise(bench.blobs, manifest, request, folder, on_file=on_file, base=base, more=more)
                with tracing.span("cells"):
                    died = run.cells.run(given, promises, aside, gathered.shards(given.more) if gathered else None)
        if died is not None:
            return died, ""
        return (ExitClass.REFUSED if run.result and run.result.model_refused else ExitClass.OK), ""

    def _scan(self, run: Run, folder: Path, on_file: Callable[[int, int], None]) -> ExitClass | None:
        """Run the one cell of a shard; whatever the plan is, the model is not among its inputs."""
        assert run.cells is not None
        assert run.request is not None
        wanted = self._gathered(run)
        data = wanted_data(run.request)
        made = copy_all(self._bench.blobs, (*data, *wanted.wanted), folder, on_file=on_file)
        return run.cells.scan(made[: len(data)], wanted.shards(made[len(data) :]))

    def _gathered(self, run: Run) -> Gathered:
        with self._bench.store.read() as connection:
            plan = plan_of(connection, run.held.audit)
            found = scanned(connection, run.held.audit)
        if plan is None or run.sharded is None:
            raise HostFault(f"job {run.held.job} is of an audit without a plan")
        if run.held.kind is JobKind.SHARD:
            return Gathered(check=run.sharded, plan=plan, shard=run.held.shard)
        return Gathered(check=run.sharded, plan=plan, parts=found.parts, dead=found.dead)

    def _promise(self, name: str, version: str) -> Promise:
        entry = self._bench.catalogue.entry(name)
        if entry is None or entry.version != version:
            have = "no such check" if entry is None else f"version {entry.version}"
            raise HostFault(f"the request asks for {name} {version}, this worker's catalogue has {have}: upgrade it")
        return entry

    def _settle(self, run: Run, pulse: Pulse, exit_class: ExitClass, note: str) -> None:
        """End an attempt whose cell is dead: store a result if its class leads to one, else write the end."""
        held = run.held
        then = next_step(
            exit_class,
            strikes=held.strikes,
            attempt=held.tries,
            attempts_max=held.attempts_max,
            repeated=held.crashes if exit_class is ExitClass.CELL_CRASHED else 0,
            strikes_max=self._bench.strikes_max,
            lifted=self._bench.caps_lifted,
        )
        told = self._told(run, exit_class)
        if then is not Then.FINALISE or told is None:
            self._closing.end(run, pulse, run.ending(exit_class, note))
            return
        try:
            with tracing.span("store", exit_class=exit_class):
                told(pulse, run.ending(exit_class, note))
        except BlobError as error:
            self._closing.end(run, pulse, run.ending(ExitClass.HOST_FAULT, str(error)))

    def _told(self, run: Run, exit_class: ExitClass) -> Callable[[Pulse, Ending], None] | None:
        """Return what writes down what an attempt came to; None of a shard without a part, which nobody answers."""
        if run.held.kind is JobKind.SHARD:
            return None if run.staged is None else partial(self._closing.store_part, run)
        if run.staged is not None and run.result is None and exit_class is ExitClass.OK:
            return partial(self._closing.store_plan, run)
        assert run.request is not None  # only a cell's end leads to a result
        told = (
            unanswered(run.request.checks, exit_class)
            if run.result is None
            else answered(run.result, run.request.checks, run.request.output_bytes)
        )
        return lambda pulse, ending: self._closing.finalise(run, pulse, told, ending)

    def _fail(self, run: Run, pulse: Pulse, error: BaseException) -> None:
        """End an attempt that the host could not carry out, and stop this process where it must not go on."""
        exit_class = class_of_error(error)
        log.error("attempt failed: %s", error, extra=run.labels, exc_info=exit_class is None)
        unkillable = isinstance(error, CellFailed) and error.code == "cell_unkillable"
        note = f"{type(error).__name__}: {error}"
        if isinstance(error, BlobLost):
            self._closing.quarantine(run, error.sha256)
        ending = run.ending(exit_class or ExitClass.HOST_FAULT, note)
        self._closing.end(run, pulse, ending, confirmation=None if unkillable else CancelConfirmation.KILLED)
        if exit_class is None:
            raise error
        if unkillable or lost_isolation(error):
            raise WorkerClosed(str(error)) from error
