"""A scripted cell, a small catalogue and a planted audit: what an attempt needs, in memory where it can be."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from assay import canonical
from assay.catalogue import Catalogue, parse
from assay.manifest import FileEntry, Manifest
from assay.result import Answer

from sandbox.cell import (
    KILL_BOUND_S,
    Cancelled,
    CodeMount,
    Filled,
    OnStep,
    Order,
    Outcome,
    Proof,
    Seal,
    Usage,
    ignore,
    never,
)
from sandbox.inputs import Held
from service.blobs import MemoryBlobs
from service.store.audits import register
from service.store.engine import Store
from service.store.tables import model
from service.store.uploads import insert_absent
from service.worker.attempt import Attempts
from service.worker.bench import Bench
from service.worker.code import Guest
from tests.service.store.planting import registration, submit

USAGE = Usage(wall_s=0.1, cpu_s=0.1, peak_bytes=1, processes_peak=1, result_bytes=1, slot_bytes=0, log_bytes=0)
SEAL = Seal(
    stage="check",
    backend="process",
    version="scripted",
    policy_sha256="00" * 32,
    layers={},
    limits=(),
    statements=("nothing_isolated",),
    selfcheck_sha256=None,
    network="none",
    output_bytes=1,
    output_cap=2**18,
)
OK = Outcome(ended="exited", status=0, why=None, result=None, slots=(), usage=USAGE, seal=SEAL, log_tail="")
KILLED = replace(OK, ended="killed", status=9)

Script = Callable[[Order, OnStep, Cancelled], Outcome]


def reads(order: Order, _on_step: OnStep, _cancelled: Cancelled) -> Outcome:
    """An ingest cell that accepts every file."""
    asked = json.loads(order.request)
    paths = [file["path"] for file in asked["files"]]
    wanted = {"config.json", "tensors.json", *paths}
    return replace(
        OK,
        seal=replace(SEAL, stage="ingest"),
        result=canonical.dumps(read(order)),
        slots=tuple(filled(slot.name, b"{}" if slot.name in wanted else b"") for slot in order.slots),
    )


def read(order: Order, **changes: Any) -> dict[str, Any]:
    """Return an ingest cell's document that is accepted."""
    paths = [file["path"] for file in json.loads(order.request)["files"]]
    return {
        "schema": "assay-ingest/v1",
        "nonce": order.nonce,
        "refused": False,
        "decisions": [{"path": path, "decision": "accepted", "reason": None, "at": None} for path in paths],
        "more": 0,
    } | changes


def filled(name: str, content: bytes) -> Filled:
    return Filled(name=name, size=len(content), sha256=hashlib.sha256(content).hexdigest(), content=content)


class ScriptedCell:
    """Does what its scripts say, one for each kind of cell; remembers its orders."""

    kill_bound_s = KILL_BOUND_S

    def __init__(self, script: Script, reads: Script = reads) -> None:
        self.script = script
        self.reads = reads
        self.orders: list[Order] = []
        """Of the cells that measure."""
        self.readings: list[Order] = []
        """Of the cells that read the model."""
        self.held: list[Held | None] = []

    def prove(self) -> Proof:
        return Proof(backend="process", version="scripted", profile_sha256="", kernel="", probes_sha256="", cases=())

    def run(
        self, order: Order, *, on_step: OnStep = ignore, cancelled: Cancelled = never, held: Held | None = None
    ) -> Outcome:
        self.held.append(held)
        if order.kind == "ingest":
            self.readings.append(order)
            return self.reads(order, on_step, cancelled)
        self.orders.append(order)
        return self.script(order, on_step, cancelled)


def answer(**changes: Any) -> dict[str, Any]:
    """Return a measured answer as plain JSON."""
    value: dict[str, Any] = {
        "check": "scripted",
        "version": "1.0",
        "params": {"seeds": 3, "bold": True},
        "outcome": "measured",
        "valid": True,
        "measured": {
            "coverage": {"layer": ["0"]},
            "metrics": [
                {
                    "name": "score",
                    "labels": {"layer": "0"},
                    "value": "0.5",
                    "step": "0.01",
                    "unit": "fraction",
                    "n": 10,
                    "interval": {"low": "0.4", "high": "0.6", "level": "0.95", "method": "wilson"},
                    "better": "higher",
                    "determinism": "exact",
                }
            ],
        },
        "controls": [
            {
                "name": "planted",
                "kind": "positive",
                "metric": "score",
                "value": "0.9",
                "band": {"low": "0.8", "high": "1"},
                "held": True,
            }
        ],
        "findings": [
            {
                "code": "structure",
                "word": "detected",
                "severity": "note",
                "claim": "Structure was detected.",
                "rests_on": [{"name": "score", "labels": {"layer": "0"}}],
            }
        ],
    }
    value |= changes
    return Answer.model_validate_json(json.dumps(value)).to_json()


