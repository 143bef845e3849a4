"""Keys, entries and logs for these tests. Nothing here is worth anything outside them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from assay.tlog.entries import Entry
from assay.tlog.memory import MemoryLog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "vectors.json").read_bytes())
ORIGIN = "log.assay.example"
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(VECTORS["T7"]["private"]))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\x01")


def digest(label: str) -> str:
    return hashlib.sha256(label.encode()).hexdigest()


def moment(second: int) -> str:
    return f"2026-01-02T{3 + second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}Z"


def request(label: str, second: int = 0) -> Entry:
    return Entry(kind="request", at=moment(second), commit=digest(label), tag=digest("tag"))


def report(label: str, prev: int, second: int = 1) -> Entry:
    return Entry(
        kind="report", at=moment(second), commit=digest(label), tag=digest("tag"), key=digest("key"), prev=prev
    )


def void(label: str, prev: int, second: int = 1) -> Entry:
    return Entry(kind="void", at=moment(second), commit=digest(label), tag=digest("tag"), prev=prev, reason="cancelled")


def withdrawal(label: str, prev: int, second: int = 1) -> Entry:
    return Entry(
        kind="withdrawal", at=moment(second), commit=digest(label), tag=digest("tag"), prev=prev, reason="data_defect"
    )


def requests(count: int) -> MemoryLog:
    log = MemoryLog(ORIGIN, PRIVATE)
    for index in range(count):
        log.append(request(f"request {index}", index))
    return log
