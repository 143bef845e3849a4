"""The verbs of a sharded check in cells of their own, and the same verbs one after the other in one cell.

A cell of the stage `plan` or `scan` reads no model and answers nothing: it fills slots. Those of `whole` and `combine`
answer; what their check sees of the shards is the same bytes (`checks.sharding`).
"""

from __future__ import annotations

import hashlib
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from assay.result import Answer

from checks.ask import SHARD_DEAD, SHARD_FAILED, Told, failed, listed, refused
from checks.check import Check, ModelFacts, Refusal
from checks.documents import Ingest, Order, OrderedShards, Result, Staged, StagedFile
from checks.errors import OrderInvalid
from checks.hearing import Asked, asked_of, files_of, gather_data
from checks.memory import InMemoryEvidence
from checks.sharding import SHARDS_MAX, Gathered, Planned, ShardedCheck, ShardFailed

FAILED = b"assay-shard-failed/v1\n"
"""What the part of a shard that cannot be read begins with; reason and place follow as JSON."""

NO_MODEL = ModelFacts(
    architecture="none",
    layers=0,
    width=0,
    heads=0,
    vocabulary=0,
    context=0,
    causal=False,
    tensors={},
    mlp_in=(),
    mlp_out=(),
    transposed=frozenset(),
)
"""What a plan knows of the model: nothing, as no shard depends on it."""

PLAN_DOCUMENT, PLAN_CARRIED, SCAN_PART = "plan.document", "plan.carried", "scan.part"

Fill = Callable[[str, bytes], None]
"""Takes a slot and its bytes."""


def carry_out_stage(
    order: Order, inputs: Mapping[str, Path], catalogue: Mapping[str, type[Check]], on_step: Told, fill: Fill
) -> Result:
    """Plan, or scan one shard; nothing is answered.

    Args:
        order: of the stage `plan` or `scan`.
        inputs: path of each input of the order.
        catalogue: the checks that may be asked, by name.
        on_step: told (step, done, owed).
        fill: takes what is left in slots.

    Raises:
        OrderInvalid: a scan of no plan, or of a check that is not there.
    """
    left: list[StagedFile] = []

    def leave(slot: str, content: bytes) -> None:
        fill(slot, content)
        left.append(StagedFile(slot=slot, sha256=hashlib.sha256(content).hexdigest(), size=len(content)))  # type: ignore[arg-type]

    asked = [asked_of(one, catalogue) for one in order.checks]
    on_step("sweep", 0, 1)
    if order.stage == "plan":
        planned = _planned(asked, order, inputs)
        shards = 0 if planned is None else planned.shards
        if planned is not None and shards > 1:  # one shard is not worth a cell of its own
            leave(PLAN_DOCUMENT, planned.document)
            leave(PLAN_CARRIED, planned.carried)
    else:
        one, planned = _of_order(asked, order, inputs)
        leave(SCAN_PART, _part(one, planned, order, inputs, on_step))
        shards = 1
    on_step("sweep", 1, 1)
    told = Staged(shards=shards, files=tuple(left))
    return Result(nonce=order.nonce, answers=(), ingest=Ingest(decisions=()), facts=None, staged=told)


def gather_shards(asked: Sequence[Asked], order: Order, inputs: Mapping[str, Path], on_step: Told) -> None:
    """Give each sharded check that is still without an answer its plan and its joined parts, or its answer."""
    for position, one in enumerate(asked):
        if one.answer is not None or not one.sharded:
            continue
        try:
            told = order.shards
            if order.stage == "combine" and told is not None and told.check == position:
                one.gathered = _combined(one, told, inputs)
            else:
                one.gathered = _in_one_go(one, order.seed, on_step)
        except Refusal as refusal:
            assert one.check is not None
            one.answer = refused(one.check, refusal)
        except ShardFailed as error:
            one.answer = _not_read(one, SHARD_FAILED, [f"{error.reason}:{error.at}"])
        except _Dead as dead:
            one.answer = _not_read(one, SHARD_DEAD, [f"shard:{number}" for number in dead.shards])
        except MemoryError:  # the cell's limit, not the check's fault: the host names it
            raise
        except (
            Exception
        ):  # what goes wrong with one check is that check's answer alone; the traceback is the operator's
            assert one.check is not None
            one.answer = failed(one.check, "sweep")


class _Dead(Exception):
    def __init__(self, shards: Sequence[int]) -> None:
        self.shards = shards


def _planned(asked: Sequence[Asked], order: Order, inputs: Mapping[str, Path]) -> Planned | None:
    """Return the plan; None where it is refused or fails, which the cell that answers finds again and tells."""
    gather_data(asked, order, inputs)
    for one in asked:
        if one.answer is not None or not one.sharded:
            continue
        try:
            return _plan(one, order.seed)
        except MemoryError:
            raise
        except Exception:  # a plan answers nothing: the cell that does comes to the same end and tells it
            traceback.print_exc(file=sys.stderr)
    return None


