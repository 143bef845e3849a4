"""What a cell leaves that plans or scans: a document that answers nothing, and files in slots; parsed as hostile.

The host reads how many shards there are and holds what it is told of the files against the bytes that it took itself.
Plan, carried bytes and part are bytes to it: stored by their digest, and given to later cells, which read them again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.cell import Filled, Slot
from sandbox.errors import ResultRejected
from sandbox.result import check_fields, read_result
from service.worker.hostile import RESULT_CAP, RESULT_FIELDS, RESULT_SCHEMA
from service.worker.promises import Promise
from service.worker.request import Request

SHARDS_MAX = 512
DOCUMENT_MAX, CARRIED_MAX, PART_MAX = 256 * 2**20, 512 * 2**20, 256 * 2**20
"""As the cell's side has them (`checks.sharding`), which the service never imports; a test holds them equal."""

DOCUMENT, CARRIED, PART = "plan.document", "plan.carried", "scan.part"

PLAN_SLOTS = (
    Slot(name=DOCUMENT, max_bytes=DOCUMENT_MAX, released=False),
    Slot(name=CARRIED, max_bytes=CARRIED_MAX, released=False),
)
SCAN_SLOTS = (Slot(name=PART, max_bytes=PART_MAX, released=False),)

_STAGED = "staged"
_FIELDS = ("shards", "files")
_FILE_FIELDS = ("slot", "sha256", "size")


@dataclass(frozen=True, kw_only=True)
class Staged:
    """What was left."""

    shards: int
    """Of the plan, at least 2; 1 of a scan."""
    files: Mapping[str, Filled]
    """By slot; an empty one is not here."""


def sharded_at(request: Request, promises: Mapping[str, Promise]) -> int | None:
    """Return the position of the check whose data is read in shards; None without one, or without its data."""
    sent = {one.role for one in request.data}
    for position, one in enumerate(request.checks):
        role = promises[one.name].raw.get("shard_role")
        if role is not None and role in sent:
            return position
    return None


def parse_staged(data: bytes, *, nonce: str, slots: Sequence[Slot], filled: Sequence[Filled]) -> Staged | None:
    """Accept or reject the document of a cell that answers nothing.

    Args:
        data: everything the cell wrote.
        nonce: what this one cell was given.
        slots: which it was given; `PLAN_SLOTS` or `SCAN_SLOTS`.
        filled: as the host took them when the cell was gone.

    Returns:
        What it left; None for a plan that was not made, or is of one shard: then one cell does everything.

    Raises:
        ResultRejected: with a code of specs: sandbox, section 9, and the place.
    """
    fields = (*RESULT_FIELDS, _STAGED)
    document = read_result(data, schema=RESULT_SCHEMA, nonce=nonce, fields=fields, cap=RESULT_CAP)
    for field, owed in (("answers", []), ("ingest", {"decisions": []}), ("facts", None)):
        if document[field] != owed:
            raise ResultRejected("result_schema", field)
    told = document[_STAGED]
    if not isinstance(told, dict):
        raise ResultRejected("result_schema", _STAGED)
    check_fields(told, _FIELDS, f"{_STAGED}.")
    shards, scans = told["shards"], tuple(slots) == SCAN_SLOTS
    if type(shards) is not int or not 0 <= shards <= SHARDS_MAX or (scans and shards != 1):
        raise ResultRejected("result_schema", f"{_STAGED}.shards")
    files = _files(told["files"], slots, filled)
    if not scans and shards < 2:
        if files:
            raise ResultRejected("unknown_slot", next(iter(files)))
        return None
    if slots[0].name not in files:
        raise ResultRejected("result_missing", slots[0].name)
    return Staged(shards=shards, files=files)


def _files(told: Any, slots: Sequence[Slot], filled: Sequence[Filled]) -> dict[str, Filled]:
    """Hold what a cell says of its slots against the bytes in them."""
    if not isinstance(told, list) or len(told) > len(slots):
        raise ResultRejected("result_schema", f"{_STAGED}.files")
    caps = {one.name: one.max_bytes for one in slots}
    taken = {one.name: one for one in filled}
    named: set[str] = set()
    for position, item in enumerate(told):
        at = f"{_STAGED}.files.{position}"
        if not isinstance(item, dict):
            raise ResultRejected("result_schema", at)
        check_fields(item, _FILE_FIELDS, f"{at}.")
        slot = item["slot"]
        if not isinstance(slot, str) or slot not in caps or slot in named:
            raise ResultRejected("unknown_slot", at)
        named.add(slot)
        _hold(item, taken.get(slot), caps[slot], at)
    if stray := sorted(name for name, one in taken.items() if one.size and name not in named):
        raise ResultRejected("unknown_slot", stray[0] if stray[0] in caps else "")
    return {name: taken[name] for name in caps if name in named and taken[name].size}


def _hold(item: Mapping[str, Any], slot: Filled | None, cap: int, at: str) -> None:
    if slot is None or (not slot.size and item["size"] != 0):
        raise ResultRejected("result_missing", at)
    if slot.size > cap:
        raise ResultRejected("slot_too_large", at)
    with slot.open():  # one that was withheld says here why
        pass
    if type(item["size"]) is not int or (item["sha256"], item["size"]) != (slot.sha256, slot.size):
        raise ResultRejected("host_field_disagrees", at)
