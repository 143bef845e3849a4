"""Uploads: throughput, what is sent again after a kill, what a fine-tune sends, and the server's memory.

Run: `python -m benchmarks.service_upload [--size-mib 1024]`. Writes service_upload.json beside itself. References, in
the same run and in turn, median of 5 rounds: a gRPC handler that only hashes, a loop that only writes and syncs. The
server is a real process behind mutual TLS on loopback, the client is Assay's own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from assay.api.v1 import blobs_pb2
from assay.remote.memory import UploadMemory
from assay.remote.upload import Blob, Uploader

from benchmarks.service_house import MIB, House, prepare, write

TABLE = Path(__file__).with_suffix(".json")
ROUNDS, THROUGHPUT_MIB = 5, 256
SYNC = 64 * MIB
"""The server's own fsync step."""
PARALLEL = 16
LAYERS = 12


def planted(file: Path, size: int) -> Blob:
    """Write so many random bytes; return them as what is to be sent."""
    digest = hashlib.sha256()
    with file.open("wb") as out:
        for at in range(0, size, MIB):
            piece = os.urandom(min(MIB, size - at))
            digest.update(piece)
            out.write(piece)
    return Blob(sha256=digest.hexdigest(), size=size, source=file)


def seconds_to_send(house: House, blob: Blob) -> float:
    with house.client("load0") as client:
        client.lacks([])  # the connection is made before the clock starts
        uploader = Uploader(client._calls, UploadMemory(house.folder / "state", client.address))
        began = time.perf_counter()
        uploader.send([blob])
        return time.perf_counter() - began


def seconds_to_write(folder: Path, blob: Blob) -> float:
    assert isinstance(blob.source, Path)
    began = time.perf_counter()
    with blob.source.open("rb") as source, (folder / "plain").open("wb", buffering=0) as out:
        written = 0
        while piece := source.read(MIB):
            out.write(piece)
            written += len(piece)
            if written % SYNC == 0:
                os.fsync(out.fileno())
        os.fsync(out.fileno())
    took = time.perf_counter() - began
    (folder / "plain").unlink()
    return took


def throughput(folder: Path, api: House, rounds: int, mib: int) -> dict[str, Any]:
    sink = House("sink", folder)
    sink.start()
    rates: dict[str, list[float]] = {"upload": [], "hash_only": [], "write_and_sync": []}
    ratios = []
    for _ in range(rounds):
        blob = planted(folder / "source", mib * MIB)
        os.sync()
        took = {
            "upload": seconds_to_send(api, blob),
            "hash_only": seconds_to_send(sink, blob),
            "write_and_sync": seconds_to_write(folder, blob),
        }
        for name, seconds in took.items():
            rates[name].append(mib / seconds)
        ratios.append(rates["upload"][-1] / min(rates["hash_only"][-1], rates["write_and_sync"][-1]))
    sink.end()
    return {
        "mib": mib,
        "mib_per_s": {name: [round(one, 1) for one in found] for name, found in rates.items()},
        "median_mib_per_s": {name: round(median(found), 1) for name, found in rates.items()},
        "ratio": round(median(ratios), 3),
        "target_at_least": 0.6,
    }


def sent_again(folder: Path, api: House, size: int, percent: float) -> dict[str, Any]:
    """SIGKILL the server once so much is on its way, start it again, and let the same client finish."""
    blob = planted(folder / "source", size)
    killed: list[int] = []

    def restart() -> None:
        api.end(signal.SIGKILL)
        api.start()

    restarting = threading.Thread(target=restart)

    def progress(done: int, total: int) -> None:
        if not killed and done >= total * percent / 100:
            killed.append(done)
            restarting.start()

    with api.client("load0") as client:
        memory = UploadMemory(folder / "state", client.address)
        uploader = Uploader(client._calls, memory, progress)
        uploader.send([blob])
    restarting.join()
    again = uploader.sent - size
    bound = size // 100 + SYNC + MIB
    stored = folder / "blobs" / "sha256" / blob.sha256[:2] / blob.sha256[2:4] / blob.sha256
    assert stored.stat().st_size == size
    return {
        "size": size,
        "killed_at": killed[0],
        "bytes_sent_again": again,
        "target_at_most": bound,
        "holds": again <= bound,
    }


