"""What peers lose when a process dies between two steps: a knock that nobody settled, a member that others wait for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from service.scheduler import effects, reconciler
from service.scheduler.effects import PublishEffect
from service.scheduler.reconciler import Reconciler
from service.scheduler.relay import Relay
from service.store import shards as stored_shards
from service.store.outbox import owed
from service.store.shards import combine_id, shard_id
from service.store.tables import audit, result
from tests.service.plants.dying import (
    KINDS,
    Dies,
    consistent,
    dies_after,
    dies_before,
    dies_in_the_cell,
    killed,
    on_disk,
    reap,
)
from tests.service.plants.matrix import tell
from tests.service.worker.scripted import House
from tests.service.worker.sharded import COUNT, SHARDED, corpus, jobs_of, works


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    with on_disk(request.param, tmp_path) as made:
        yield made


class Board:
    """A queue on disk: what was published stays, whoever dies."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._file.touch()

    def publish(self, job_id: str, _capability: str) -> None:
        with self._file.open("a", encoding="utf-8") as out:
            out.write(f"{job_id}\n")

    def depth(self, _capability: str) -> int | None:
        return len(self.knocks())

    def knocks(self) -> list[str]:
        return self._file.read_text(encoding="utf-8").split()


def relays(place: House, board: Board) -> None:
    relay = Relay(place.store, {"publish": PublishEffect(place.store, board).publish})
    relay.step()
    relay.close()


def reconciles(place: House, board: Board) -> None:
    Reconciler(place.store, board, older_s=0).step()


Dispatcher = Callable[[House, Board], None]

DISPATCHERS: Mapping[str, tuple[Dispatcher, Dies, Any, str, int]] = {
    "relay before the knock": (relays, dies_before, Board, "publish", 1),
    "relay between knock and settle": (relays, dies_before, effects, "settle", 2),
    "relay after the commit": (relays, dies_after, effects, "settle", 1),
    "reconciler between knock and mark": (reconciles, dies_before, reconciler, "mark_published", 2),
}
"""Who dies, where, and how often the job is knocked for in all."""


@pytest.mark.parametrize("point", DISPATCHERS)
def test_dispatcher_crash_loses_nothing(
    place: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """A dispatcher that takes work off its list before another has it loses it; one that does not may give it twice."""
    dispatch, kill, module, step, knocks = DISPATCHERS[point]
    key, board = place.submit(), Board(tmp_path / "board")
    killed(place, kill, module, step, lambda house: dispatch(house, board))
    relays(place, board)  # the scheduler that is started again
    assert board.knocks() == [key] * knocks
    for knock in board.knocks():
        place.attempt(knock)
    with place.store.read() as connection:
        assert owed(connection, ("publish",)) == ()
    assert ended(place) == ("SIGNING", 1)
    assert len(place.cell.orders) == 1, "the job ran twice"
    assert_journal(place, leased=1, finalised=1)


MEMBERS: Mapping[str, tuple[Dies, str, int, list[str]]] = {
    "in its cell, before the others end": (dies_in_the_cell, "", 0, ["LEASED", "QUEUED"]),
    "in its cell, last of all": (dies_in_the_cell, "", COUNT - 1, ["LEASED", "QUEUED"]),
    "last of all, with its part unstored": (dies_before, "store_part", COUNT - 1, ["LEASED", "QUEUED"]),
    "last of all, after its commit": (dies_after, "store_part", COUNT - 1, ["DONE", "DONE"]),
}
"""Where the worker of shard 0 is killed, after how many others, and what its job is then and once it was reaped."""


@pytest.mark.parametrize("point", MEMBERS)
def test_join_survives_killed_member(place: House, point: str) -> None:
    """A join that counts ends of members waits for ever for one that was killed; or is made again by its second end."""
    kill, step, before, states = MEMBERS[point]
    place.bench = replace(place.bench, catalogue=SHARDED)
    place.cell.script = works()
    key = corpus(place)
    place.attempt(key)
    others = [shard_id(key, n) for n in range(1, COUNT)]
    for one in others[:before]:
        place.attempt(one)
    killed(place, kill, stored_shards, step, lambda house: house.attempt(shard_id(key, 0)))
    for one in others[before:]:
        place.attempt(one)
    seen = [jobs_of(place, key)["-s0"]]
    assert ("-c" in jobs_of(place, key)) == (seen == ["DONE"]), "joined without its member, or not at its last"
    reap(place.store)
    assert [*seen, jobs_of(place, key)["-s0"]] == states
    for one in (*others, *([shard_id(key, 0), combine_id(key)] * 2)):  # whatever a queue tells twice
        place.attempt(one)
    done = {"": "DONE", **{f"-s{n}": "DONE" for n in range(COUNT)}, "-c": "DONE"}
    assert (jobs_of(place, key), ended(place)) == (done, ("SIGNING", 1))
    ran = 2 + len(others) + (states[0] != "DONE")  # plan and join; the others' scans once; its own, unless it had ended
    assert len(place.cell.orders) == ran
    assert_journal(place, finalised=COUNT + 1, shards_inserted=1)


def ended(place: House) -> tuple[str, int]:
    """Return the audit's state, and how many results there are."""
    with place.store.read() as connection:
        state = connection.execute(select(audit.c.state)).scalar_one()
        return str(state), connection.execute(select(func.count()).select_from(result)).scalar_one()


def assert_journal(place: House, **wanted: int) -> None:
    """Hold the journal against its rules, and its counts against these."""
    counts = consistent(place.store, place.blobs)
    assert {kind: counts[kind] for kind in wanted} == wanted
    tell(place.store.dialect, Counter({"violations": 0, **counts}))
