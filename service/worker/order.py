"""The order that a cell is given: the canonical document in it, and the limits around it."""

from __future__ import annotations

from assay import canonical

from sandbox.cell import Order
from service.rules.states import CELL_STEPS
from service.worker.bench import Bench
from service.worker.materialise import Inputs
from service.worker.request import Request

SCHEMA = "assay-cell-order/v1"


def make_order(bench: Bench, request: Request, inputs: Inputs, *, nonce: str, seed: int) -> Order:
    """Return the order for one cell.

    Args:
        bench: names the guest, memory and threads.
        request: the registered request.
        inputs: the materialised files.
        nonce: 32 random bytes in hex, of this one cell.
        seed: the registered seed.
    """
    document = {
        "schema": SCHEMA,
        "nonce": nonce,
        "seed": seed,
        "model": {
            "manifest_sha256": request.model_sha256,
            "files": [
                {"path": file.path, "input": given.name, "sha256": given.sha256, "size": given.size}
                for file, given in zip(inputs.manifest.files, inputs.model, strict=True)
            ],
        },
        "data": [
            {"role": data.role, "input": given.name, "sha256": given.sha256, "size": given.size}
            for data, given in zip(request.data, inputs.data, strict=True)
        ],
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
        inputs=inputs.files,
        request=canonical.dumps(document),
        nonce=nonce,
        limits=limits,
        steps=CELL_STEPS,
    )
