"""Files that checks hand out beside their answers: declared slots, held against what the cell said of them.

A check may fill the slots that its catalogue entry names, and no other. What it says of them is compared with the bytes
that the host took out of the slots itself. Every byte is charged; what does not fit into the audit's budget stays here
and the answer says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from assay.predicate import Artefact
from assay.result import Skipped

from sandbox.budget import slots_bits
from sandbox.cell import Filled, Slot
from sandbox.errors import ResultRejected
from sandbox.result import check_fields
from service.worker.errors import HostFault
from service.worker.promises import Promise
from service.worker.request import AskedCheck

if TYPE_CHECKING:
    from service.worker.hostile import CellResult

FIELDS = ("check", "name", "slot", "sha256", "size")

OVER_BUDGET = "output_budget"
"""Reason of `artefact:<name>` in `skipped`: its bytes did not fit into what the audit may still carry out."""


@dataclass(frozen=True, kw_only=True)
class Promised:
    """One file that one answer may hand out."""

    answer: int
    """Position of the answer."""
    check: str
    name: str
    media_type: str
    slot: Slot


@dataclass(frozen=True, kw_only=True)
class HandedOut:
    """One file that was handed out."""

    promised: Promised
    told: Artefact
    """As the report names it; digest and size are the host's own."""
    filled: Filled = field(repr=False)

    @property
    def charge_bytes(self) -> int:
        """What the output budgets are charged for it."""
        return -(-slots_bits([self.promised.slot], [self.filled]) // 8)


def promised_by(asked: Sequence[AskedCheck], promises: Mapping[str, Promise]) -> tuple[Promised, ...]:
    """Return what the checks of a request may hand out, answer by answer.

    Raises:
        HostFault: two of them would share a slot.
    """
    found: list[Promised] = []
    seen: dict[str, int] = {}
    for position, one in enumerate(asked):
        seen[one.name] = nth = seen.get(one.name, 0) + 1
        for told in promises[one.name].raw.get("artefacts", ()):
            name = f"{one.name}.{told['name']}" if nth == 1 else f"{one.name}.{nth}.{told['name']}"
            slot = Slot(name=name, max_bytes=told["max_bytes"], released=True)
            found.append(
                Promised(answer=position, check=one.name, name=told["name"], media_type=told["media_type"], slot=slot)
            )
    if len({one.slot.name for one in found}) != len(found):
        raise HostFault("two files that the asked checks may hand out have one name: ask the checks in two audits")
    return tuple(found)


def handed_out(
    told: Any, promised: Sequence[Promised], filled: Sequence[Filled], measured: Sequence[bool]
) -> tuple[HandedOut, ...]:
    """Hold what a cell says that it handed out against its slots.

    Args:
        told: the field of the result document.
        promised: what may be handed out.
        filled: the slots, as the host took them when the cell was gone.
        measured: whether each answer measured anything; one that did not has nothing to hand out.

    Raises:
        ResultRejected: result_schema; unknown_slot, a slot was filled and not told of, or told and never declared;
            result_missing, told and empty; slot_too_large; host_field_disagrees, told with other bytes.
    """
    if not isinstance(told, list):
        raise ResultRejected("result_schema", "artefacts")
    by_slot = {one.slot.name: one for one in promised}
    taken = {one.name: one for one in filled if one.size}
    found: list[HandedOut] = []
    for position, item in enumerate(told):
        at = f"artefacts.{position}"
        if not isinstance(item, dict):
            raise ResultRejected("result_schema", at)
        check_fields(item, FIELDS, f"{at}.")
        slot = item["slot"]
        owed = by_slot.get(slot) if isinstance(slot, str) else None
        if owed is None or any(one.promised is owed for one in found):
            raise ResultRejected("unknown_slot", at)
        if (item["check"], item["name"]) != (owed.check, owed.name) or not measured[owed.answer]:
            raise ResultRejected("result_schema", at)
        found.append(_taken(owed, item, taken.get(slot), at))
    if stray := sorted(taken.keys() - {one.promised.slot.name for one in found}):
        raise ResultRejected("unknown_slot", stray[0] if stray[0] in by_slot else "")
    return tuple(found)


def _taken(owed: Promised, item: Mapping[str, Any], slot: Filled | None, at: str) -> HandedOut:
    if slot is None:
        raise ResultRejected("result_missing", at)
    if slot.size > owed.slot.max_bytes:
        raise ResultRejected("slot_too_large", at)
    with slot.open():  # one that was withheld says here why
        pass
    if type(item["size"]) is not int or (item["sha256"], item["size"]) != (slot.sha256, slot.size):
        raise ResultRejected("host_field_disagrees", at)
    told = Artefact(name=owed.name, media_type=owed.media_type, sha256=slot.sha256, size=slot.size)
    return HandedOut(promised=owed, told=told, filled=slot)


def within(result: CellResult, cap: int) -> CellResult:
    """Return a result with those of its files that fit into the audit's budget, charged, and the others told of.

    The answers come first. Each file costs one byte more, in which it is told whether it fitted.
    """
    if not result.artefacts:
        return result
    charge = result.output_bytes + len(result.artefacts)
    kept: list[HandedOut] = []
    answers = list(result.answers)
    for one in result.artefacts:
        if charge + one.charge_bytes <= cap:
            charge += one.charge_bytes
            kept.append(one)
        else:
            position = one.promised.answer
            left = Skipped(item=f"artefact:{one.promised.name}"[:128], reason=OVER_BUDGET)
            skipped = (*answers[position].skipped, left)
            answers[position] = answers[position].model_copy(update={"skipped": skipped})
    return replace(result, answers=tuple(answers), artefacts=tuple(kept), output_bytes=charge)
