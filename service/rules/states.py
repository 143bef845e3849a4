"""States, their legal steps and the classes of an attempt's end, as data (specs: service, section 8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class AuditState(StrEnum):
    """Where an audit is."""

    AWAITING_APPROVAL = "AWAITING_APPROVAL"
    """The model is not the caller's, and no approval of its owner fits yet; nothing is registered or leased."""
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SIGNING = "SIGNING"
    COMPLETED = "COMPLETED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"


AUDIT_STEPS: Mapping[AuditState, frozenset[AuditState]] = {
    AuditState.AWAITING_APPROVAL: frozenset({AuditState.QUEUED, AuditState.CANCELLED}),
    AuditState.QUEUED: frozenset({AuditState.RUNNING, AuditState.CANCELLED}),
    AuditState.RUNNING: frozenset({AuditState.SIGNING, AuditState.CANCELLING, AuditState.CANCELLED, AuditState.FAILED}),
    AuditState.SIGNING: frozenset({AuditState.COMPLETED, AuditState.FAILED}),
    AuditState.CANCELLING: frozenset({AuditState.CANCELLED}),
    AuditState.COMPLETED: frozenset(),
    AuditState.CANCELLED: frozenset(),
    AuditState.FAILED: frozenset(),
}
"""RUNNING to CANCELLED at once is the cancel that finds no cell: the job waits between two attempts. SIGNING to FAILED
is the record that no signer will ever sign (`UNSIGNABLE`)."""

UNSIGNABLE = frozenset({"RECORD_REJECTED"})
"""Codes of the signer after which asking again is no use: the record is stored and will not change. Whatever an
operator can mend leaves the audit where it is."""

AUDIT_ENDED = frozenset(state for state, steps in AUDIT_STEPS.items() if not steps)
"""States that nothing leaves; a watch of the audit ends there."""


class JobState(StrEnum):
    """Where a job is: what workers lease."""

    QUEUED = "QUEUED"
    LEASED = "LEASED"
    WAITING = "WAITING"
    """Backing off after a strike."""
    DONE = "DONE"
    DEAD = "DEAD"
    """Out of strikes or attempts; a shard also where its cell ended in a way that is not tried again."""
    DROPPED = "DROPPED"
    """Cancelled."""


class JobKind(StrEnum):
    """What a job is for."""

    WHOLE = "whole"
    """All of an audit; where its data is read in shards, their plan."""
    SHARD = "shard"
    """One shard of the plan."""
    COMBINE = "combine"
    """What follows from all shards."""


def job_label(kind: str, shard: int) -> str:
    """Return how events and reports name a job: whole, shard:k or combine."""
    return f"{kind}:{shard}" if kind == JobKind.SHARD else kind


JOB_STEPS: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.LEASED, JobState.DROPPED}),
    JobState.LEASED: frozenset({JobState.DONE, JobState.WAITING, JobState.QUEUED, JobState.DEAD, JobState.DROPPED}),
    JobState.WAITING: frozenset({JobState.QUEUED, JobState.DROPPED}),
    JobState.DONE: frozenset(),
    JobState.DEAD: frozenset(),
    JobState.DROPPED: frozenset(),
}


class Outcome(StrEnum):
    """What a report says as a whole; never a verdict about the model."""

    MEASURED = "MEASURED"
    INCONCLUSIVE = "INCONCLUSIVE"
    REFUSED = "REFUSED"
    FAILED = "FAILED"


def outcome_of(answers: tuple[tuple[str, bool], ...]) -> Outcome:
    """Return an audit's outcome from each answer's (outcome, valid).

    No answers at all is INCONCLUSIVE: silence never reads as a pass.
    """
    if not answers:
        return Outcome.INCONCLUSIVE
    if all(outcome == "measured" and valid for outcome, valid in answers):
        return Outcome.MEASURED
    for word, whole in (("refused", Outcome.REFUSED), ("failed", Outcome.FAILED)):
        if all(outcome == word for outcome, _ in answers):
            return whole
    return Outcome.INCONCLUSIVE


