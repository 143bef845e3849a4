"""From a submission's reply to its cell; an emptied broker; a storm of clients; the start of a whole server.

Run: `python -m benchmarks.service_queue [--only PART]`. Writes service_queue.json beside itself; a part that was not
run keeps its figures. The parts need SQLite and, but for polling, a redis-server.

reply_to_cell     the first cell begins when the audit's event says `ingesting`: events bear this host's clock, as the
                  client's does. A no-op round trip: a message for which a Celery worker of ours waits, and prints it.
emptied_broker    10,000 registered jobs wait and the broker has lost all: the reconciler at its own pace.
storm             100 connections, 10 submissions each, every one repeated under its request id until it is answered.
start             `assay-server dev` in a new folder, and again in the same one, against the imports alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import redis
from assay import AuditClient
from assay.api.v1 import audits_pb2, audits_pb2_grpc
from sqlalchemy import insert

from benchmarks.service_house import House, machine, prepare, quantile, write
from benchmarks.service_submit import request
from benchmarks.service_watch import ENDED, Dev, _channel, sent_model
from service.queue.celery_queue import CeleryKnocker
from service.scheduler.reconciler import RECONCILE_S, Reconciler
from service.store.engine import Store, open_store
from service.store.migrations import migrate
from service.store.tables import audit, job
from tests.service.queue.conftest import RedisServer
from tests.service.queue.test_celery_queue import Child

TABLE = Path(__file__).with_suffix(".json")
AUDITS, WARM = 15, 2
"""Submissions of one dispatcher, one after the other, and those before that count for nothing."""
NAMED = tuple(audits_pb2.Audit.State.Name(one).removeprefix("STATE_") for one in ENDED)
ROUND_TRIPS = 9
IDLE_S = 2.2
"""Without its event loop a full Celery worker looks every 2 s whether a slot is free; then it waits at the broker."""
ROWS = 10_000
CLIENTS, EACH = 100, 10
STARTS = 5


def round_trips_ms(folder: Path) -> tuple[float, float]:
    """Return the median time from a message's publishing to its worker's word: of one that waits, and of a full one."""
    server = RedisServer(folder)
    server.start()
    child, knocker = Child(server.url), CeleryKnocker(server.url)
    times: dict[float, list[float]] = {IDLE_S: [], 0.0: []}
    for number in range(ROUND_TRIPS + 1):
        for pause, taken in times.items():
            time.sleep(pause)
            began = time.perf_counter()
            knocker.publish(f"{number:032x}", "cpu")
            child.line()
            taken.append(1000 * (time.perf_counter() - began))
    knocker.publish("stop", "cpu")
    child.end()
    knocker.close()
    server.kill()
    return median(times[IDLE_S][1:]), median(times[0.0][1:])


def dispatched(folder: Path, *more: str) -> dict[str, Any]:
    """Submit one audit after the other to a whole server; return what lay between reply and cell."""
    folder.mkdir()
    chance = random.Random(1)
    dev = Dev.start(folder, *more, script="ok\n")
    replied: dict[str, float] = {}
    try:
        with AuditClient.from_config(dev.data / "client.json") as client:
            manifest = sent_model(client, folder)
            for _ in range(WARM + AUDITS):
                message = request(manifest)
                name = client._calls.audits.SubmitAudit(message).name
                replied[name.partition("/")[2]] = time.time() * 1000
                while client.get(name).state not in NAMED:
                    time.sleep(0.1)
                time.sleep(chance.uniform(0, 0.6))  # at any moment of whoever polls
    finally:
        dev.stop()
    with closing(sqlite3.connect(dev.data / "assay.sqlite")) as connection:
        rows = connection.execute("SELECT audit, kind, detail_json, occurred_at FROM event ORDER BY audit, sequence")
        at: dict[tuple[str, str], int] = {}
        for key, kind, detail, moment in rows:
            at.setdefault((key, json.loads(detail).get("phase", kind)), moment)
    names = list(replied)[WARM:]
    return {
        f"{told}_ms": _quantiles([at[name, kind] - replied[name] for name in names])
        for told, kind in (("registered", "registered"), ("leased", "attempt_started"), ("cell", "ingesting"))
    }


def _quantiles(values: list[float]) -> dict[str, float]:
    return {f"p{share}": round(quantile(values, share / 100), 1) for share in (50, 90)}


def reply_to_cell(folder: Path) -> dict[str, Any]:
    trip_ms, next_ms = round_trips_ms(folder)
    celery, polling = dispatched(folder / "celery"), dispatched(folder / "polling", "--no-redis")
    return {
        "audits": AUDITS,
        "celery_round_trip_ms": round(trip_ms, 2),
        "celery_next_of_a_full_worker_ms": round(next_ms, 1),
        "celery": {**celery, "target_cell_p50_ms_at_most": round(250 + 4 * trip_ms, 1)},
        "polling": {**polling, "target_cell_p50_ms_at_most": 900},
    }


def plant(store: Store, count: int) -> None:
    """Insert audits that are registered and wait, and were knocked for long ago."""
    keys = [f"{number:032x}" for number in range(count)]
    common = {
        "tenant": "t", "principal": "p", "model_sha256": "ab" * 32, "checks": "scripted", "request_sha256": "cd" * 32,
        "submission": b"", "state": "QUEUED", "attempts_max": 8, "last_sequence": 2, "registered_at": 1,
    }  # fmt: skip
    whole = {"kind": "whole", "capability": "cpu", "state": "QUEUED", "published_at": 1}
    with store.begin() as connection:
        connection.execute(insert(audit), [{"id": key, "submitted_at": n, **common} for n, key in enumerate(keys)])
        connection.execute(insert(job), [{"id": key, "audit": key, **whole} for key in keys])


def emptied_broker(folder: Path) -> dict[str, Any]:
    url = f"sqlite:///{folder}/assay.db"
    migrate(url)
    store, server = open_store(url), RedisServer(folder)
    plant(store, ROWS)
    server.start()
    knocker = CeleryKnocker(server.url)
    reconciler, depths, over = Reconciler(store, knocker), [0], threading.Event()
    looker = threading.Thread(target=_look, args=(server.socket, depths, over))
    looker.start()
    began, worked = time.perf_counter(), time.thread_time()
    reconciler.step()
    took, cpu = time.perf_counter() - began, time.thread_time() - worked
    published = knocker.depth("cpu")
    for _ in range(2):  # nobody takes a message: now the queue must not grow
        time.sleep(RECONCILE_S)
        reconciler.step()
    over.set()
    looker.join()
    knocker.close()
    server.kill()
    store.close()
    return {
        "rows": ROWS,
        "published": published,
        "seconds": round(took, 1),
        "cpu_seconds": round(cpu, 1),
        "seconds_with_the_wait_for_a_step": round(took + RECONCILE_S, 1),
        "target_seconds_at_most": 30,
        "deepest_queue": max(depths),
    }


def _look(socket: Path, depths: list[int], over: threading.Event) -> None:
    with redis.Redis(unix_socket_path=str(socket)) as client:
        while not over.wait(0.02):
            found: Any = client.llen("assay:cpu")
            depths.append(int(found))


async def _client(channel: grpc.aio.Channel, manifest: str, seen: Counter[str], times: list[float]) -> list[str]:
    stub: Any = audits_pb2_grpc.AuditsStub(channel)
    asked = []
    for _ in range(EACH):
        message = request(manifest)
        while True:
            began = time.perf_counter()
            try:
                await stub.SubmitAudit(message, timeout=30)
            except grpc.RpcError as error:
                seen[error.code().name] += 1
                await asyncio.sleep(0.2)
            else:
                times.append(time.perf_counter() - began)
                asked.append(message.request_id)
                break
    return asked


async def _storm(house: House, manifest: str) -> tuple[list[str], Counter[str], list[float], float]:
    parts = [(house.folder / "pki" / name).read_bytes() for name in ("ca.pem", "load0.key", "load0.pem")]
    channels = [_channel(f"127.0.0.1:{house.port}", parts) for _ in range(CLIENTS)]
    await asyncio.gather(*(channel.channel_ready() for channel in channels))
    seen: Counter[str] = Counter()
    times: list[float] = []
    began = time.perf_counter()
    asked = await asyncio.gather(*(_client(channel, manifest, seen, times) for channel in channels))
    took = time.perf_counter() - began
    for channel in channels:
        await channel.close()
    return [one for some in asked for one in some], seen, times, took


def storm(folder: Path) -> dict[str, Any]:
    prepare(folder / "storm", ("load0",))
    house = House("api", folder / "storm")
    house.start()
    with house.client("load0") as client:
        manifest = sent_model(client, folder / "storm")
    asked, seen, times, took = asyncio.run(_storm(house, manifest))
    house.end()
    with closing(sqlite3.connect(house.folder / "assay.db")) as connection:
        question = (
            "SELECT i.request_id FROM idempotency i JOIN audit a ON a.id = i.resource JOIN job j ON j.audit = a.id"
        )
        stored = {row[0] for row in connection.execute(question)}
        (audits,) = connection.execute("SELECT count(*) FROM audit").fetchone()
    calls = len(times) + seen.total()
    return {
        "clients": CLIENTS,
        "submissions": len(asked),
        "lost": len(set(asked) - stored),
        "twice": audits - len(set(asked)),
        "errors": dict(seen),
        "unavailable_share": round(seen["UNAVAILABLE"] / calls, 4),
        "target": "0 lost, 0 INTERNAL, UNAVAILABLE at most 0.01",
        "submissions_per_s": round(len(asked) / took, 1),
        "submit_ms": {f"p{share}": round(1000 * quantile(times, share / 100), 1) for share in (50, 99)},
    }


def start(folder: Path) -> dict[str, Any]:
    fresh: list[float] = []
    again: list[float] = []
    imports: list[float] = []
    importing = [sys.executable, "-c", "import grpc, celery, sqlalchemy"]
    for number in range(STARTS):
        imports.append(_timed(lambda: subprocess.run(importing, check=True)))
        home = folder / f"start{number}"
        home.mkdir()
        for taken in (fresh, again):
            began = time.perf_counter()
            dev = Dev.start(home)
            taken.append(time.perf_counter() - began)
            dev.stop()
    return {
        "imports_s": round(median(imports), 2),
        "first_start_s": round(median(fresh), 2),
        "later_start_s": round(median(again), 2),
        "first_ratio": round(median(a / b for a, b in zip(fresh, imports, strict=True)), 2),
        "later_ratio": round(median(a / b for a, b in zip(again, imports, strict=True)), 2),
        "target_ratio_at_most": 8,
    }


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "reply_to_cell": reply_to_cell,
    "emptied_broker": emptied_broker,
    "storm": storm,
    "start": start,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append")
    asked = parser.parse_args().only or list(PARTS)
    found = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    for name in asked:
        with tempfile.TemporaryDirectory() as folder:
            before = machine()
            found[name] = {**PARTS[name](Path(folder)), **{key: before[key] for key in ("load_1_5_15", "niceness")}}
    write(TABLE, {name: found[name] for name in PARTS if name in found})


if __name__ == "__main__":
    main()