def _plan(one: Asked, seed: int) -> Planned:
    assert isinstance(one.check, ShardedCheck)
    planned = one.check.plan_shards(evidence_of(one, NO_MODEL, seed), one.files)
    if not 1 <= planned.shards <= SHARDS_MAX:
        raise Refusal("shards_too_many", (f"shards:{planned.shards}", f"shards:most:{SHARDS_MAX}"))
    return planned


def evidence_of(one: Asked, facts: ModelFacts, seed: int) -> InMemoryEvidence:
    """Return the evidence of data alone."""
    assert one.check is not None
    return InMemoryEvidence(facts=facts, check=one.check.name, seed=seed, rows=one.rows, blobs=one.blobs)


def _of_order(asked: Sequence[Asked], order: Order, inputs: Mapping[str, Path]) -> tuple[Asked, Planned]:
    told = order.shards
    if told is None or told.shard is None or told.check >= len(asked):
        raise OrderInvalid("a scan needs `shards`: the check's position, the plan, and which shard")
    one = asked[told.check]
    if not isinstance(one.check, ShardedCheck):
        raise OrderInvalid(f"check {told.check} of the order reads no shards")
    one.files = files_of(one.check, order, inputs)
    carried = b"" if told.carried is None else inputs[told.carried.input].read_bytes()
    return one, Planned(document=inputs[told.document.input].read_bytes(), carried=carried, shards=told.shard + 1)


def _part(one: Asked, planned: Planned, order: Order, inputs: Mapping[str, Path], on_step: Told) -> bytes:
    assert isinstance(one.check, ShardedCheck)
    assert order.shards is not None
    assert order.shards.shard is not None
    try:
        return one.check.scan_shard(
            planned, order.shards.shard, one.files, lambda done, owed: _tell(on_step, done, owed)
        )
    except ShardFailed as error:
        told = json.dumps({"reason": error.reason, "at": error.at}, sort_keys=True, separators=(",", ":"))
        return FAILED + told.encode()


def _tell(on_step: Told, done: int, owed: int) -> None:
    on_step("sweep", min(done, owed), max(owed, 1))


def _combined(one: Asked, told: OrderedShards, inputs: Mapping[str, Path]) -> Gathered:
    assert isinstance(one.check, ShardedCheck)
    if told.dead:
        raise _Dead(told.dead)
    paths = [inputs[part.input] for part in told.parts]
    for path in paths:
        with path.open("rb") as part:
            if part.read(len(FAILED)) == FAILED:
                why = json.loads(part.read())
                raise ShardFailed(str(why["reason"]), str(why["at"]))
    merged = _joined(one.check, (path.read_bytes() for path in paths))
    return Gathered(document=inputs[told.document.input].read_bytes(), merged=merged, files=tuple(one.files))


def _joined(check: ShardedCheck, parts: Iterator[bytes]) -> bytes:
    """Return all parts as one, two at a time: of 512 parts at most ten are held, and each is merged nine times.

    Merged one behind the other, the joined part would be read again for every one of them.
    """
    held: list[tuple[int, bytes]] = []
    for part in parts:
        weight = 1
        while held and held[-1][0] == weight:
            part = check.merge_parts([held.pop()[1], part])
            weight *= 2
        held.append((weight, part))
    merged = check.merge_parts([held.pop()[1]]) if len(held) == 1 else held.pop()[1]
    while held:
        merged = check.merge_parts([held.pop()[1], merged])
    return merged


def _in_one_go(one: Asked, seed: int, on_step: Told) -> Gathered:
    assert isinstance(one.check, ShardedCheck)
    planned = _plan(one, seed)
    merged = _joined(one.check, _scanned(one, planned, on_step))
    return Gathered(document=planned.document, merged=merged, files=tuple(one.files))


def _scanned(one: Asked, planned: Planned, on_step: Told) -> Iterator[bytes]:
    assert isinstance(one.check, ShardedCheck)
    for number in range(planned.shards):
        _tell(on_step, number, planned.shards)
        yield one.check.scan_shard(planned, number, one.files, lambda _done, _owed: None)
    _tell(on_step, planned.shards, planned.shards)


def _not_read(one: Asked, reason: str, items: Sequence[str]) -> Answer:
    ordered = one.ordered
    return Answer(
        check=ordered.name,
        version=ordered.version,
        params=ordered.params,
        outcome="failed",
        reason=reason,
        step="sweep",
        skipped=listed(items, reason),
    )


__all__ = ["NO_MODEL", "carry_out_stage", "evidence_of", "gather_shards"]
