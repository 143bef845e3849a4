"""How an attempt's end is written: a result, a plan, a part, or an end without any; each under the fencing token."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from typing import TypeVar

from service.rules.metrics import COUNTERS
from service.rules.names import BlobName
from service.rules.states import CancelConfirmation, ExitClass, Then
from service.store import endings, jobs, journal, shards
from service.store.budget import Withheld
from service.store.engine import StoreBusy, StoreError, StoreFenced, StoreUnavailable
from service.store.jobs import Beat, Ending
from service.store.keeping import keep, quarantine
from service.worker.bench import Bench
from service.worker.course import Run
from service.worker.errors import Reason
from service.worker.pulse import Pulse
from service.worker.record import Told, budget_spent, host_record
from service.worker.shards import CARRIED, DOCUMENT, PART, Staged

log = logging.getLogger("assay.worker")

RETRY_S = 0.2
"""Pause before a write that a busy database refused is tried again; the self-fence bounds how often."""

Done = TypeVar("Done")


class Closing:
    """Writes ends.

    Args:
        bench: what to work with.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def finalise(self, run: Run, pulse: Pulse, told: Told, ending: Ending) -> None:
        """Store the result of an audit.

        Raises:
            BlobError: its record was not stored; nothing is written.
        """
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
                    connection,
                    held,
                    ending,
                    record_sha256=digest,
                    outcome=told.outcome,
                    withheld=withheld,
                    caps=run.caps,
                )

        released = self._commit(run, pulse, store_result)
        if released is not None:
            COUNTERS.add("assay_attempts_total", exit_class=ending.exit_class)
            outcome = told.outcome if released else "withheld: over a lifetime output cap"
            log.info("finalised as %s, %s", ending.exit_class, outcome, extra=run.labels)

    def store_plan(self, run: Run, pulse: Pulse, ending: Ending) -> None:
        """Store the plan that the whole job's attempt has made, and queue its shards.

        Raises:
            BlobError: it was not stored; nothing is written.
        """
        assert run.staged is not None
        blobs = self._put_staged(run.staged)
        plan = shards.Plan(shards=run.staged.shards, document=blobs[DOCUMENT], carried=blobs.get(CARRIED))

        def write() -> bool:
            with self._bench.store.begin() as connection:
                shards.store_plan(connection, run.held, ending, plan)
            return True

        if self._commit(run, pulse, write):
            COUNTERS.add("assay_attempts_total", exit_class=ending.exit_class)
            log.info("planned %d shards", plan.shards, extra=run.labels)

    def store_part(self, run: Run, pulse: Pulse, ending: Ending) -> None:
        """Store the part of a shard.

        Raises:
            BlobError: it was not stored; nothing is written.
        """
        assert run.staged is not None
        part = self._put_staged(run.staged)[PART]

        def write() -> bool:
            with self._bench.store.begin() as connection:
                shards.store_part(connection, run.held, ending, part)
            return True

        if self._commit(run, pulse, write):
            COUNTERS.add("assay_attempts_total", exit_class=ending.exit_class)
            log.info("%s is done", run.held.label, extra=run.labels)

    def _put_staged(self, staged: Staged) -> dict[str, BlobName]:
        keep(self._bench.store, self._bench.blobs, [one.sha256 for one in staged.files.values()])
        for one in staged.files.values():
            self._bench.blobs.put(one.content, one.sha256)
        return {name: BlobName(one.sha256, one.size) for name, one in staged.files.items()}

    def _commit(self, run: Run, pulse: Pulse, write: Callable[[], bool]) -> bool | None:
        """Write what an attempt came to; None if its lease was over or a cancel came first, and the end says so."""
        try:
            return self._insist(pulse, write)
        except StoreFenced:
            reason = self._ended_by(run)
        except (StoreBusy, StoreUnavailable) as error:
            log.warning("the result was not written, another attempt's will: %s", error, extra=run.labels)
            reason = Reason.STALE
        self.stop(run, pulse, reason)
        return None

    def _ended_by(self, run: Run) -> Reason:
        """Return why a lease is over: another worker has the job, or a cancel came first; the beat tells which."""
        try:
            with self._bench.store.begin() as connection:
                heard = jobs.beat(connection, run.held)
        except (StoreBusy, StoreUnavailable):
            return Reason.STALE
        return Reason.CANCEL if heard is Beat.CANCEL else Reason.FENCED

    def _put_record(self, run: Run, told: Told) -> str:
        """Store the host's record of an attempt, and the files that it names; return its digest."""
        bench, held = self._bench, run.held
        keep(bench.store, bench.blobs, [one.told.sha256 for one in told.artefacts])
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

    def stop(self, run: Run, pulse: Pulse, reason: Reason) -> None:
        """End an attempt that nobody wants any more; its cell is dead."""
        if reason in (Reason.FENCED, Reason.STALE):
            log.warning("the lease is over (%s): nothing more is written", reason, extra=run.labels)
            self._fenced(run)
            return
        exit_class = ExitClass.CANCELLED if reason is Reason.CANCEL else ExitClass.DRAINED
        self.end(run, pulse, run.ending(exit_class))

    def end(
        self,
        run: Run,
        pulse: Pulse,
        ending: Ending,
        *,
        confirmation: CancelConfirmation | None = CancelConfirmation.KILLED,
    ) -> None:
        """Write the end of an attempt that has no result."""
        bench = self._bench

        def write_end() -> Then:
            with bench.store.begin() as connection:
                return endings.end(
                    connection,
                    run.held,
                    ending,
                    confirmation=confirmation,
                    base_ms=bench.backoff_base_ms,
                    strikes_max=bench.strikes_max,
                    lifted=bench.caps_lifted,
                )

        try:
            then = self._insist(pulse, write_end)
        except StoreError as error:
            log.warning("the end was not written, the reaper will: %s", error, extra=run.labels)
            self._fenced(run)
        else:
            COUNTERS.add("assay_attempts_total", exit_class=ending.exit_class)
            log.info("ended as %s, then %s", ending.exit_class, then, extra=run.labels)

    def quarantine(self, run: Run, sha256: str) -> None:
        """Write down that a blob is lost or corrupt, so that it counts as missing until somebody sends it again."""
        try:
            with self._bench.store.begin() as connection:
                quarantine(connection, sha256)
        except (StoreBusy, StoreUnavailable) as error:
            log.warning("blob %s is lost and not quarantined: %s", sha256, error, extra=run.labels)

    def _fenced(self, run: Run) -> None:
        """Count a lease that was over before its attempt ended, and write into the journal that its token is void."""
        self._bench.on_fenced()
        COUNTERS.add("assay_fenced_writes_total")
        held = run.held
        try:
            with self._bench.store.begin() as connection:
                journal.note_fenced(connection, audit=held.audit, job=held.job, token=held.token)
        except (StoreBusy, StoreUnavailable) as error:
            log.warning("the journal was not written: %s", error, extra=run.labels)

    def _insist(self, pulse: Pulse, write: Callable[[], Done]) -> Done:
        """Repeat a write that the database is too busy for, as long as the lease surely is ours."""
        while True:
            try:
                return write()
            except (StoreBusy, StoreUnavailable):
                if pulse.reason() in (Reason.FENCED, Reason.STALE):
                    raise
                time.sleep(RETRY_S)
