"""What each kind of journal entry does to the life of one audit, and which of the rules J1-J9, J12, J15 it breaks.

`service.rules.consistency` has the rules, and looks at what holds across audits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from service.rules.journal import FIRST, TERMINAL, Entry, Rule
from service.rules.states import EXIT_RULES, UNSIGNABLE, ExitClass, Then


@dataclass(slots=True)
class Job:
    """What is remembered of a job."""

    token: int = 0
    leased: bool = False
    leases: int = 0
    strikes: int = 0
    dead: bool = False
    """Whether it is known that no cell of the newest lease lives."""
    owed: bool = False
    """Whether a cancel found it leased."""
    answered: bool = False
    """Whether the newest lease ended in a way that has a result."""


@dataclass(slots=True)
class Life:
    """What is remembered of an audit."""

    first: bool = True
    older: bool = False
    """Whether it began before there was a journal: then only gaps and a second end can be told."""
    sequence: int = 0
    seq: int = 0
    attempts_max: int | None = None
    registered: bool = False
    finalised: int = 0
    result: int = 0
    """The token that it was finalised with."""
    sealed: int = 0
    leaves: int = 0
    ended: str = ""
    of: int | None = None
    over: set[int] = field(default_factory=set)
    """Shards that are finalised or dead."""
    jobs: dict[str, Job] = field(default_factory=dict)

    def job(self, name: str) -> Job:
        """Return a job of it."""
        return self.jobs.setdefault(name, Job())


def in_order(life: Life, entry: Entry) -> Iterator[Rule]:
    """Look at an entry's number and at how the life begins."""
    if entry.sequence != life.sequence + 1:
        yield "J7"
    if life.first != (entry.kind in FIRST):
        yield "J1"
    life.older = life.older or (life.first and entry.kind == "carried_over")
    if entry.kind == "submitted":
        life.attempts_max = int(entry.detail["attempts_max"])
    life.first, life.sequence, life.seq = False, entry.sequence, entry.seq


def older_step(life: Life, entry: Entry) -> Iterator[Rule]:
    """Look at an entry of an audit that is older than the journal."""
    if entry.kind in TERMINAL:
        if life.ended:
            yield "J2"
        life.ended = entry.kind


def missing(life: Life, *, live: bool) -> Iterator[Rule]:
    """Look at what a life lacks at the end."""
    if life.sealed and not life.ended:
        yield "J4"  # sealed and completed are one transaction
    if life.registered and life.ended and not life.leaves and (life.ended == "completed" or not live):
        yield "J15"


def _registered(life: Life, _entry: Entry, _strikes_max: int | None) -> Iterator[Rule]:
    if life.registered:
        yield "J15"
    life.registered = True


def _leased(life: Life, entry: Entry, strikes_max: int | None) -> Iterator[Rule]:
    job = life.job(entry.job)
    if not life.registered:
        yield "J15"
    if life.ended:
        yield "J2"
    elif life.finalised:
        yield "J3"
    if entry.token <= job.token or job.leased:
        yield "J5"
    if strikes_max is not None and (job.strikes >= strikes_max or job.leases >= (life.attempts_max or job.leases + 1)):
        yield "J8"
    if entry.job.endswith("-c") and (life.of is None or len(life.over) < life.of):
        yield "J12"
    life.jobs[entry.job] = Job(token=entry.token, leased=True, leases=job.leases + 1, strikes=job.strikes)


def _ended(life: Life, entry: Entry, _strikes_max: int | None) -> Iterator[Rule]:
    job = life.job(entry.job)
    if entry.token != job.token or not job.leased:
        yield "J5"
    job.leased = False
    told = str(entry.detail["class"])
    rule = EXIT_RULES[ExitClass(told)] if told in ExitClass.__members__ else None
    job.answered = rule is not None and rule.then is Then.FINALISE
    job.strikes += rule is not None and rule.strike


def _shards_inserted(life: Life, entry: Entry, _strikes_max: int | None) -> Iterator[Rule]:
    if life.of is not None:
        yield "J12"
    life.of = int(entry.detail["of"])


def _finalised(life: Life, entry: Entry, _strikes_max: int | None) -> Iterator[Rule]:
    job = life.job(entry.job)
    if entry.token != job.token or job.leased or not job.answered:
        yield "J5"
    if "shard" in entry.detail:
        yield from _shard_over(life, entry, _strikes_max)
        return
    life.finalised += 1
    life.result = entry.token
    if life.finalised > 1:
        yield "J3"
    elif life.sealed:
        yield "J4"
    elif life.ended:
        yield "J2"


def _shard_over(life: Life, entry: Entry, _strikes_max: int | None) -> Iterator[Rule]:
    shard = int(entry.detail["shard"])
    if life.of is None or shard >= life.of or shard in life.over:
        yield "J12"
    life.over.add(shard)


def _sealed(life: Life, entry: Entry, _strikes_max: int | None) -> Iterator[Rule]:
    life.sealed += 1
    other = life.finalised and entry.token != life.result
    if life.sealed > 1 or other or life.ended in ("cancelled", "failed"):
        yield "J4"


def _cancel_requested(life: Life, _entry: Entry, _strikes_max: int | None) -> Iterator[Rule]:
    for job in life.jobs.values():
        job.owed = job.owed or job.leased
    if life.finalised and not life.ended:
        yield "J3"


def _known_dead(life: Life, entry: Entry, _strikes_max: int | None) -> Iterator[Rule]:
    job = life.job(entry.job)
    job.dead = job.dead or entry.token == job.token
    return iter(())


def _terminal(life: Life, entry: Entry, _strikes_max: int | None) -> Iterator[Rule]:
    if life.ended:
        yield "J2"
        return
    life.ended = entry.kind
    if entry.kind == "completed":
        if not life.finalised:
            yield "J3"
        if not life.sealed:
            yield "J4"
    elif life.sealed:
        yield "J4"
    elif life.finalised and (entry.kind == "cancelled" or entry.detail.get("reason") not in UNSIGNABLE):
        yield "J3"
    if entry.kind == "cancelled" and any((job.owed or job.leased) and not job.dead for job in life.jobs.values()):
        yield "J9"


def _leaf(life: Life, entry: Entry, _strikes_max: int | None) -> Iterator[Rule]:
    life.leaves += 1
    wrong = {"void": "completed", "report": "cancelled failed"}[str(entry.detail["leaf"])]
    if life.leaves > 1 or not life.registered or (life.ended and life.ended in wrong):
        yield "J15"


STEPS: Mapping[str, Callable[[Life, Entry, int | None], Iterator[Rule]]] = {
    "registered": _registered,
    "leased": _leased,
    "ended": _ended,
    "shards_inserted": _shards_inserted,
    "finalised": _finalised,
    "shard_dead": _shard_over,
    "sealed": _sealed,
    "cancel_requested": _cancel_requested,
    "kill_confirmed": _known_dead,
    "lease_expired": _known_dead,
    **dict.fromkeys(TERMINAL, _terminal),
    "leaf": _leaf,
}
"""What each kind does to an audit's life; `published`, `fenced` and what crosses audits do nothing to it."""