class CancelConfirmation(StrEnum):
    """How it is known that a cancelled audit's cell is dead."""

    KILLED = "KILLED"
    LEASE_EXPIRED = "LEASE_EXPIRED"


class ExitClass(StrEnum):
    """How an attempt ended."""

    OK = "OK"
    REFUSED = "REFUSED"
    CELL_CRASHED = "CELL_CRASHED"
    MEMORY_LIMIT = "MEMORY_LIMIT"
    LIMIT_HIT = "LIMIT_HIT"
    TIME_LIMIT = "TIME_LIMIT"
    RESULT_REJECTED = "RESULT_REJECTED"
    WORKER_LOST = "WORKER_LOST"
    HOST_FAULT = "HOST_FAULT"
    ISOLATION_UNAVAILABLE = "ISOLATION_UNAVAILABLE"
    DRAINED = "DRAINED"
    CANCELLED = "CANCELLED"


class Then(StrEnum):
    """What follows the end of an attempt."""

    FINALISE = "finalise"
    """A result is stored: the cell's own, or one `failed` answer per check written by the host."""
    WAIT = "wait"
    """The job backs off, then queues again."""
    REQUEUE = "requeue"
    """The job queues again at once."""
    FAIL = "fail"
    """The job is dead and its audit has failed."""
    CANCEL = "cancel"
    BURY = "bury"
    """The shard is dead; its audit goes on, and the answer names the shard."""


@dataclass(frozen=True, kw_only=True)
class ExitRule:
    """What one exit class costs and leads to."""

    then: Then
    strike: bool = False
    """Whether it counts as an infrastructure failure of the job."""
    repeats: int = 0
    """With FINALISE: so many earlier ends of this class are retried instead."""
    reason: str = "ATTEMPTS_EXHAUSTED"
    """The audit's `state_reason` when no retry is left."""
    retryable: bool = True
    """Whether sending the same request again could succeed, when no retry is left."""


EXIT_RULES: Mapping[ExitClass, ExitRule] = {
    ExitClass.OK: ExitRule(then=Then.FINALISE),
    ExitClass.REFUSED: ExitRule(then=Then.FINALISE),
    ExitClass.CELL_CRASHED: ExitRule(then=Then.FINALISE, strike=True, repeats=1),
    ExitClass.MEMORY_LIMIT: ExitRule(then=Then.FINALISE),
    ExitClass.LIMIT_HIT: ExitRule(then=Then.FINALISE),
    ExitClass.TIME_LIMIT: ExitRule(then=Then.FINALISE),
    ExitClass.RESULT_REJECTED: ExitRule(then=Then.FINALISE),
    # A poisonous job that kills worker after worker must not be sent again and again.
    ExitClass.WORKER_LOST: ExitRule(then=Then.WAIT, strike=True, retryable=False),
    ExitClass.HOST_FAULT: ExitRule(then=Then.WAIT, strike=True, reason="HOST_FAULT"),
    ExitClass.ISOLATION_UNAVAILABLE: ExitRule(then=Then.REQUEUE),
    ExitClass.DRAINED: ExitRule(then=Then.REQUEUE),
    ExitClass.CANCELLED: ExitRule(then=Then.CANCEL),
}

STRIKES_MAX = 3
"""Specs: service, section 15. Two bad machines are bad luck; a third points at the job."""


def check_bound(lease_s: float, kill_bound_s: float) -> None:
    """Refuse a lease that could end while the old cell lives (specs: service, section 8).

    Its worker notices after 2L/3 and kills within the bound; the reaper takes the job at L, at most L/6 early.

    Args:
        lease_s: L, in seconds.
        kill_bound_s: how long a killed cell may take to go, in seconds.

    Raises:
        ValueError: 2L/3 + kill bound + L/6 is more than L.
    """
    if lease_s * 5 / 6 + kill_bound_s > lease_s * (1 + 1e-9):
        raise ValueError(
            f"lease_s: {lease_s} s is shorter than {6 * kill_bound_s:g} s, six times the {kill_bound_s:g} s that a "
            "killed cell may take to go: two cells of one job could run at once; give the lease "
            f"{6 * kill_bound_s:g} s or more"
        )


