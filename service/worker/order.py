"""The orders of an attempt's cells: the canonical documents in them, and the limits around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from service.worker.materialise import Inputs, Materialised
from service.worker.request import Request

SCHEMA = "assay-cell-order/v1"
INGEST_MODULE = "sandbox.ingest"


@dataclass(frozen=True, kw_only=True)
class Shards:
    """What a cell gets of the one check of its order whose data is read in shards."""

    check: int
    """Position of the check in the order."""
    document: Input
    """The plan."""
    carried: Input | None = None
    """What the plan carries to every scan; a cell that joins parts gets none of it."""
    shard: int | None = None
    """Which to scan; None where the parts are joined."""
    parts: tuple[Input, ...] = ()
    """Of the finished shards, in their order."""
    dead: tuple[int, ...] = ()
    """Shards that no attempt could scan."""

    @property
    def inputs(self) -> tuple[Input, ...]:
        """All files of it."""
        return (self.document, *([self.carried] if self.carried else []), *self.parts)

    def to_json(self) -> dict[str, Any]:
        """Return it as the order's `shards`."""
        return {
            "check": self.check,
            "document": _input(self.document),
            "carried": _input(self.carried) if self.carried else None,
            "shard": self.shard,
            "parts": [_input(one) for one in self.parts],
            "dead": list(self.dead),
        }


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


def make_ingest_order(
    bench: Bench, request: Request, model: Materialised, architectures: Input, *, nonce: str
) -> Order:
    """Return the order for the cell that reads one model's files; of another model it sees nothing.

    It gets no data, no checks and no seed: nothing that it does may depend on what is asked of the model. Of a file
    that nothing reads (README, licences) it gets the path alone.
    """
    given = model.by_path
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


def make_order(
    bench: Bench,
    request: Request,
    inputs: Inputs,
    passed_on: Sequence[PassedOn],
    *,
    nonce: str,
    seed: int,
    slots: Sequence[Slot] = (),
    shards: Shards | None = None,
) -> Order:
    """Return the order for the cell that measures.

    Args:
        bench: names the guest, memory and threads.
        request: the registered request.
        inputs: the materialised files; of the models', this cell gets the weights alone.
        passed_on: what the ingest cells wrote in place of the others, model by model.
        nonce: 32 random bytes in hex, of this one cell.
        seed: the registered seed.
        slots: of the files that the checks may hand out.
        shards: what came of the shards, where other cells have read them.
    """
    document = _asked(bench, request, inputs.data, nonce, seed)
    if shards is not None:
        document |= {"stage": "combine", "shards": shards.to_json()}
    given: list[Input] = []
    for model, passed in zip(inputs.models, passed_on, strict=True):
        weights = {path: one for path, one in model.by_path.items() if file_kind(path) == "weights"}
        files = {**passed.files, **weights}
        document[model.name] = {
            "manifest_sha256": model.manifest.digest,
            "files": [{"path": path, **_input(files[path])} for path in sorted(files)],
            "tensors": _input(passed.tensors),
        }
        given += [*weights.values(), *passed.inputs]
    given += [*inputs.data, *(shards.inputs if shards else ())]
    return _check_order(bench, request, document, given, slots)


def make_stage_order(
    bench: Bench,
    request: Request,
    data: Sequence[Input],
    *,
    nonce: str,
    seed: int,
    slots: Sequence[Slot],
    shards: Shards | None = None,
) -> Order:
    """Return the order for a cell that answers nothing: it plans, or scans one shard.

    Nothing of the model is in it. What such a cell leaves follows from the auditor's own data alone, so it can tell
    nobody anything about the model, and neither plan nor part is charged to an output budget.

    Args:
        bench: names the guest, memory and threads.
        request: the registered request.
        data: the data, in the request's order.
        nonce: 32 random bytes in hex, of this one cell.
        seed: the registered seed.
        slots: where the plan, or the part, is left.
        shards: which shard of which plan; None makes the plan.
    """
    document = _asked(bench, request, data, nonce, seed)
    document["model"] = {"manifest_sha256": request.model_sha256, "files": []}
    if shards is None:
        document["stage"] = "plan"
    else:
        document |= {"stage": "scan", "shards": shards.to_json()}
    return _check_order(bench, request, document, [*data, *(shards.inputs if shards else ())], slots)


def _asked(bench: Bench, request: Request, data: Sequence[Input], nonce: str, seed: int) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "nonce": nonce,
        "seed": seed,
        "data": [{"role": one.role, **_input(given)} for one, given in zip(request.data, data, strict=True)],
        "checks": [{"name": one.name, "version": one.version, "params": dict(one.params)} for one in request.checks],
        "threads": bench.threads,
    }


def _check_order(
    bench: Bench, request: Request, document: Mapping[str, Any], inputs: Sequence[Input], slots: Sequence[Slot]
) -> Order:
    limits = {"wall_s": request.wall_s}
    if bench.memory_bytes is not None:
        limits["memory_bytes"] = bench.memory_bytes
    return Order(
        kind="check",
        module=bench.guest.module,
        code=bench.guest.code,
        inputs=tuple(inputs),
        slots=tuple(slots),
        request=canonical.dumps(dict(document)),
        nonce=str(document["nonce"]),
        limits=limits,
        steps=CELL_STEPS,
    )


def _input(one: Input) -> Mapping[str, Any]:
    return {"input": one.name, "sha256": one.sha256, "size": one.size}
