"""Whether a journal holds together: rules J1-J15 (specs: service, section 18) over its entries, one pass, in order.

| rule | what must hold |
|---|---|
| J1 | a request id has one `submitted`, and so has an audit, as its first entry |
| J2 | an audit has one terminal entry, and no job of it is leased or finalised after it |
| J3 | an audit is finalised at most once, and exactly once if it is completed |
| J4 | it is sealed exactly once if it is completed, else never, and after it was finalised |
| J5 | a job's tokens rise, and between two leases lies exactly one end |
| J6 | after a job's lease k+1 nothing has the token of lease k, but `fenced` |
| J7 | the sequences of an audit have no gap |
| J8 | attempts and strikes of a job stay under their caps |
| J9 | cancelled while a job was leased needs `kill_confirmed` or `lease_expired` of that lease before |
| J10 | an event that is owed has a delivery or a dead letter, and one body |
| J11 | what entries refer to by digest is stored and has it |
| J12 | a combine is leased after all shards are over, each finalised once |
| J13 | a fire has at most one audit |
| J14 | an approval has at most `max_runs` uses |
| J15 | nothing is leased before it is registered; a registered audit has one leaf, its report's or a void one |

Memory: a few hundred bytes for each audit that lives and its jobs, some dozens for each that has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from service.rules.journal import FIRST, TERMINAL, Entry, Rule, Violation, digests_of
from service.rules.states import EXIT_RULES, STRIKES_MAX, ExitClass


@dataclass(slots=True)
class _Job:
    token: int = 0
    leased: bool = False
    leases: int = 0
    strikes: int = 0
    dead: bool = False
    """Whether it is known that no cell of the newest lease lives."""
    owed: bool = False
    """Whether a cancel found it leased."""


@dataclass(slots=True)
class _Life:
    first: bool = True
    older: bool = False
    """Whether it began before there was a journal: then only gaps and a second end can be told."""
    sequence: int = 0
    seq: int = 0
    attempts_max: int | None = None
    registered: bool = False
    finalised: int = 0
    sealed: int = 0
    leaves: int = 0
    ended: str = ""
    of: int | None = None
    over: set[int] = field(default_factory=set)
    """Shards that are finalised or dead."""
    jobs: dict[str, _Job] = field(default_factory=dict)

    def job(self, name: str) -> _Job:
        return self.jobs.setdefault(name, _Job())


_OF_LEASE = frozenset({"ended", "finalised", "shards_inserted", "shard_dead", "kill_confirmed", "lease_expired"})
"""Entries that only the holder of a lease, or who took it away, may write."""


class Checker:
    """Takes a journal's entries in their order and says which break a rule.

    Args:
        lifted: whether the caps on attempts and strikes were lifted, as in a rehearsal; then J8 is not looked at.
        strikes_max: strikes after which the service gives a job up (J8).
        stored: asked whether bytes of a digest are stored and have it; None leaves J11 out.
    """

    def __init__(
        self, *, lifted: bool = False, strikes_max: int = STRIKES_MAX, stored: Callable[[str], bool] | None = None
    ) -> None:
        self._strikes_max = None if lifted else strikes_max
        self._stored = stored
        self._lives: dict[str, _Life] = {}
        self._requests: set[tuple[str, str]] = set()
        self._fires: set[tuple[str, int]] = set()
        self._uses: dict[str, int] = {}
        self._bodies: dict[str, str] = {}
        self._owed: dict[tuple[str, str], tuple[str, int]] = {}
        self.counts: dict[str, int] = {}
        """Entries by kind so far."""

    def feed(self, entry: Entry) -> tuple[Violation, ...]:
        """Take the next entry; return what it breaks, each rule once."""
        self.counts[entry.kind] = self.counts.get(entry.kind, 0) + 1
        broken = dict.fromkeys(self._broken(entry))
        return tuple(Violation(rule=rule, audit=entry.audit, seq=entry.seq) for rule in broken)

    def close(self, *, live: bool = False) -> tuple[Violation, ...]:
        """Return what is missing at the end.

        Args:
            live: whether the service still runs: then a void leaf or a delivery that is owed is no violation.
        """
        found = [
            Violation(rule=rule, audit=name, seq=life.seq)
            for name, life in self._lives.items()
            for rule in _missing(life, live=live)
        ]
        if not live:
            found += [Violation(rule="J10", audit=audit, seq=seq) for audit, seq in self._owed.values()]
        return tuple(found)

    def unended(self) -> tuple[str, ...]:
        """Return the audits that have no terminal entry."""
        return tuple(name for name, life in self._lives.items() if not life.ended)

    def _broken(self, entry: Entry) -> Iterator[Rule]:
        if self._stored is not None and not all(map(self._stored, digests_of(entry))):
            yield "J11"
        yield from self._apart(entry)
        if not entry.audit:
            return
        life = self._lives.setdefault(entry.audit, _Life())
        yield from _in_order(life, entry)
        if life.older:
            yield from _older(life, entry)
            return
        if entry.kind in _OF_LEASE and 0 < entry.token < life.job(entry.job).token:
            yield "J6"
            return
        if entry.kind in _STEPS:
            yield from _STEPS[entry.kind](life, entry, self._strikes_max)
        if life.ended and life.leaves:
            life.jobs.clear()
            life.over.clear()

    def _apart(self, entry: Entry) -> Iterator[Rule]:
        """Look at what holds across audits."""
        told = entry.detail
        if entry.kind == "submitted":
            ticket = (str(told["principal"]), str(told["request_id"]))
            if ticket in self._requests:
                yield "J1"
            self._requests.add(ticket)
        elif entry.kind == "fired" and entry.audit:
            fire = (str(told["schedule"]), int(told["due_at"]))
            if fire in self._fires:
                yield "J13"
            self._fires.add(fire)
        elif entry.kind == "approval_used":
            used = self._uses.get(str(told["approval"]), 0) + 1
            self._uses[str(told["approval"])] = used
            if used > int(told["max_runs"]):
                yield "J14"
        elif "event_id" in told:
            yield from self._delivered(entry)

    def _delivered(self, entry: Entry) -> Iterator[Rule]:
        name, body = str(entry.detail["event_id"]), str(entry.detail["body_sha256"])
        if self._bodies.setdefault(name, body) != body:
            yield "J10"
        lane = (str(entry.detail["webhook"]), name)
        if entry.kind == "delivery_owed":
            self._owed[lane] = (entry.audit, entry.seq)
        else:
            self._owed.pop(lane, None)


def _in_order(life: _Life, entry: Entry) -> Iterator[Rule]:
    if entry.sequence != life.sequence + 1:
        yield "J7"
    if life.first != (entry.kind in FIRST):
        yield "J1"
    life.older = life.older or (life.first and entry.kind == "carried_over")
    if entry.kind == "submitted":
        life.attempts_max = int(entry.detail["attempts_max"])
    life.first, life.sequence, life.seq = False, entry.sequence, entry.seq


def _older(life: _Life, entry: Entry) -> Iterator[Rule]:
    if entry.kind in TERMINAL:
        if life.ended:
            yield "J2"
        life.ended = entry.kind


def _missing(life: _Life, *, live: bool) -> Iterator[Rule]:
    if life.sealed and not life.ended:
        yield "J4"  # sealed and completed are one transaction
    if life.registered and life.ended and not life.leaves and (life.ended == "completed" or not live):
        yield "J15"


def _registered(life: _Life, _entry: Entry, _strikes_max: int | None) -> Iterator[Rule]:
    if life.registered:
        yield "J15"
    life.registered = True


def _leased(life: _Life, entry: Entry, strikes_max: int | None) -> Iterator[Rule]:
    job = life.job(entry.job)
    if not life.registered:
        yield "J15"
    if life.ended:
        yield "J2"
    if entry.token <= job.token or job.leased:
        yield "J5"
    if strikes_max is not None and (job.strikes >= strikes_max or job.leases >= (life.attempts_max or job.leases + 1)):
        yield "J8"
    if entry.job.endswith("-c") and (life.of is None or len(life.over) < life.of):
        yield "J12"
    life.jobs[entry.job] = _Job(token=entry.token, leased=True, leases=job.leases + 1, strikes=job.strikes)


def _ended(life: _Life, entry: Entry, _strikes_max: int | None) -> Iterator[Rule]:
    job = life.job(entry.job)
    if entry.token != job.token or not job.leased:
        yield "J5"
    job.leased = False
    told = str(entry.detail["class"])
    job.strikes += told in ExitClass.__members__ and EXIT_RULES[ExitClass(told)].strike


def _shards_inserted(life: _Life, entry: Entry, _strikes_max: int | None) -> Iterator[Rule]:
    if life.of is not None:
        yield "J12"
    life.of = int(entry.detail["of"])


def _finalised(life: _Life, entry: Entry, _strikes_max: int | None) -> Iterator[Rule]:
    if "shard" in entry.detail:
        yield from _shard_over(life, entry, _strikes_max)
        return
    life.finalised += 1
    if life.finalised > 1:
        yield "J3"
    elif life.sealed:
        yield "J4"
    elif life.ended:
        yield "J2"


def _shard_over(life: _Life, entry: Entry, _strikes_max: int | None) -> Iterator[Rule]:
    shard = int(entry.detail["shard"])
    if life.of is None or shard >= life.of or shard in life.over:
        yield "J12"
    life.over.add(shard)


def _sealed(life: _Life, _entry: Entry, _strikes_max: int | None) -> Iterator[Rule]:
    life.sealed += 1
    if life.sealed > 1 or life.ended in ("cancelled", "failed"):
        yield "J4"


def _cancel_requested(life: _Life, _entry: Entry, _strikes_max: int | None) -> Iterator[Rule]:
    for job in life.jobs.values():
        job.owed = job.owed or job.leased
    return iter(())


def _known_dead(life: _Life, entry: Entry, _strikes_max: int | None) -> Iterator[Rule]:
    job = life.job(entry.job)
    job.dead = job.dead or entry.token == job.token
    return iter(())


def _terminal(life: _Life, entry: Entry, _strikes_max: int | None) -> Iterator[Rule]:
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
    if entry.kind == "cancelled" and any((job.owed or job.leased) and not job.dead for job in life.jobs.values()):
        yield "J9"


def _leaf(life: _Life, entry: Entry, _strikes_max: int | None) -> Iterator[Rule]:
    life.leaves += 1
    wrong = {"void": "completed", "report": "cancelled failed"}[str(entry.detail["leaf"])]
    if life.leaves > 1 or not life.registered or (life.ended and life.ended in wrong):
        yield "J15"


_STEPS: Mapping[str, Callable[[_Life, Entry, int | None], Iterator[Rule]]] = {
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