def next_step(
    exit_class: ExitClass,
    *,
    strikes: int,
    attempt: int,
    attempts_max: int,
    repeated: int,
    strikes_max: int = STRIKES_MAX,
    lifted: bool = False,
) -> Then:
    """Return what follows an attempt.

    Args:
        exit_class: how the attempt ended.
        strikes: the job's strikes before this end.
        attempt: the job's count of attempts, this one included.
        attempts_max: attempts that the request allows.
        repeated: earlier attempts of the job that ended in the same class.
        strikes_max: strikes after which a job is given up.
        lifted: whether neither attempts nor strikes are counted out, as in a rehearsal.
    """
    rule = EXIT_RULES[exit_class]
    if rule.then is Then.CANCEL:
        return Then.CANCEL
    spent = not lifted and (attempt >= attempts_max or strikes + rule.strike >= strikes_max)
    if rule.then is Then.FINALISE:
        # A crash without a retry left is answered, not failed: the evidence is the crash, and it can be signed.
        return Then.FINALISE if repeated >= rule.repeats or spent else Then.WAIT
    return Then.FAIL if spent else rule.then


POISONED = "POISONED"
"""The `state_reason` of an audit whose job lost worker after worker."""


def failure_reason(exit_class: ExitClass, *, strikes: int, strikes_max: int = STRIKES_MAX) -> str:
    """Return the `state_reason` of an audit that failed with a job's attempt.

    Args:
        exit_class: how the attempt ended.
        strikes: the job's strikes before this end.
        strikes_max: strikes after which a job is given up.
    """
    # One lost worker says nothing about the job, also where the request allows no second try.
    if exit_class is ExitClass.WORKER_LOST and strikes + 1 >= strikes_max:
        return POISONED
    return EXIT_RULES[exit_class].reason


BACKOFF_BASE_MS = 5_000
BACKOFF_MAX_MS = 300_000
"""Specs: service, section 8: min(5 s x 2^strikes, 5 min)."""


def backoff_ms(strikes: int, *, base_ms: int = BACKOFF_BASE_MS) -> int:
    """Return how long a job waits after its `strikes`-th strike, in milliseconds."""
    longest = BACKOFF_MAX_MS * base_ms // BACKOFF_BASE_MS  # a rehearsal that begins shorter ends shorter
    return min(base_ms << min(strikes, 30), BACKOFF_MAX_MS, max(longest, base_ms))


EVENT_DETAILS: Mapping[str, frozenset[str]] = {
    "state_changed": frozenset({"state", "reason"}),
    "approval_used": frozenset({"approval", "used", "max_runs"}),
    "registered": frozenset({"request_sha256"}),
    "attempt_started": frozenset({"job", "number"}),
    "attempt_ended": frozenset({"job", "number", "exit_class"}),
    "phase_reached": frozenset({"phase", "done", "owed", "job"}),
    "planned": frozenset({"plan_sha256", "shards"}),
    "shard_done": frozenset({"shard", "done", "of"}),
    "shard_dead": frozenset({"shard", "dead", "of"}),
}
"""Kinds of events and exactly the keys of each one's detail. No text from inside a cell is ever an event."""

PHASES = (
    "materialising",
    "ingesting",
    "starting",
    "loading",
    "sweep",
    "measuring",
    "controls",
    "judging",
    "storing",
    "sealing",
)
"""Values of `phase`: the host's own and the steps that a cell may report."""

CELL_STEPS = PHASES[2:-2]
"""The steps a cell that measures may report, by index on its progress channel."""
