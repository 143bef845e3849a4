"""SubmitAudit against a bare unary call that makes one bare commit; and again with 100,000 audits in the store.

Run: `python -m benchmarks.service_submit`. Writes service_submit.json beside itself. Both servers are processes behind
mutual TLS on loopback; the bare one is `grpc.aio` and SQLite with synchronous=FULL. Calls alternate, so that both meet
the same machine; medians of each round, and the median of the rounds.
"""

from __future__ import annotations

import argparse
import secrets
import sqlite3
import tempfile
import time
import uuid
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

from assay.api.v1 import audits_pb2

from benchmarks.service_house import House, prepare, quantile, write
from benchmarks.service_watch import sent_model

TABLE = Path(__file__).with_suffix(".json")
ROUNDS, CALLS, WARM = 5, 60, 10
OLD = 100_000
"""Audits that have ended."""


def request(manifest: str) -> Any:
    asked = audits_pb2.Audit(
        model=f"models/{manifest}",
        checks=[audits_pb2.CheckRequest(check="checks/clusterability")],
        nonce=secrets.token_bytes(32),
    )
    return audits_pb2.SubmitAuditRequest(request_id=str(uuid.uuid4()), audit=asked)


def timed(api: House, echo: House, manifest: str, rounds: int, calls: int) -> dict[str, Any]:
    ratios, ours, bare = [], [], []
    with api.client("load0") as client, echo.client("load0") as other:
        stubs = {"ours": client._calls.audits, "bare": other._calls.audits}
        for number in range(rounds + 1):
            times: dict[str, list[float]] = {name: [] for name in stubs}
            for _ in range(calls if number else WARM):
                for name, stub in stubs.items():
                    message = request(manifest)
                    began = time.perf_counter()
                    stub.SubmitAudit(message)
                    times[name].append(time.perf_counter() - began)
            if number:
                ours.append(median(times["ours"]))
                bare.append(median(times["bare"]))
                ratios.append(ours[-1] / bare[-1])
    return {
        "p50_ms": [round(1000 * one, 2) for one in ours],
        "bare_p50_ms": [round(1000 * one, 2) for one in bare],
        "median_p50_ms": round(1000 * median(ours), 2),
        "ratio": round(median(ratios), 2),
        "worst_round": round(quantile(ratios, 1.0), 2),
    }


def age(file: Path, count: int) -> None:
    """Copy one audit, ended, with every row that its submission left, so many times."""
    with closing(sqlite3.connect(file, isolation_level=None, timeout=30)) as connection:
        connection.execute("PRAGMA busy_timeout=30000")
        connection.execute("BEGIN IMMEDIATE")
        (first,) = connection.execute("SELECT id FROM audit LIMIT 1").fetchone()
        connection.execute(
            "CREATE TEMP TABLE fresh AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " SELECT i, lower(hex(randomblob(16))) AS id FROM n",
            (count,),
        )
        _copy(connection, "audit", first, "id", {"id": "fresh.id", "state": "'COMPLETED'"})
        _copy(connection, "job", first, "audit", {"id": "fresh.id", "audit": "fresh.id", "state": "'DONE'"})
        _copy(connection, "journal", first, "audit", {"seq": None, "audit": "fresh.id"})
        chained = {"seq": None, "object": "'audits/' || fresh.id", "sha256": "fresh.id || fresh.id"}
        _copy(connection, "access_log", f"audits/{first}", "object", chained)
        _copy(connection, "event", first, "audit", {"audit": "fresh.id"})
        _copy(connection, "idempotency", first, "resource", {"request_id": "fresh.id", "resource": "fresh.id"})
        connection.execute("COMMIT")
        connection.execute("ANALYZE")


def _copy(connection: sqlite3.Connection, table: str, key: str, where: str, other: dict[str, str | None]) -> None:
    """Copy a table's rows of one audit for each fresh one; a column without a value is left to the database."""
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    kept = [name for name in columns if other.get(name, "") is not None]
    values = ", ".join(str(other.get(name) or f"{table}.{name}") for name in kept)
    named = ", ".join(kept)
    made = connection.execute(
        f"INSERT INTO {table} ({named}) SELECT {values} FROM fresh, {table} WHERE {table}.{where} = ?",
        (key,),
    )
    print(f"{table}: {made.rowcount} rows", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--calls", type=int, default=CALLS)
    parser.add_argument("--old", type=int, default=OLD)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, ("load0",))
        api, echo = House("api", folder), House("echo", folder)
        api.start()
        echo.start()
        with api.client("load0") as client:
            manifest = sent_model(client, folder)
        young = timed(api, echo, manifest, asked.rounds, asked.calls)
        age(folder / "assay.db", asked.old)
        old = timed(api, echo, manifest, asked.rounds, asked.calls)
        api.end()
        echo.end()
        found = {
            "calls_a_round": asked.calls,
            "empty_store": {**young, "target_ratio_at_most": 3},
            "old_audits": asked.old,
            "old_store": old,
            "old_over_empty": round(old["ratio"] / young["ratio"], 2),
            "target_old_over_empty_at_most": 1.5,
        }
        write(TABLE, found)


if __name__ == "__main__":
    main()
