"""Processes that die at a step of the store, the world that reaps them, and what the journal says of it."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.blobs import BlobStore, LocalBlobs
from service.rules.consistency import Checker
from service.scheduler.leases import BackOff, Reaper
from service.store.engine import Store, open_store
from service.store.journal import entries
from tests.service.store import postgres
from tests.service.store.planting import new_store
from tests.service.worker.scripted import House, house

KINDS = ("sqlite", pytest.param("postgresql", marks=pytest.mark.slow))
"""Every fault is done on both; a default run does them on one."""

Dies = Callable[[Any, str, House], None]
"""Arms a function of a module in a process that is to die of it."""


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def on_disk(kind: str, folder: Path) -> Iterator[House]:
    """A house whose blobs lie on disk, so that a process that dies leaves them; skips where there is no such store."""
    server = postgres.server() if kind == "postgresql" else None
    if kind == "postgresql" and server is None:
        pytest.skip(postgres.WITHOUT)
    store = open_store(server.migrated()) if server else new_store(folder)
    made = house(store, folder)
    blobs = LocalBlobs(folder / "blobs")
    yield House(store, blobs, made.cell, replace(made.bench, blobs=blobs))  # type: ignore[arg-type]
    store.close()


def consistent(store: Store, blobs: BlobStore | None = None) -> Counter[str]:
    """Hold a store's journal against its rules; return how many entries it has of each kind."""

    def stored(digest: str) -> bool:
        return blobs is None or blobs.size(digest) is not None

    checker = Checker(stored=stored if blobs else None)
    found = [one for entry in entries(store) for one in checker.feed(entry)]
    found += checker.close(live=True)
    assert not found
    return Counter(checker.counts)


def reap(store: Store) -> None:
    """Let a lease pass without a beat, and then the back-off."""
    clock = Clock()
    reaper, back_off = Reaper(store, lease_s=30, backoff_base_ms=10, clock=clock), BackOff(store, clock=clock)
    for step in (reaper.step, back_off.step):
        step()
        clock.now += 31
        step()


def killed(place: House, arm: Dies, module: Any, step: str, work: Callable[[House], object]) -> None:
    """Do a piece of work in a process of its own, which must die of it."""
    url = place.store._engine.url.render_as_string(hide_password=False)
    place.store.close()  # no connection is shared with the child
    child = os.fork()
    if not child:
        try:
            place.store = open_store(url)
            place.bench = replace(place.bench, store=place.store)
            arm(module, step, place)
            work(place)
        finally:
            os._exit(0)  # it should be dead by now
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def die(*_arguments: Any, **_named: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def dies_before(module: Any, name: str, place: House) -> None:
    setattr(module, name, die)


def dies_after(module: Any, name: str, place: House) -> None:
    """Die when the transaction round a step is committed."""
    step, begin = getattr(module, name), place.store.begin

    def noted(*arguments: Any, **named: Any) -> Any:
        made = step(*arguments, **named)
        place.store.begin = committed  # type: ignore[method-assign]
        return made

    def committed() -> Any:
        die()

    class Committed:
        def __enter__(self) -> Any:
            self._inner = begin()
            return self._inner.__enter__()

        def __exit__(self, *exception: Any) -> Any:
            swallowed = self._inner.__exit__(*exception)
            if place.store.begin is committed:
                die()
            return swallowed

    place.store.begin = Committed  # type: ignore[method-assign, assignment]
    setattr(module, name, noted)


def dies_in_the_cell(_module: Any, _name: str, place: House) -> None:
    place.cell.script = die
