"""The two documents that cross the cell's wall: the order that comes in, the result that goes out."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from assay.result import Answer, Count, Name, Skipped, Value
from pydantic import Field, ValidationError

from checks.errors import OrderInvalid
from sandbox.reader import strict_json
from sandbox.reader.error import ReaderError

ORDER_CAP = 2**20
"""Bytes of an order; the cell's own limit."""

RESULT_CAP = 2**20
"""Bytes of a result document; more could not leave the cell."""

RESULT_CAP_REASON = "result_cap"
"""Reason of what was left out because the document would not fit."""

Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FlatName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$")]


class OrderedInput(Value):
    """One file that the cell sees."""

    input: FlatName
    """Its name among the cell's inputs."""
    sha256: Hex64
    size: Count


class OrderedFile(OrderedInput):
    """One file of the model, under the path that the manifest gives it.

    Weights are the very bytes of the manifest. Where `OrderedModel.tensors` is set, every other file is the canonical
    one that an ingest cell wrote in its place, and its digest is that one's.
    """

    path: str
    """Its path in the manifest."""


class OrderedModel(Value):
    """The model: as its manifest lists it, or as an ingest cell passed it on."""

    manifest_sha256: Hex64
    files: tuple[OrderedFile, ...]
    tensors: OrderedInput | None = None
    """Table of the weights by the ingest cell; None where nobody has read the files before."""


class OrderedData(OrderedInput):
    """One data set that came with the audit."""

    role: Name


class OrderedCheck(Value):
    """One check that was asked for."""

    name: Name
    version: Name
    params: dict[str, Any] = Field(default_factory=dict)


class OrderedShards(Value):
    """What a cell gets of a check that reads a role in shards; see `checks.sharding`."""

    check: Count
    """Position of the check in the order."""
    document: OrderedInput
    carried: OrderedInput | None = None
    shard: Count | None = None
    """Which to scan, counted from 0; None where the parts are joined."""
    parts: tuple[OrderedInput, ...] = ()
    """Of the scanned shards, in their order."""
    dead: tuple[Count, ...] = ()
    """Shards that no attempt could scan; the answer names them."""


class Order(Value):
    """What a cell is asked to do."""

    schema_: Literal["assay-cell-order/v1"] = Field(alias="schema")
    nonce: Hex64
    seed: Annotated[int, Field(ge=0, lt=2**53)]
    model: OrderedModel
    base: OrderedModel | None = None
    """A second model that the first is held against: same architecture, sizes and tokenizer."""
    data: tuple[OrderedData, ...] = ()
    checks: tuple[OrderedCheck, ...] = Field(min_length=1)
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    stage: Literal["whole", "plan", "scan", "combine"] = "whole"
    """`whole` answers everything, shards one after the other. `plan` and `scan` answer nothing: they fill slots."""
    shards: OrderedShards | None = None
    """With `scan` and `combine`."""


class Decision(Value):
    """What was decided about one file of the model."""

    path: str | None
    decision: Literal["accepted", "dropped", "refused"]
    reason: Name | None = None
    at: dict[str, str | int] | None = None


class Ingest(Value):
    """Decisions about the model's files: all, or where an ingest cell made them, those that loading added."""

    decisions: tuple[Decision, ...]


class Facts(Value):
    """What ran, for the record; the host overwrites what it measures itself."""

    architecture: Name
    layers: Count
    width: Count
    parameters: Count
    texts: Count
    tokens: Count
    dtype: Name
    batch_size: Count
    threads: Count
    torch: Name


class HandedOut(Value):
    """One file that a check handed out beside its answer."""

    check: Name
    name: FlatName
    """As the check declares it."""
    slot: FlatName
    """Where it was written; see `slot_of`."""
    sha256: Hex64
    size: Count


class StagedFile(Value):
    """One file that a cell which answers nothing has left in a slot."""

    slot: Literal["plan.document", "plan.carried", "scan.part"]
    sha256: Hex64
    size: Count


class Staged(Value):
    """What a cell that answers nothing has left in its slots."""

    shards: Count
    """Of the plan; 0: it was refused, or is not worth shards, and one cell answers everything. A scan has 1."""
    files: tuple[StagedFile, ...] = ()


class Result(Value):
    """What a cell answers."""

    schema_: Literal["assay-cell-result/v1"] = Field(default="assay-cell-result/v1", alias="schema")
    nonce: Hex64
    answers: tuple[Answer, ...]
    ingest: Ingest
    facts: Facts | None
    artefacts: tuple[HandedOut, ...] = ()
    """Files that were written beside this document; the key is left out where there is none."""
    staged: Staged | None = None
    """Of a cell whose stage is `plan` or `scan`; the key is left out of all others."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, fit for canonical encoding."""
        document = self.model_dump(mode="json", by_alias=True)
        if not self.artefacts:
            del document["artefacts"]
        if self.staged is None:
            del document["staged"]
        return document


def slot_of(check: str, nth: int, name: str) -> str:
    """Return the slot of an artefact: `<check>.<name>`, and `<check>.<n>.<name>` where a check is asked again.

    Args:
        check: name of the check.
        nth: 1 for the first order of this check, 2 for the second.
        name: of the artefact, as the check declares it.
    """
    return f"{check}.{name}" if nth == 1 else f"{check}.{nth}.{name}"


def read_order(data: bytes) -> Order:
    """Parse an order strictly.

    Raises:
        OrderInvalid: not strict JSON, or not an order; names the field.
    """
    try:
        return Order.model_validate_json(json.dumps(strict_json.loads(data, cap=ORDER_CAP)))
    except ReaderError as error:
        raise OrderInvalid(f"the order is not strict JSON: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise OrderInvalid(f"order field {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def canonical(value: Any) -> bytes:
    """Return canonical JSON: sorted keys, no white space, UTF-8; numbers are integers already."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def write_result(result: Result, *, cap: int = RESULT_CAP) -> bytes:
    """Return the result's canonical bytes, within the cap.

    The largest answer first loses its plots, which repeat its metrics, and says so; where that is not enough it is
    replaced by a failed one (`result_cap`). A document over the cap would lose every answer.
    """
    answers = list(result.answers)
    while True:
        document = canonical(result.model_copy(update={"answers": tuple(answers)}).to_json())
        sizes = [len(canonical(one.to_json())) if one.outcome != "failed" else 0 for one in answers]
        if len(document) <= cap or not any(sizes):
            return document
        largest = sizes.index(max(sizes))
        answers[largest] = _smaller(answers[largest])


def _smaller(answer: Answer) -> Answer:
    if answer.measured is not None and answer.measured.plots:
        bare = answer.measured.model_copy(update={"plots": ()})
        told = Skipped(item="plots", reason=RESULT_CAP_REASON)
        return answer.model_copy(update={"measured": bare, "skipped": (*answer.skipped, told)})
    return Answer(
        check=answer.check,
        version=answer.version,
        params=answer.params,
        outcome="failed",
        reason=RESULT_CAP_REASON,
        step="judge",
    )
