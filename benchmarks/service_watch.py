"""Load on loopback: many watch, some submit, the API is killed in the middle; and 500 who watch one audit.

Run: `python -m benchmarks.service_watch`. Writes service_watch.json beside itself. A whole `assay-server dev` runs with
scripted cells and quotas lifted. Every watcher takes up its stream after the last sequence that it saw; at the end each
must have been told 1, 2, 3 up to the audit's last sequence, each once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import subprocess
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from assay import AuditClient
from assay.api.v1 import audits_pb2, audits_pb2_grpc
from sqlalchemy import event

from benchmarks.service_house import BIN, House, prepare, quantile, write
from benchmarks.service_upload import model

TABLE = Path(__file__).with_suffix(".json")
PER_CHANNEL = 25
"""Streams of one connection; the server allows 32."""
ENDED = (audits_pb2.Audit.STATE_COMPLETED, audits_pb2.Audit.STATE_FAILED, audits_pb2.Audit.STATE_CANCELLED)
LAST_S = 400.0


@dataclass
class Dev:
    """A running `assay-server dev`."""

    data: Path
    process: subprocess.Popen[str]

    @classmethod
    def start(cls, folder: Path, *more: str, script: str = "slow 0.2\nok\nslow 0.5\nrefuse\n") -> Dev:
        """Start one, with more words on its command line; return when it serves."""
        (folder / "script").write_text(script)
        data = folder / "data"
        data.mkdir(exist_ok=True)
        asked = ["--data", str(data), "--slots", "4", "--lift-caps", "--cell", f"script={folder / 'script'}", *more]
        with (folder / "server.err").open("w") as errors:
            process = subprocess.Popen(
                [str(BIN / "assay-server"), "dev", *asked], stdout=subprocess.PIPE, stderr=errors, text=True
            )
        assert process.stdout is not None
        if not process.stdout.readline():
            raise SystemExit(f"the server did not start: {(folder / 'server.err').read_text()}")
        return cls(data, process)

    def kill_api(self) -> None:
        os.kill(json.loads((self.data / "run" / "children.json").read_text())["api"], signal.SIGKILL)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def channel(self) -> grpc.aio.Channel:
        told = json.loads((self.data / "client.json").read_text())
        parts = [Path(told[name]).read_bytes() for name in ("ca", "key", "certificate")]
        return _channel(told["address"], parts)


def _channel(address: str, parts: list[bytes]) -> grpc.aio.Channel:
    options = [("grpc.max_reconnect_backoff_ms", 1000), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(*parts), options=options)


@dataclass
class Load:
    """What clients saw."""

    get_s: list[float] = field(default_factory=list)
    submit_s: list[float] = field(default_factory=list)
    unavailable: int = 0
    breaks: int = 0
    told: list[tuple[str, list[int]]] = field(default_factory=list)
    ended: int = 0


async def submitter(stub: Any, manifest: str, load: Load, names: asyncio.Queue[str], watched_by: int) -> None:
    """Submit one audit, then read it twice a second until it has ended."""
    asked = audits_pb2.Audit(
        model=f"models/{manifest}",
        checks=[audits_pb2.CheckRequest(check="checks/clusterability")],
        nonce=secrets.token_bytes(32),
    )
    request = audits_pb2.SubmitAuditRequest(request_id=str(uuid.uuid4()), audit=asked)
    name = (await _timed(stub.SubmitAudit, request, load.submit_s, load)).name
    for _ in range(watched_by):
        names.put_nowait(name)
    until = time.monotonic() + LAST_S
    while time.monotonic() < until:
        found = await _timed(stub.GetAudit, audits_pb2.GetAuditRequest(name=name), load.get_s, load)
        if found.state in ENDED:
            load.ended += 1
            return
        await asyncio.sleep(0.5)
    raise SystemExit(f"{name} did not end within {LAST_S} s")


async def _timed(method: Any, request: Any, times: list[float], load: Load) -> Any:
    while True:
        began = time.perf_counter()
        try:
            answer = await method(request, timeout=30)
            times.append(time.perf_counter() - began)
            return answer
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            load.unavailable += 1
            await asyncio.sleep(0.2)


async def watcher(stub: Any, load: Load, names: asyncio.Queue[str]) -> None:
    """Follow one audit to its end over any number of breaks."""
    name = await names.get()
    seen: list[int] = []
    load.told.append((name, seen))
    while True:
        try:
            call = stub.WatchAudit(audits_pb2.WatchAuditRequest(name=name, after_sequence=seen[-1] if seen else 0))
            async for message in call:
                if message.sequence:
                    seen.append(message.sequence)
            return
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            load.breaks += 1
            await asyncio.sleep(0.2)


async def loaded(dev: Dev, manifest: str, watchers: int, submitters: int) -> dict[str, Any]:
    load, names = Load(), asyncio.Queue[str]()
    channels = [dev.channel() for _ in range((watchers + submitters) // PER_CHANNEL + 2)]
    stubs = [audits_pb2_grpc.AuditsStub(channel) for channel in channels]
    half = (watchers + PER_CHANNEL - 1) // PER_CHANNEL
    tasks = [
        asyncio.create_task(submitter(stubs[half + at // PER_CHANNEL], manifest, load, names, watchers // submitters))
        for at in range(submitters)
    ]
    tasks += [asyncio.create_task(watcher(stubs[at // PER_CHANNEL], load, names)) for at in range(watchers)]
    began = time.perf_counter()
    while load.ended < submitters // 3:
        await asyncio.sleep(0.05)
        for task in tasks:
            if task.done():
                task.result()
    dev.kill_api()
    killed = time.perf_counter() - began
    await asyncio.gather(*tasks)
    took = time.perf_counter() - began
    last: dict[str, int] = {}
    for name in {name for name, _ in load.told}:
        last[name] = (await stubs[-1].GetAudit(audits_pb2.GetAuditRequest(name=name))).last_sequence
    whole = sum(seen == list(range(1, last[name] + 1)) for name, seen in load.told)
    for channel in channels:
        await channel.close()
    return {
        "watchers": watchers,
        "submitters": submitters,
        "seconds": round(took, 1),
        "api_killed_after_s": round(killed, 1),
        "streams_broken": load.breaks,
        "unary_unavailable": load.unavailable,
        "watchers_told_every_event_once": whole,
        "events_told": sum(len(seen) for _, seen in load.told),
        "get_audit": {"calls": len(load.get_s), **_quantiles(load.get_s)},
        "submit_audit": {"calls": len(load.submit_s), **_quantiles(load.submit_s)},
    }


def _quantiles(times: list[float]) -> dict[str, float]:
    return {f"p{share}_ms": round(1000 * quantile(times, share / 100), 1) for share in (50, 99)}


async def queries(house: House, audit: str, watchers: int, seconds: float) -> float:
    """Count the statements a second that watchers of one audit cost, inside this process."""
    from service.api.backing import ApiSettings, Backing, Limits, TlsFiles
    from service.api.watch import Watches
    from service.store.engine import open_store

    nowhere = Path(os.devnull)
    settings = ApiSettings(
        database_url=f"sqlite:///{house.folder}/assay.db",
        blob_dir=house.folder / "blobs",
        upload_dir=house.folder / "uploads",
        address="",
        tls=TlsFiles(ca=nowhere, certificate=nowhere, key=nowhere),
        page_key=b"k" * 32,
        reflection=False,
        isolation_file=nowhere,
        signer_profile="development",
        limits=Limits(watchers_per_tenant=10**6),
        ready=lambda _address: None,
    )
    store = open_store(settings.database_url, busy_ms=3000)
    unused: Any = None
    backing = Backing(settings=settings, store=store, blobs=unused, catalogue=unused, draining=asyncio.Event())
    watches = Watches(backing)
    count = [0]

    async def follow() -> None:
        async for _ in watches.follow("bench", audit.partition("/")[2], 0):
            pass

    tasks = [asyncio.create_task(follow()) for _ in range(watchers)]
    await asyncio.sleep(3)  # the first page of each
    engine: Any = store._engine
    event.listen(engine, "before_cursor_execute", lambda *_: count.__setitem__(0, count[0] + 1))
    await asyncio.sleep(seconds)
    found = count[0] / seconds
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    store.close()
    return found


async def memory(house: House, audit: str, watchers: int) -> float:
    """Return the server's growth per watch stream in bytes."""
    pki = house.folder / "pki"
    parts = [(pki / name).read_bytes() for name in ("ca.pem", "load0.key", "load0.pem")]
    channels = [_channel(f"127.0.0.1:{house.port}", parts) for _ in range(watchers // PER_CHANNEL)]
    for channel in channels:
        await channel.channel_ready()
    before = house.memory("VmRSS")

    async def follow(channel: grpc.aio.Channel) -> Any:
        stub: Any = audits_pb2_grpc.AuditsStub(channel)
        call = stub.WatchAudit(audits_pb2.WatchAuditRequest(name=audit))
        await call.read()
        return call

    calls = await asyncio.gather(*(follow(channels[at % len(channels)]) for at in range(watchers)))
    await asyncio.sleep(3)
    grown = house.memory("VmRSS") - before
    for call in calls:
        call.cancel()
    for channel in channels:
        await channel.close()
    return grown / watchers


def one_audit(folder: Path, watchers: int) -> dict[str, Any]:
    prepare(folder, ("load0",))
    house = House("api", folder)
    house.start()
    with house.client("load0") as client:
        audit = client.submit(sent_model(client, folder), checks=[("clusterability", {})])
        per_second = asyncio.run(queries(house, audit.name, watchers, 10.0))
        per_watcher = asyncio.run(memory(house, audit.name, watchers))
    house.end()
    return {
        "watchers": watchers,
        "queries_per_s": round(per_second, 2),
        "target_queries_per_s_at_most": 2,
        "bytes_per_watcher": round(per_watcher),
        "target_bytes_per_watcher_at_most": 100 * 1024,
    }


def sent_model(client: AuditClient, folder: Path) -> str:
    """Upload a model of a few kilobytes; return its digest."""
    made = model(folder / "model", [os.urandom(4096)], os.urandom(4096))
    return client.upload_model(made).manifest_sha256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--watchers", type=int, default=200)
    parser.add_argument("--submitters", type=int, default=50)
    parser.add_argument("--of-one", type=int, default=500, help="watchers of one audit")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dev = Dev.start(folder)
        try:
            with AuditClient.from_config(dev.data / "client.json") as client:
                manifest = sent_model(client, folder)
            under_load = asyncio.run(loaded(dev, manifest, asked.watchers, asked.submitters))
        finally:
            dev.stop()
        write(TABLE, {"load": under_load, "one_audit": one_audit(folder / "one", asked.of_one)})


if __name__ == "__main__":
    main()
