"""Lists and ticks at depth: the last page of 100,000 audits against the first, ticks with and without finished jobs.

What is compared takes turns, so that both meet the same machine; the finished jobs lie in a database beside an empty
one. Medians; written to service_list.json. On PostgreSQL too where a server is installed.

    python -m benchmarks.service_list [AUDITS]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import insert, text

from benchmarks.service_house import write
from service.queue.memory import MemoryQueue
from service.rules.access import Reach, Scope
from service.rules.pages import AuditFilter, Position
from service.scheduler.leases import Reaper
from service.scheduler.reconciler import Reconciler
from service.store import listings, views
from service.store.engine import Store, open_store
from service.store.migrations import migrate
from service.store.tables import audit, job
from tests.service.store import postgres

ROUNDS = 101
"""Odd, so that the median is one that was measured."""

PAGE = 50

SCOPE = Scope(reach=Reach.OWN, tenant="t")

BOUNDS = {"page": 1.5, "tick": 2.0}
"""Specs: service, section 21."""


def median_ms(*works: Callable[[], object]) -> list[float]:
    """Return the median of each over the rounds, in which they take turns, after one that warms."""
    times: list[list[float]] = [[] for _ in works]
    for number in range(ROUNDS + 1):
        for work, taken in zip(works, times, strict=True):
            begun = time.perf_counter()
            work()
            if number:
                taken.append(time.perf_counter() - begun)
    return [statistics.median(taken) * 1000 for taken in times]


def plant(store: Store, count: int) -> None:
    """Insert finished audits, one millisecond apart."""
    for start in range(0, count, 2000):
        keys = [(n, f"{n:032x}") for n in range(start, min(start + 2000, count))]
        with store.begin() as connection:
            rows = [
                {
                    "id": key, "tenant": "t", "principal": "p", "model_sha256": "ab" * 32, "checks": "scripted",
                    "request_sha256": "cd" * 32, "submission": b"", "state": "COMPLETED", "attempts_max": 8,
                    "last_sequence": 9, "submitted_at": 1_000_000 + n, "registered_at": 1_000_000 + n,
                }
                for n, key in keys
            ]  # fmt: skip
            connection.execute(insert(audit), rows)
            jobs = [{"id": key, "audit": key, "kind": "whole", "capability": "cpu", "state": "DONE"} for _, key in keys]
            connection.execute(insert(job), jobs)
    with store.begin() as connection:
        connection.execute(text("ANALYZE"))


def page(store: Store, after: Position | None) -> int:
    """Read a page as ListAudits does."""
    with store.read() as connection:
        found = listings.audit_page(connection, SCOPE, AuditFilter(), after, PAGE)
        return len(views.views(connection, [one.id for one in found]))


def ticker(store: Store) -> Callable[[], None]:
    """Return one tick of reaper and reconciler."""
    reaper, reconciler = Reaper(store, lease_s=30.0), Reconciler(store, MemoryQueue())

    def tick() -> None:
        reaper.step()
        reconciler.step()

    return tick


def measure(url: str, empty_url: str, count: int) -> dict[str, float]:
    """Return times in milliseconds, and the two ratios."""
    for one in (url, empty_url):
        migrate(one)
    store, empty = open_store(url), open_store(empty_url)
    plant(store, count)
    deep = Position(1_000_000 + PAGE, f"{PAGE:032x}")
    assert page(store, None) == page(store, deep) == PAGE
    first, last = median_ms(lambda: page(store, None), lambda: page(store, deep))
    none, some = median_ms(ticker(empty), ticker(store))
    store.close()
    empty.close()
    told = {"first_page_ms": first, "deep_page_ms": last, "page": last / first}
    told |= {"tick_none_ms": none, "tick_finished_ms": some, "tick": some / none}
    return {name: round(value, 3) for name, value in told.items()}


def main() -> int:
    """Measure, write down, and exit 1 where a bound is missed."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        found = {"sqlite": measure(f"sqlite:///{folder}/assay.db", f"sqlite:///{folder}/empty.db", count)}
    server = postgres.server()
    if server is not None:
        found["postgresql"] = measure(server.create(), server.create(), count)
    write(Path(__file__).with_suffix(".json"), {"audits": count, "rounds": ROUNDS, "bounds": BOUNDS, "measured": found})
    return int(any(one[name] > bound for one in found.values() for name, bound in BOUNDS.items()))


if __name__ == "__main__":
    sys.exit(main())
