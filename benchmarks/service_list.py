"""Lists and ticks at depth: the last page of 100,000 audits against the first, ticks with and without finished jobs.

Ratios within one run, medians; written to service_list.json. On PostgreSQL too where a server is installed.

    python -m benchmarks.service_list [AUDITS]
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import insert, text

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


def median_ms(work: Callable[[], object]) -> float:
    """Return the median of the rounds, after one that warms."""
    work()
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1000


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


def measure(url: str, count: int) -> dict[str, float]:
    """Return times in milliseconds, and the two ratios."""
    migrate(url)
    store = open_store(url)
    tick = ticker(store)
    none = median_ms(tick)
    plant(store, count)
    deep = Position(1_000_000 + PAGE, f"{PAGE:032x}")
    assert page(store, None) == page(store, deep) == PAGE
    first, last = median_ms(lambda: page(store, None)), median_ms(lambda: page(store, deep))
    some = median_ms(tick)
    store.close()
    told = {"first_page_ms": first, "deep_page_ms": last, "page": last / first}
    told |= {"tick_none_ms": none, "tick_finished_ms": some, "tick": some / none}
    return {name: round(value, 3) for name, value in told.items()}


def main() -> int:
    """Measure, write down, and exit 1 where a bound is missed."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        found = {"sqlite": measure(f"sqlite:///{folder}/assay.db", count)}
    server = postgres.server()
    if server is not None:
        found["postgresql"] = measure(server.create(), count)
    told = {"audits": count, "rounds": ROUNDS, "bounds": BOUNDS, "machine": platform.machine(), "measured": found}
    Path(__file__).with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(told, indent=1))
    return int(any(one[name] > bound for one in found.values() for name, bound in BOUNDS.items()))


if __name__ == "__main__":
    sys.exit(main())