def document(order: Order, **changes: Any) -> dict[str, Any]:
    """Return a result document that is accepted."""
    return {
        "schema": "assay-cell-result/v1",
        "nonce": order.nonce,
        "answers": [answer()],
        "ingest": {"decisions": []},
        "facts": None,
    } | changes


def good(order: Order, _on_step: OnStep, _cancelled: Cancelled) -> Outcome:
    return replace(OK, result=canonical.dumps(document(order)))


def until_cancelled(order: Order, _on_step: OnStep, cancelled: Cancelled) -> Outcome:
    """A cell that hangs until it is killed."""
    deadline = time.monotonic() + 20
    while not cancelled():
        assert time.monotonic() < deadline, "nobody killed the cell"
        time.sleep(0.01)
    return replace(KILLED, why="cancelled")


CODE_SHA256 = hashlib.sha256(
    json.dumps([["guest.py", hashlib.sha256(b"pass\n").hexdigest()]], separators=(",", ":")).encode()
).hexdigest()


def catalogue(code_sha256: str = CODE_SHA256, **more: Any) -> Catalogue:
    entry = {
        "name": "scripted",
        "version": "1.0",
        "summary": "A check for tests.",
        "source": "none",
        "access": ["weights"],
        "params": {"type": "object"},
        "data_roles": [],
        "metrics": [
            {
                "name": "score",
                "unit": "fraction",
                "labels": ["layer"],
                "better": "higher",
                "determinism": "exact",
                "summary": "A number.",
            }
        ],
        "controls": [{"name": "planted", "kind": "positive"}],
        "words": ["detected", "not_detected"],
        "reasons": ["too_few_items", "check_error"],
        "code_sha256": code_sha256,
        "capability": "cpu",
        "time_limit_s": 3600,
        "power": None,
        "false_positive_rate": None,
        **more,
    }
    return parse(canonical.dumps({"schema": "assay-catalogue/v1", "checks": [entry]}))


@dataclass
class House:
    """A store, blobs, and a worker's bench round a scripted cell."""

    store: Store
    blobs: MemoryBlobs
    cell: ScriptedCell
    bench: Bench

    def submit(
        self,
        n: int = 0,
        *,
        attempts_max: int = 8,
        output_bytes: int = 65_536,
        files: Mapping[str, bytes] = MappingProxyType({"config.json": b"{}", "model.safetensors": b"weights"}),
        base: Mapping[str, bytes] | None = None,
        data: bytes = b'{"a":1}\n',
        data_rows: Sequence[tuple[str, bytes]] = (),
    ) -> str:
        """Plant a registered audit with its request, manifests, model files and one data set, or `data_rows`."""
        from tests.service.store.planting import audit_id

        manifest = self.put_model(files)
        request = {
            "schema": "assay-request/v1",
            "audit": audit_id(n),
            "nonce": "11" * 32,
            "model": {"manifest_sha256": manifest.digest},
            **({"base": {"manifest_sha256": self.put_model(base).digest}} if base else {}),
            "checks": [{"name": "scripted", "version": "1.0", "params": {"seeds": 3, "bold": True}}],
            "data": [{"role": role, "sha256": self.put(sent)} for role, sent in data_rows or [("pairs", data)]],
            "limits": {"attempts_max": attempts_max, "output_bytes": output_bytes, "wall_s": 60},
            "seed_mode": "derived",
            "submitted_at": "2026-11-21T00:00:00Z",
        }
        sha256 = self.put(canonical.dumps(request))
        with self.store.begin() as connection:
            key = submit(connection, n, request_sha256=sha256, attempts_max=attempts_max)
            register(connection, key, registration(sha256, seed=77))
        return key

    def put_model(self, files: Mapping[str, bytes]) -> Manifest:
        manifest = Manifest(
            tuple(FileEntry(path=path, sha256=self.put(data), size=len(data)) for path, data in sorted(files.items()))
        )
        self.put(manifest.data)
        row = {"tenant": "t", "manifest_sha256": manifest.digest, "bytes": 1, "files": len(files), "created_at": 1}
        with self.store.begin() as connection:
            insert_absent(connection, model, row)
        return manifest

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.blobs.put(data, digest)
        return digest

    def attempt(self, key: str, **changes: Any) -> None:
        Attempts(replace(self.bench, **changes)).attempt(key)

    def start(self, key: str, **changes: Any) -> threading.Thread:
        thread = threading.Thread(target=self.attempt, args=(key,), kwargs=changes, daemon=True)
        thread.start()
        return thread


def house(store: Store, folder: Path, script: Script = good, *, lease_s: float = 30.0) -> House:
    program = folder / "guest.py"
    program.write_text("pass\n", encoding="utf-8")
    blobs, cell = MemoryBlobs(), ScriptedCell(script)
    bench = Bench(
        store=store,
        blobs=blobs,
        cell=cell,
        guest=Guest(module="guest", code=(CodeMount(name="guest.py", source=program),)),
        catalogue=catalogue(),
        work_dir=folder / "work",
        worker="w1",
        lease_s=lease_s,
        backoff_base_ms=10,
    )
    return House(store, blobs, cell, bench)
