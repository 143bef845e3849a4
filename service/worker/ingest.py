"""What an ingest cell says, parsed as hostile; and what it wrote, handed on without being parsed at all.

The host reads the decisions, because they go into the report. The canonical files are bytes to it: counted, hashed and
given to the cell that measures, which reads them again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.predicate import Decision, Ingest
from pydantic import ValidationError

from sandbox.budget import charge_bytes
from sandbox.cell import Filled, Input
from sandbox.errors import ResultRejected
from sandbox.ingest import CODES, CONFIG, RESULT_CAP, RESULT_SCHEMA, SLOTS, TENSORS
from sandbox.reader.feedforward import FILE as DECLARATION
from sandbox.result import check_fields, read_result
from service.worker.errors import HostFault

_FIELDS = ("schema", "nonce", "refused", "decisions", "more")
_PLACE = re.compile(r"[A-Za-z0-9._:/@+\\-]{1,160}")
_TEXTS, _NUMBERS = frozenset({"key", "tensor"}), frozenset({"line", "offset"})
_WORDS = frozenset({"accepted", "dropped", "refused"})
_DEPTH = 6


@dataclass(frozen=True, kw_only=True)
class Ingested:
    """What the ingest cell decided."""

    decisions: tuple[Decision, ...]
    refused: bool
    more: int
    """Decisions that it left out."""
    output_bytes: int
    """What the audit's output budget is charged for them."""

    def told(self, loading: Sequence[Decision] = ()) -> Ingest:
        """Return what the report says of the reading, with what loading added later."""
        row = Decision(path=None, decision="dropped", reason="ingest_limit", at={"line": self.more})
        return Ingest(decisions=(*self.decisions, *([row] if self.more else []), *loading))

    @property
    def reason(self) -> str:
        """Code of the first refusal."""
        return next(one.reason or "" for one in self.decisions if one.decision == "refused")


def parse_ingest(data: bytes, *, nonce: str, paths: Collection[str]) -> Ingested:
    """Accept or reject the document of an ingest cell.

    Args:
        data: everything the cell wrote.
        nonce: what this one cell was given.
        paths: the model's files.

    Raises:
        ResultRejected: with a code of specs: sandbox, section 9, and the place.
    """
    document = read_result(data, schema=RESULT_SCHEMA, nonce=nonce, fields=_FIELDS, cap=RESULT_CAP, depth=_DEPTH)
    refused, more, told = document["refused"], document["more"], document["decisions"]
    for field, good in (
        ("refused", isinstance(refused, bool)),
        ("more", type(more) is int and more >= 0),
        ("decisions", isinstance(told, list)),
    ):
        if not good:
            raise ResultRejected("result_schema", field)
    decisions = tuple(_decision(one, f"decisions.{position}", paths) for position, one in enumerate(told))
    if refused != any(one.decision == "refused" for one in decisions):
        raise ResultRejected("result_schema", "refused")
    known = {*paths, *CODES, *_WORDS, *_TEXTS, *_NUMBERS, *Decision.model_fields}
    charge = charge_bytes([told, more], known)
    return Ingested(decisions=decisions, refused=refused, more=more, output_bytes=charge)


def _decision(found: Any, at: str, paths: Collection[str]) -> Decision:
    """Return one decision: every word of it is of a closed list, of the manifest, or a place in the name alphabet."""
    if not isinstance(found, dict):
        raise ResultRejected("result_schema", at)
    check_fields(found, tuple(Decision.model_fields), f"{at}.")
    path, word, reason = found["path"], found["decision"], found["reason"]
    if not isinstance(word, str) or word not in _WORDS or (word == "refused" and reason is None):
        raise ResultRejected("result_schema", f"{at}.decision")
    if path is not None and not (isinstance(path, str) and path in paths):
        raise ResultRejected("free_text", f"{at}.path")
    if reason is not None and not (isinstance(reason, str) and reason in CODES):
        raise ResultRejected("free_text", f"{at}.reason")
    _check_place(found["at"], f"{at}.at")
    try:
        return Decision.model_validate(found)
    except ValidationError:
        raise ResultRejected("result_schema", at) from None


def _check_place(found: Any, at: str) -> None:
    if found is None:
        return
    if not isinstance(found, dict) or len(found) != 1:
        raise ResultRejected("result_schema", at)
    ((kind, value),) = found.items()
    of_number = kind in _NUMBERS and type(value) is int and value >= 0
    of_text = kind in _TEXTS and isinstance(value, str)
    if not (of_number or of_text):
        raise ResultRejected("result_schema", at)
    if of_text and not _PLACE.fullmatch(value):
        raise ResultRejected("free_text", at)


@dataclass(frozen=True, kw_only=True)
class PassedOn:
    """The canonical files of an accepted model, as inputs of the cell that measures."""

    files: Mapping[str, Input]
    """By manifest path."""
    tensors: Input

    @property
    def inputs(self) -> tuple[Input, ...]:
        """All of them."""
        return (*self.files.values(), self.tensors)


def pass_on(slots: Sequence[Filled], paths: Collection[str], folder: Path, name: str = "model") -> PassedOn:
    """Write what an ingest cell left to a private folder, unread.

    Args:
        slots: as the host took them when the cell was gone.
        paths: the model's files.
        folder: private to this attempt.
        name: how the order calls the model; of its base the inputs have names of their own.

    Raises:
        ResultRejected: slot_too_large; result_missing, a slot is empty whose file the model has; unknown_slot, one was
            filled for a file that the model does not have.
        HostFault: the disk failed.
    """
    filled = {one.name: one for one in slots}
    prefix = "ingest" if name == "model" else f"{name}.ingest"
    made = {}
    for slot, cap in SLOTS.items():
        size = filled[slot].size if slot in filled else 0
        if size > cap:
            raise ResultRejected("slot_too_large", slot)
        owed = slot in (CONFIG, TENSORS) or slot in paths
        if bool(size) != owed:
            raise ResultRejected("result_missing" if owed else "unknown_slot", slot)
        if owed:
            made[slot] = _write(filled[slot], folder / f"{prefix}.{slot}")
    tensors = made.pop(TENSORS)
    if DECLARATION in paths:  # the one declaration of the model, whichever it is, comes in this slot
        made[DECLARATION] = made.pop(CONFIG)
    return PassedOn(files=made, tensors=tensors)


def _write(filled: Filled, target: Path) -> Input:
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o444)
        with os.fdopen(descriptor, "wb") as out, filled.open() as content:
            os.fchmod(descriptor, 0o444)
            while piece := content.read(2**20):
                out.write(piece)
    except OSError as error:
        raise HostFault(f"{target.name}: the disk failed: {error.strerror}") from error
    return Input(name=target.name, source=target, sha256=filled.sha256, size=filled.size)
