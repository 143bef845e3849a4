"""Thirty journals from a seed that each break one rule, two for every rule."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from service.rules.journal import Entry
from tests.service.plants.lives import (
    REGISTERED,
    VOID,
    Group,
    Pen,
    Planted,
    Step,
    called_back,
    legal,
    numbered,
    sharded,
    simple,
    written,
)

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


def zombie_end(found: list[Entry], _pen: Pen) -> list[Entry]:
    position = at(found, "leased", 1) + 1
    return [*found[:position], found[at(found, "ended")], *found[position:]]


def first_end_lost(found: list[Entry], _pen: Pen) -> list[Entry]:
    lost = at(found, "ended")
    return [*found[:lost], *found[lost + 1 :]]


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
    Plant("J5", "leased again while it is leased", lost_once, first_end_lost),
    Plant("J6", "a zombie ends an attempt that is over", lost_once, zombie_end),
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
