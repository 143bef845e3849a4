"""Legal journals from a seed: lives of audits whose transactions interleave.

The lives are written from the table of states (specs: service, section 8), not from the checker: a legal journal is
what a correct service would have written.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
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


def rejected(pen: Pen) -> Iterator[Group]:
    """Its record is one that no signer signs."""
    yield pen.submitted()
    yield REGISTERED
    yield [("leased", "whole", 1, {})]
    yield next(pen.finish("whole", 1))
    yield [("failed", "", 0, {"reason": "RECORD_REJECTED"})]
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


def carried_over(pen: Pen) -> Iterator[Group]:
    """Begun before there was a journal."""
    yield [("carried_over", "", 0, {})]
    yield pen.loses("whole", 3)
    yield [("leased", "whole", 4, {})]
    yield from pen.finish("whole", 4)


LIVES: tuple[Callable[[Pen], Iterator[Group]], ...] = (
    simple,
    stubborn,
    cancelled,
    cancelled_early,
    rejected,
    sharded,
    called_back,
    carried_over,
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
