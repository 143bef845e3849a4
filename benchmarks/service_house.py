"""The API of the service as a process of its own, for benchmarks; and bare ones to hold it against.

`python -m benchmarks.service_house api|sink|echo FOLDER PORT` is what `House` starts. A sink hashes what it is sent and
keeps nothing; an echo answers a unary call after one bare commit.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from assay import AuditClient
from assay.api.v1 import audits_pb2_grpc, blobs_pb2, blobs_pb2_grpc

from service.main import pki

TENANT = "bench"
BIN = Path(sys.executable).parent
LIFTED = 10**6
"""Stands where a quota of callers would measure itself."""
MIB = 1 << 20


def principals(count: int) -> tuple[str, ...]:
    return tuple(f"load{number}" for number in range(count))


def prepare(folder: Path, names: tuple[str, ...]) -> None:
    """Make certificates and a database that knows these principals."""
    from service.store.migrations import migrate
    from service.store.principals import put_principal

    (folder / "pki").mkdir(parents=True)
    pki.ensure(folder / "pki", names)
    migrate(f"sqlite:///{folder}/assay.db")
    for name in names:
        put_principal(f"sqlite:///{folder}/assay.db", name, tenant=TENANT, role="auditor")


@dataclass
class House:
    """One process that serves, and clients of it.

    Args:
        kind: api, sink or echo.
        folder: where `prepare` was.
    """

    kind: str
    folder: Path
    port: int = 0
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it on its port, a free one the first time; return when it serves."""
        command = [sys.executable, "-m", "benchmarks.service_house", self.kind, str(self.folder), str(self.port)]
        errors = (self.folder / f"{self.kind}.err").open("a")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        errors.close()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"it did not start: {(self.folder / f'{self.kind}.err').read_text()}")
        self.port = int(line.rpartition(":")[2])

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it with a signal and wait until it is gone."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def client(self, name: str, **options: Any) -> AuditClient:
        """Connect as a principal."""
        files = {"ca": "ca.pem", "certificate": f"{name}.pem", "key": f"{name}.key"}
        paths = {part: self.folder / "pki" / file for part, file in files.items()}
        state = self.folder / f"state-{name}"
        return AuditClient.connect(f"127.0.0.1:{self.port}", **paths, state=state, **options)

    def memory(self, field: str) -> int:
        """Return a field of the process's memory in bytes: VmRSS or VmHWM, the highest since `forget_peak`."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))

    def forget_peak(self) -> None:
        """Begin to measure the highest memory anew."""
        assert self.process is not None
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")


def machine() -> dict[str, Any]:
    """Say where and when figures were taken."""
    return {
        "cores": os.cpu_count(),
        "load_1_5_15": [round(one, 1) for one in os.getloadavg()],
        "niceness": os.nice(0),
        "python": platform.python_version(),
        "grpc": grpc.__version__,
        "day": time.strftime("%Y-%m-%d", time.gmtime()),
        "note": "other work ran on this machine; ratios are taken within one run, medians of its rounds",
    }


def write(table: Path, found: dict[str, Any]) -> None:
    """Print the figures and write them beside their script."""
    text = json.dumps({"machine": machine(), **found}, indent=1)
    print(text)
    table.write_text(text + "\n")


def quantile(values: list[float], share: float) -> float:
    """Return a quantile by rank, e.g. the p99 for a share of .99."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, round(share * (len(ranked) - 1)))]


class Sink(blobs_pb2_grpc.BlobsServicer):
    """Lacks every blob, hashes what it is sent, keeps nothing."""

    async def FindMissingBlobs(self, request: Any, context: Any) -> Any:  # noqa: N802
        return blobs_pb2.FindMissingBlobsResponse(missing=request.digests)

    async def QueryWriteStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        return blobs_pb2.QueryWriteStatusResponse()

    async def Write(self, request_iterator: AsyncIterator[Any], context: Any) -> Any:  # noqa: N802
        digest, size = hashlib.sha256(), 0
        async for message in request_iterator:
            await asyncio.to_thread(digest.update, message.data)
            size += len(message.data)
        return blobs_pb2.WriteResponse(committed_size=size)


class Echo(audits_pb2_grpc.AuditsServicer):
    """Answers a submission with itself after one commit of one row that survives a power loss."""

    def __init__(self, file: Path) -> None:
        import sqlite3

        self._connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute("CREATE TABLE IF NOT EXISTS asked (request BLOB)")

    async def SubmitAudit(self, request: Any, context: Any) -> Any:  # noqa: N802
        await asyncio.to_thread(self._commit, request.SerializeToString())
        return request.audit

    def _commit(self, request: bytes) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute("INSERT INTO asked VALUES (?)", (request,))
        self._connection.execute("COMMIT")


async def _bare(folder: Path, port: int, add: Callable[[grpc.aio.Server], None]) -> None:
    made = folder / "pki"
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 4 << 20)])
    add(server)
    credentials = grpc.ssl_server_credentials(
        [((made / "server.key").read_bytes(), (made / "server.pem").read_bytes())],
        (made / "ca.pem").read_bytes(),
        require_client_auth=True,
    )
    port = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(None)


def _api(folder: Path, port: int) -> None:
    from service.api.process import ApiSettings, Limits, TlsFiles, run

    made = folder / "pki"
    run(
        ApiSettings(
            database_url=f"sqlite:///{folder}/assay.db",
            blob_dir=folder / "blobs",
            upload_dir=folder / "uploads",
            address=f"127.0.0.1:{port}",
            tls=TlsFiles(ca=made / "ca.pem", certificate=made / "server.pem", key=made / "server.key"),
            page_key=b"k" * 32,
            reflection=False,
            isolation_file=folder / "isolation.json",
            signer_profile="development",
            disk_floor_bytes=0,
            limits=Limits(watchers_per_tenant=LIFTED, calls_per_s=LIFTED, calls_burst=LIFTED, quotas=_lifted()),
            ready=lambda address: print(address, flush=True),
        )
    )


def _lifted() -> Any:
    from service.rules.limits import Quotas

    return Quotas(unfinished_audits=LIFTED)


def main() -> None:
    kind, folder, port = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if kind == "api":
        _api(folder, port)
    elif kind == "sink":
        sink: Any = Sink
        asyncio.run(_bare(folder, port, lambda server: blobs_pb2_grpc.add_BlobsServicer_to_server(sink(), server)))
    else:
        echo: Any = Echo
        made = echo(folder / "echo.db")
        asyncio.run(_bare(folder, port, lambda server: audits_pb2_grpc.add_AuditsServicer_to_server(made, server)))


if __name__ == "__main__":
    main()
