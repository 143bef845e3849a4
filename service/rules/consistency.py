"""Whether a journal holds together: rules J1-J15 (specs: service, section 18) over its entries, one pass, in order.

| rule | what must hold |
|---|---|
| J1 | a request id has one `submitted` in 7 days, and so has an audit, as its first entry |
| J2 | an audit has one terminal entry, and no job of it is leased or finalised after it |
| J3 | an audit is finalised once if it is completed, else at most once; then it completes, or its record is rejected |
| J4 | it is sealed exactly once if it is completed, else never, after it was finalised and with that token |
| J5 | a job's tokens rise, between two leases lies one end, and a result is of the newest lease, whose end has one |
| J6 | after a job's lease k+1 nothing has the token of lease k, but `fenced` |
| J7 | the sequences of an audit have no gap |
| J8 | attempts and strikes of a job stay under their caps |
| J9 | cancelled while a job was leased needs `kill_confirmed` or `lease_expired` of that lease before |
| J10 | an event that is owed has a delivery or a dead letter, and one body |
| J11 | what entries refer to by digest is stored and has it |
| J12 | a combine is leased after all shards are over, each finalised once |
| J13 | a fire has at most one audit |
| J14 | an approval has at most `max_runs` uses, and one `max_runs` |
| J15 | nothing is leased before it is registered; a registered audit has one leaf, its report's or a void one |

Memory: a few hundred bytes for each audit that lives and its jobs, some dozens for each that has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from service.rules.journal import Entry, Rule, Violation, digests_of
from service.rules.lives import STEPS, Life, in_order, missing, older_step
from service.rules.states import STRIKES_MAX

REQUESTS_MS = 7 * 24 * 3600 * 1000 - 60_000
"""For so long a request id belongs to one audit: 7 days (specs: service, section 3) by the audit's own time, which was
taken up to a minute before its entry. A client may draw it again after that."""


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
        self._lives: dict[str, Life] = {}
        self._requests: dict[tuple[str, str], int] = {}
        self._fires: set[tuple[str, int]] = set()
        self._uses: dict[str, tuple[int, int]] = {}
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
            for rule in missing(life, live=live)
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
        life = self._lives.setdefault(entry.audit, Life())
        yield from in_order(life, entry)
        if life.older:
            yield from older_step(life, entry)
            return
        if entry.kind in _OF_LEASE and 0 < entry.token < life.job(entry.job).token:
            yield "J6"
            return
        if entry.kind in STEPS:
            yield from STEPS[entry.kind](life, entry, self._strikes_max)
        if life.ended and life.leaves:
            life.jobs.clear()
            life.over.clear()

    def _apart(self, entry: Entry) -> Iterator[Rule]:
        """Look at what holds across audits."""
        told = entry.detail
        if entry.kind == "submitted":
            ticket = (str(told["principal"]), str(told["request_id"]))
            before = self._requests.get(ticket)
            if before is not None and entry.at - before < REQUESTS_MS:
                yield "J1"
            self._requests[ticket] = entry.at
        elif entry.kind == "fired" and entry.audit:
            fire = (str(told["schedule"]), int(told["due_at"]))
            if fire in self._fires:
                yield "J13"
            self._fires.add(fire)
        elif entry.kind == "approval_used":
            runs = int(told["max_runs"])
            used, signed = self._uses.get(str(told["approval"]), (0, runs))
            self._uses[str(told["approval"])] = (used + 1, signed)
            if used + 1 > signed or runs != signed:
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
