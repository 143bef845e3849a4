"""Journals from a seed: legal ones, and thirty that each break one rule.

The lives are written from the table of states (specs: service, section 8), not from the checker: a legal journal is
what a correct service would have written.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from service.rules.journal import Entry

Told = dict[str, Any]
Step = tuple[str, str, int, Told]
"""Kind, job (the suffix after the audit's id), token, detail."""
Group = list[Step]
"""What one transaction writes."""


@dataclass
class Planted:
    """A journal, and the bytes that its entries refer to."""

    entries: list[Entry]
    blobs: dict[str, bytes]

    def stored(self, digest: str) -> bool:
        return digest in self.blobs and hashlib.sha256(self.blobs[digest]).hexdigest() == digest

    @property
    def lines(self) -> bytes:
        return b"".join(entry.line().encode() + b"\n" for entry in self.entries)


@dataclass
class Pen:
    """Draws what lives are made of."""

    rng: random.Random
    blobs: dict[str, bytes] = field(default_factory=dict)

    def name(self) -> str:
        return self.rng.randbytes(16).hex()

    def blob(self) -> str:
        content = self.rng.randbytes(self.rng.randint(1, 40))
        digest = hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        return digest

    def submitted(self, attempts_max: int = 8) -> Group:
        told = {"request_id": self.name(), "principal": "p", "attempts_max": attempts_max}
        return [("submitted", "", 0, told)]

    def finish(self, job: str, token: int) -> Iterator[Group]:
        """The lease's last steps, up to the report."""
        yield [
            ("ended", job, token, {"class": self.rng.choice(["OK", "REFUSED", "MEMORY_LIMIT", "TIME_LIMIT"])}),
            ("finalised", job, token, {"result_sha256": self.blob()}),
        ]
        yield [
            ("sealed", "", token, {"files": [self.blob() for _ in range(self.rng.randint(1, 3))]}),
            ("leaf", "", 0, {"leaf": "report"}),
            ("completed", "", 0, {}),
        ]

    def loses(self, job: str, token: int) -> Group:
        """A lease that ends without a result."""
        word = self.rng.choice(["WORKER_LOST", "HOST_FAULT", "DRAINED", "ISOLATION_UNAVAILABLE"])
        taken: Group = [("lease_expired", job, token, {})] if word == "WORKER_LOST" else []
        return [*taken, ("ended", job, token, {"class": word})]


REGISTERED: Group = [("registered", "", 0, {})]
VOID: Group = [("leaf", "", 0, {"leaf": "void"})]
STRIKING = ("WORKER_LOST", "HOST_FAULT")


def simple(pen: Pen) -> Iterator[Group]:
    yield pen.submitted()
    yield REGISTERED
    yield [("published", "whole", 0, {})]
    yield [("leased", "whole", 1, {})]
    yield from pen.finish("whole", 1)


def stubborn(pen: Pen) -> Iterator[Group]:
    """Attempts that end without a result, up to the caps; zombies come back; then it completes or fails."""
    attempts_max = pen.rng.randint(1, 8)
    yield pen.submitted(attempts_max)
    yield REGISTERED
    strikes = 0
    for token in range(1, attempts_max + 1):
        yield [("published", "whole", 0, {})] * pen.rng.randint(0, 3)
        yield [("leased", "whole", token, {})]
        if pen.rng.random() < 0.4:
            yield from pen.finish("whole", token)
            return
        lost = pen.loses("whole", token)
        strikes += lost[-1][3]["class"] in STRIKING
        over = strikes == 3 or token == attempts_max
        yield [*lost, *([("failed", "", 0, {"reason": "ATTEMPTS_EXHAUSTED"})] if over else [])]
        if pen.rng.random() < 0.4:
            yield [("fenced", "whole", token, {})]
        if over:
            yield VOID
            return


def cancelled(pen: Pen) -> Iterator[Group]:
    """While its cell runs."""
    yield pen.submitted()
    yield REGISTERED
    yield [("leased", "whole", 1, {})]
    yield [("cancel_requested", "", 0, {})]
    if pen.rng.random() < 0.5:
        dead: Group = [("kill_confirmed", "whole", 1, {}), ("ended", "whole", 1, {"class": "CANCELLED"})]
    else:
        dead = [("lease_expired", "whole", 1, {}), ("ended", "whole", 1, {"class": "WORKER_LOST"})]
    yield [*dead, ("cancelled", "", 0, {"reason": ""})]
    yield VOID
    if pen.rng.random() < 0.3:
        yield [("fenced", "whole", 1, {})]


def cancelled_early(pen: Pen) -> Iterator[Group]:
    """Before it is registered, or between two attempts."""
    yield pen.submitted()
    ended: Group = [("cancel_requested", "", 0, {}), ("cancelled", "", 0, {"reason": ""})]
    where = pen.rng.randint(0, 2)
    if where == 0:
        yield ended
        return
    if where == 1:
        yield ended
        yield REGISTERED
        yield VOID
        return
    yield REGISTERED
    yield [("leased", "whole", 1, {})]
    yield pen.loses("whole", 1)
    yield ended
    yield VOID


def sharded(pen: Pen) -> Iterator[Group]:
    of = pen.rng.randint(2, 5)
    yield pen.submitted()
    yield REGISTERED
    yield [("leased", "whole", 1, {})]
    planned = {"of": of, "result_sha256": pen.blob()}
    yield [("shards_inserted", "whole", 1, planned), ("ended", "whole", 1, {"class": "OK"})]
    token = 1
    for shard in pen.rng.sample(range(of), of):
        job = f"s{shard}"
        token += 1
        yield [("leased", job, token, {})]
        if pen.rng.random() < 0.3:
            yield pen.loses(job, token)
            token += 1
            yield [("leased", job, token, {})]
        if pen.rng.random() < 0.15:
            dead = {"shard": shard, "of": of}
            yield [("ended", job, token, {"class": "MEMORY_LIMIT"}), ("shard_dead", job, token, dead)]
        else:
            part = {"result_sha256": pen.blob(), "shard": shard, "of": of}
            yield [("ended", job, token, {"class": "OK"}), ("finalised", job, token, part)]
    token += 1
    yield [("leased", "c", token, {})]
    yield from pen.finish("c", token)


def called_back(pen: Pen) -> Iterator[Group]:
    """With an approval, a schedule and two webhooks."""
    runs = pen.rng.randint(1, 3)
    fired = {"schedule": pen.name(), "due_at": pen.rng.randint(0, 2**40)}
    used = {"approval": pen.name(), "max_runs": runs}
    yield [*pen.submitted(), ("approval_used", "", 0, used), ("fired", "", 0, fired)]
    yield REGISTERED
    yield [("leased", "whole", 1, {})]
    body = hashlib.sha256(pen.rng.randbytes(8)).hexdigest()
    event = pen.name()
    lanes = [{"event_id": event, "webhook": f"t/{hook}", "body_sha256": body} for hook in ("one", "two")]
    *before, last = pen.finish("whole", 1)
    yield from before
    yield [*last, *(("delivery_owed", "", 0, told) for told in lanes)]
    for told in lanes:
        yield [(pen.rng.choice(["delivered", "dead_letter"]), "", 0, told)]


LIVES: tuple[Callable[[Pen], Iterator[Group]], ...] = (
    simple,
    stubborn,
    cancelled,
    cancelled_early,
    sharded,
    called_back,
)


def written(audit: str, group: Group) -> list[Entry]:
    jobs = {"": "", "whole": audit}
    return [
        Entry(
            seq=0, audit=audit, job=jobs.get(job, f"{audit}-{job}"), token=token, attempt=token, kind=kind, detail=told
        )
        for kind, job, token, told in group
    ]


def numbered(entries: list[Entry], gaps: random.Random | None = None) -> list[Entry]:
    """Number the entries; `gaps` leaves some between seqs, as transactions that were rolled back do."""
    last: dict[str, int] = {}
    seq, made = 0, []
    for entry in entries:
        seq += 1 + (gaps.randint(0, 2) if gaps else 0)
        if entry.audit:
            last[entry.audit] = last.get(entry.audit, 0) + 1
        made.append(replace(entry, seq=seq, sequence=last.get(entry.audit, 0) if entry.audit else 0, at=seq))
    return made


def legal(seed: int, lives: int = 12) -> Planted:
    """Return a journal of several audits whose transactions interleave."""
    pen = Pen(random.Random(f"legal {seed}"))
    running = [(pen.name(), pen.rng.choice(LIVES)(pen)) for _ in range(lives)]
    entries: list[Entry] = []
    while running:
        at = pen.rng.randrange(len(running))
        audit, life = running[at]
        group = next(life, None)
        if group is None:
            running.pop(at)
        else:
            entries += written(audit, group)
        if pen.rng.random() < 0.02:
            skipped = {"schedule": pen.name(), "due_at": 0, "outcome": "SKIPPED_OVERLAP"}
            entries.append(Entry(seq=0, kind="fired", detail=skipped))
    return Planted(numbered(entries, pen.rng), pen.blobs)


Break = Callable[[list[Entry], Pen], list[Entry]]


@dataclass(frozen=True)
class Plant:
    """A way to break one rule: of which life, and what is done to its entries."""

    rule: str
    flaw: str
    life: Callable[[Pen], Iterator[Group]]
    breaks: Break
    keeps_numbers: bool = False
    """Whether the sequences are what is broken."""


def at(entries: list[Entry], kind: str, n: int = 0) -> int:
    return [position for position, entry in enumerate(entries) if entry.kind == kind][n]


def without(kind: str) -> Break:
    return lambda found, _pen: [entry for entry in found if entry.kind != kind]


def again(kind: str, n: int = 0) -> Break:
    """Write an entry twice."""

    def double(found: list[Entry], _pen: Pen) -> list[Entry]:
        position = at(found, kind, n)
        return [*found[: position + 1], found[position], *found[position + 1 :]]

    return double


def moved(kind: str, before: str) -> Break:
    """Write an entry before the first one of another kind."""

    def move(found: list[Entry], _pen: Pen) -> list[Entry]:
        entry = found[at(found, kind)]
        rest = [one for one in found if one is not entry]
        position = at(rest, before)
        return [*rest[:position], entry, *rest[position:]]

    return move


def after(kind: str, *group: Step) -> Break:
    """Write more entries after the first one of a kind."""

    def insert(found: list[Entry], _pen: Pen) -> list[Entry]:
        position = at(found, kind) + 1
        return [*found[:position], *written(found[0].audit, list(group)), *found[position:]]

    return insert


def changed(kind: str, n: int = 0, **values: Any) -> Break:
    """Change an entry; values of its detail by `detail_` and their key."""

    def change(found: list[Entry], _pen: Pen) -> list[Entry]:
        position = at(found, kind, n)
        told = {key.removeprefix("detail_"): value for key, value in values.items() if key.startswith("detail_")}
        own = {key: value for key, value in values.items() if not key.startswith("detail_")}
        fresh = replace(found[position], detail={**found[position].detail, **told}, **own)
        return [*found[:position], fresh, *found[position + 1 :]]

    return change


def twin(kind: str) -> Break:
    """Write an entry for a second audit, as its own life's first or second entry."""

    def other(found: list[Entry], pen: Pen) -> list[Entry]:
        name = pen.name()
        first = written(name, pen.submitted())
        copied = replace(found[at(found, kind)], audit=name)
        return [*found, *([copied] if kind == "submitted" else [*first, copied])]

    return other


def cut(found: list[Entry], _pen: Pen) -> list[Entry]:
    """Lose an entry of an audit, whose numbers stay."""
    position = at(found, "published")
    return [*found[:position], *found[position + 1 :]]


def doubled_number(found: list[Entry], _pen: Pen) -> list[Entry]:
    position = at(found, "published")
    return [*found[: position + 1], *(replace(one, sequence=one.sequence - 1) for one in found[position + 1 :])]


def lost_once(pen: Pen) -> Iterator[Group]:
    """A worker dies, the next one finishes."""
    yield pen.submitted()
    yield REGISTERED
    yield [("leased", "whole", 1, {})]
    yield [("lease_expired", "whole", 1, {}), ("ended", "whole", 1, {"class": "WORKER_LOST"})]
    yield [("leased", "whole", 2, {})]
    yield from pen.finish("whole", 2)


def killed(pen: Pen) -> Iterator[Group]:
    """Cancelled while its cell runs, which is killed."""
    yield pen.submitted()
    yield REGISTERED
    yield [("leased", "whole", 1, {})]
    yield [("cancel_requested", "", 0, {})]
    yield [("kill_confirmed", "whole", 1, {}), ("ended", "whole", 1, {"class": "CANCELLED"}), ("cancelled", "", 0, {})]
    yield VOID


def struck_out(pen: Pen) -> Iterator[Group]:
    """Three strikes, and an attempt after them."""
    yield pen.submitted()
    yield REGISTERED
    for token in (1, 2, 3):
        yield [("leased", "whole", token, {})]
        yield [("lease_expired", "whole", token, {}), ("ended", "whole", token, {"class": "WORKER_LOST"})]
    yield [("leased", "whole", 4, {})]
    yield from pen.finish("whole", 4)


def unstored(found: list[Entry], pen: Pen) -> list[Entry]:
    del pen.blobs[found[at(found, "finalised")].detail["result_sha256"]]
    return found


def rotten(found: list[Entry], pen: Pen) -> list[Entry]:
    digest = found[at(found, "sealed")].detail["files"][0]
    pen.blobs[digest] = pen.blobs[digest][:-1] + bytes([pen.blobs[digest][-1] ^ 1])
    return found


def same(found: list[Entry], _pen: Pen) -> list[Entry]:
    return found


def early_combine(found: list[Entry], _pen: Pen) -> list[Entry]:
    """The last shard's end is written after the combine's lease."""
    combine = at(found, "leased", -1)
    late = [
        one
        for one in found[:combine]
        if one.job == found[combine - 1].job and one.kind in ("ended", "finalised", "shard_dead")
    ]
    late = late[-2:]
    return [*(one for one in found[:combine] if one not in late), found[combine], *late, *found[combine + 1 :]]


def zombie_result(found: list[Entry], _pen: Pen) -> list[Entry]:
    position = at(found, "leased", 1) + 1
    return [*found[:position], replace(found[at(found, "finalised")], token=1), *found[position:]]


def used_up(found: list[Entry], pen: Pen) -> list[Entry]:
    for _ in range(found[at(found, "approval_used")].detail["max_runs"]):
        found = twin("approval_used")(found, pen)
    return found


def shard_twice(found: list[Entry], _pen: Pen) -> list[Entry]:
    position = next(n for n, one in enumerate(found) if "shard" in one.detail)
    return [*found[: position + 1], found[position], *found[position + 1 :]]


PLANTS: tuple[Plant, ...] = (
    Plant("J1", "two audits of one request", simple, twin("submitted")),
    Plant("J1", "submitted outside the transaction: its entry is lost", simple, without("submitted")),
    Plant("J2", "completed twice", simple, again("completed")),
    Plant("J2", "cancelled after it was completed", simple, after("completed", ("cancelled", "", 0, {}))),
    Plant("J3", "finalised twice", simple, again("finalised")),
    Plant("J3", "completed without a result", simple, without("finalised")),
    Plant("J4", "completed without a seal", simple, without("sealed")),
    Plant("J4", "sealed before it was finalised", simple, moved("sealed", "finalised")),
    Plant("J5", "the token does not rise", lost_once, changed("leased", 1, token=1)),
    Plant("J5", "leased again while it is leased", lost_once, without("ended")),
    Plant("J6", "a zombie ends an attempt that is over", lost_once, changed("ended", 1, token=1)),
    Plant("J6", "a zombie's result is stored", lost_once, zombie_result),
    Plant("J7", "an entry is missing", simple, cut, keeps_numbers=True),
    Plant("J7", "a number is used twice", simple, doubled_number, keeps_numbers=True),
    Plant("J8", "an attempt after three strikes", struck_out, same),
    Plant("J8", "more attempts than allowed", lost_once, changed("submitted", detail_attempts_max=1)),
    Plant("J9", "cancelled before the cell is dead", killed, moved("cancelled", "kill_confirmed")),
    Plant("J9", "cancelled, and nobody knows about the cell", killed, without("kill_confirmed")),
    Plant("J10", "an event is neither delivered nor dead", called_back, lambda found, _pen: found[:-1]),
    Plant("J10", "a delivery has another body", called_back, changed("delivery_owed", 1, detail_body_sha256="0" * 64)),
    Plant("J11", "a result is not stored", simple, unstored),
    Plant("J11", "a report's byte has changed", simple, rotten),
    Plant("J12", "combined before the last shard was over", sharded, early_combine),
    Plant("J12", "a shard is counted twice", sharded, shard_twice),
    Plant("J13", "two audits of one fire", called_back, twin("fired")),
    Plant("J13", "a fire is written twice", called_back, again("fired")),
    Plant("J14", "an approval is used once more than allowed", called_back, used_up),
    Plant("J14", "an approval of no run is used", called_back, changed("approval_used", detail_max_runs=0)),
    Plant("J15", "leased before it is registered", simple, moved("leased", "registered")),
    Plant("J15", "a void leaf is missing", killed, without("leaf")),
)
"""Two for each rule."""


def broken(plant: Plant, seed: int) -> Planted:
    """Return a legal journal with one audit that breaks one rule."""
    pen = Pen(random.Random(f"broken {plant.flaw} {seed}"))
    around = legal(seed, lives=4)
    pen.blobs |= around.blobs
    victim = pen.name()
    found = [entry for group in plant.life(pen) for entry in written(victim, group)]
    if plant.keeps_numbers:
        hurt = plant.breaks(numbered(found), pen)
        tail = [replace(one, seq=around.entries[-1].seq + n) for n, one in enumerate(hurt, 1)]
        return Planted([*around.entries, *tail], pen.blobs)
    return Planted(numbered([*around.entries, *plant.breaks(found, pen)]), pen.blobs)


RULES: Mapping[str, int] = {f"J{n}": 2 for n in range(1, 16)}
