"""The orders of an attempt's two cells: the canonical documents in them, and the limits around them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assay import canonical

from sandbox.cell import CodeMount, Input, Order, Slot
from sandbox.ingest import ARCHITECTURES, REQUEST_SCHEMA, SLOTS
from sandbox.limits import DEFAULTS
from sandbox.reader.digest import file_sha256
from sandbox.reader.names import file_kind, is_read
from service.rules.states import CELL_STEPS
from service.worker.bench import Bench
from service.worker.code import Guest
from service.worker.errors import HostFault
from service.worker.ingest import PassedOn
from service.worker.materialise import Inputs
from service.worker.request import Request

SCHEMA = "assay-cell-order/v1"
INGEST_MODULE = "sandbox.ingest"


def architectures_of(guest: Guest) -> Input:
    """Return the table of architectures, data of the release, as the ingest cell's input.

    Raises:
        HostFault: it cannot be read.
    """
    path = guest.part("checks") / ARCHITECTURES
    try:
        return Input(name=ARCHITECTURES, source=path, sha256=file_sha256(path), size=path.stat().st_size)
    except OSError as error:
        raise HostFault(f"{path} cannot be read: {error.strerror}; install the release whole") from error


def make_ingest_order(bench: Bench, request: Request, inputs: Inputs, architectures: Input, *, nonce: str) -> Order:
    """Return the order for the cell that reads the model's files.

    It gets no data, no checks and no seed: nothing that it does may depend on what is asked of the model. Of a file
    that nothing reads (README, licences) it gets the path alone.
    """
    given = dict(zip((file.path for file in inputs.manifest.files), inputs.model, strict=True))
    opened = {path: one for path, one in given.items() if is_read(path)}
    files = [{"path": path, **(_input(one) if path in opened else {})} for path, one in given.items()]
    own = DEFAULTS["ingest"]
    limits = {"wall_s": min(own["wall_s"], request.wall_s)}
    if bench.memory_bytes is not None:
        limits["memory_bytes"] = min(own["memory_bytes"], bench.memory_bytes)
    return Order(
        kind="ingest",
        module=INGEST_MODULE,
        arguments=(),
        code=(CodeMount(name="sandbox", source=bench.guest.part("sandbox")),),
        inputs=(*opened.values(), architectures),
        slots=tuple(Slot(name=name, max_bytes=cap, released=False) for name, cap in SLOTS.items()),
        request=canonical.dumps({"schema": REQUEST_SCHEMA, "nonce": nonce, "files": files}),
        nonce=nonce,
        limits=limits,
    )


def make_order(bench: Bench, request: Request, inputs: Inputs, passed_on: PassedOn, *, nonce: str, seed: int) -> Order:
    """Return the order for the cell that measures.

    Args:
        bench: names the guest, memory and threads.
        request: the registered request.
        inputs: the materialised files; of the model's, this cell gets the weights alone.
        passed_on: what the ingest cell wrote in place of the others.
        nonce: 32 random bytes in hex, of this one cell.
        seed: the registered seed.
    """
    weights = {
        file.path: given
        for file, given in zip(inputs.manifest.files, inputs.model, strict=True)
        if file_kind(file.path) == "weights"
    }
    given = {**passed_on.files, **weights}
    document = {
        "schema": SCHEMA,
        "nonce": nonce,
        "seed": seed,
        "model": {
            "manifest_sha256": request.model_sha256,
            "files": [{"path": path, **_input(given[path])} for path in sorted(given)],
            "tensors": _input(passed_on.tensors),
        },
        "data": [{"role": data.role, **_input(given)} for data, given in zip(request.data, inputs.data, strict=True)],
        "checks": [{"name": one.name, "version": one.version, "params": dict(one.params)} for one in request.checks],
        "threads": bench.threads,
    }
    limits = {"wall_s": request.wall_s}
    if bench.memory_bytes is not None:
        limits["memory_bytes"] = bench.memory_bytes
    return Order(
        kind="check",
        module=bench.guest.module,
        code=bench.guest.code,
        inputs=(*weights.values(), *passed_on.inputs, *inputs.data),
        request=canonical.dumps(document),
        nonce=nonce,
        limits=limits,
        steps=CELL_STEPS,
    )


def _input(one: Input) -> Mapping[str, Any]:
    return {"input": one.name, "sha256": one.sha256, "size": one.size}