def model(folder: Path, layers: list[bytes], head: bytes) -> Path:
    """Write a model of random layers as safetensors does: a header, then tensors end to end."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type":"gpt2"}\n')
    tensors = {f"h.{number}.weight": data for number, data in enumerate(layers)} | {"head.weight": head}
    header, at = {}, 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for data in tensors.values():
            file.write(data)
    return folder


def fine_tune(folder: Path, api: House, layer_bytes: int) -> dict[str, Any]:
    """Send a model, then the same with one layer changed."""
    layers, head = [os.urandom(layer_bytes) for _ in range(LAYERS)], os.urandom(layer_bytes)
    with api.client("load0") as client:
        first = client.upload_model(model(folder / "first", layers, head))
        layers[LAYERS // 2] = os.urandom(layer_bytes)
        began = time.perf_counter()
        second = client.upload_model(model(folder / "second", layers, head))
        took = time.perf_counter() - began
        client.create_model(second.manifest_sha256)
    return {
        "layers": LAYERS + 1,
        "layer_bytes": layer_bytes,
        "bytes_of_first": first.bytes_total,
        "sent_for_first": first.bytes_sent,
        "bytes_of_fine_tune": second.bytes_total,
        "sent_for_fine_tune": second.bytes_sent,
        "share_sent": round(second.bytes_sent / second.bytes_total, 4),
        "seconds": round(took, 2),
    }


def _long(seed: bytes, size: int, block: bytes) -> Iterator[bytes]:
    yield seed
    left = size - len(seed)
    while left:
        yield block[: min(len(block), left)]
        left -= min(len(block), left)


def parallel(api: House, size: int) -> dict[str, int]:
    """Send 16 blobs of one size at once; return the server's memory."""
    block = os.urandom(MIB)

    def send(number: int) -> None:
        digest = hashlib.sha256()
        seed = uuid.uuid4().bytes
        for piece in _long(seed, size, block):
            digest.update(piece)
        name = f"uploads/{uuid.uuid4()}/blobs/sha256/{digest.hexdigest()}/{size}"

        def messages() -> Iterator[Any]:
            at = 0
            for piece in _long(seed, size, block):
                ends = at + len(piece)
                yield blobs_pb2.WriteRequest(
                    resource_name="" if at else name, write_offset=at, data=piece, finish_write=ends == size
                )
                at = ends

        with api.client(f"load{number}") as client:
            assert client._calls.blobs.Write(messages()).committed_size == size

    idle = api.memory("VmRSS")
    api.forget_peak()
    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(send, range(PARALLEL)))
    return {"size": size, "idle": idle, "peak": api.memory("VmHWM")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-mib", type=int, default=1024, help="size of the upload that is killed")
    parser.add_argument("--kill-at", type=float, default=99.0, help="percent of it on its way")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--throughput-mib", type=int, default=THROUGHPUT_MIB)
    parser.add_argument("--layer-mib", type=int, default=8)
    parser.add_argument("--parallel-mib", type=int, nargs=2, default=(32, 128), help="two sizes of 16 parallel uploads")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, tuple(f"load{number}" for number in range(PARALLEL)))
        api = House("api", folder)
        api.start()
        small, large = (parallel(api, mib * MIB) for mib in asked.parallel_mib)
        found = {
            "sixteen_parallel_uploads": {
                "runs": [small, large],
                "over_idle": small["peak"] - small["idle"],
                "target_over_idle_at_most": 256 * MIB,
                "large_over_small": round(large["peak"] / small["peak"], 3),
                "target_large_over_small_at_most": 1.1,
            },
            "fine_tune_of_one_layer": fine_tune(folder, api, asked.layer_mib * MIB),
            "killed_mid_upload": sent_again(folder, api, asked.size_mib * MIB, asked.kill_at),
            "throughput": throughput(folder, api, asked.rounds, asked.throughput_mib),
        }
        api.end()
        write(TABLE, found)


if __name__ == "__main__":
    main()
