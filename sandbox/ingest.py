"""The program of an ingest cell: alone parses a model's files, and passes on what it accepted in canonical form.

    in/order.json      {"schema": "assay-ingest-order/v1", "nonce", "files": [{"path", "input", "sha256", "size"}]}
    in/architectures.json, and each file by its input's name; one without an input is decided by its path alone
    out/config.json, generation_config.json, tokenizer.json, tensors.json
    descriptor 3       {"schema": "assay-ingest/v1", "nonce", "refused", "decisions": [...], "more"}

Weights are never rewritten: only their headers are read, and `tensors.json` says what they hold. The cell that
measures reads those headers again and refuses on any difference. A slot stays empty when its file is absent, and all of
them when the model is refused. Standard library only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sandbox.cell import REQUEST_MAX, canonical
from sandbox.reader import names, strict_json
from sandbox.reader.feedforward import FILE as DECLARATION
from sandbox.reader.model import Decision, ModelReading, read_capped, read_model
from sandbox.reader.safetensors import TensorEntry

REQUEST_SCHEMA = "assay-ingest-order/v1"
RESULT_SCHEMA = "assay-ingest/v1"
RESULT_CAP = 256 * 2**10
"""Bytes of a result; decisions that do not fit are counted in `more`, refusals last."""
RESULT_DESCRIPTOR = 3

ARCHITECTURES = "architectures.json"
"""Name of the input that holds the keys of each architecture."""
NOT_GIVEN = "not.given"
"""Where the bytes of a file would lie that is never read: no input has this name, so to open it is a refusal."""
CONFIG, GENERATION, TOKENIZER, TENSORS = "config.json", "generation_config.json", "tokenizer.json", "tensors.json"
SLOTS: Mapping[str, int] = MappingProxyType(
    {
        CONFIG: names.CONFIG_CAP,
        GENERATION: names.CONFIG_CAP,
        TOKENIZER: names.TOKENIZER_CAP,
        TENSORS: 64 * 2**20,
    }
)
"""What is passed on, each with its most bytes; a model whose canonical file would be larger is refused.

`config.json` is the declaration of a feed-forward model too: there is one of the two, never both."""

# fmt: off
CODES = frozenset({
    "not_on_list", "name_charset", "name_depth", "name_case_clash", "too_many_files", "not_regular", "size_cap",
    "quota", "digest_mismatch", "missing_required", "magic_mismatch", "file_unreadable", "json_invalid",
    "json_duplicate_key", "json_too_deep", "json_number", "json_surrogate", "json_bom", "config_key_forbidden",
    "config_key_unknown", "config_type", "config_range", "architecture_unknown", "tokenizer_component",
    "tokenizer_regex", "tokenizer_merge", "tokenizer_ids", "tokenizer_size", "st_short", "st_header_cap",
    "st_header_type", "st_dtype", "st_shape", "st_overlap", "st_hole", "st_tail", "st_name", "st_metadata",
    "st_too_many_tensors", "st_duplicate_tensor", "st_empty", "index_path", "index_mismatch", "load_missing_key",
    "load_unexpected_key", "ingest_limit",
})
# fmt: on
"""Every reason that a decision of this program can have."""


def main() -> None:
    """Read what the order names; write slots and result. A bug is an exception, and so an exit that is no answer."""
    request = strict_json.loads(Path("in/order.json").read_bytes(), cap=REQUEST_MAX)
    if request["schema"] != REQUEST_SCHEMA:
        raise ValueError(f"this program reads {REQUEST_SCHEMA}, not {request['schema']}")
    files = {one["path"]: Path("in", one.get("input", NOT_GIVEN)) for one in request["files"]}
    architectures = json.loads(Path("in", ARCHITECTURES).read_bytes())
    refused, decisions, more, slots = ingest(files, architectures)
    for name, content in slots.items():
        _fill(Path("out", name), content)
    with os.fdopen(RESULT_DESCRIPTOR, "wb") as channel:
        channel.write(result(request["nonce"], refused, decisions, more))


def ingest(
    files: Mapping[str, Path], architectures: Mapping[str, Any]
) -> tuple[bool, list[Decision], int, dict[str, bytes]]:
    """Read a model.

    Args:
        files: manifest path to where its bytes lie.
        architectures: the whole document of `architectures.json`.

    Returns:
        Whether it is refused, the decisions, how many more there were, and each slot's content; none when refused.
    """
    reading = read_model(files, architectures)
    decisions = [one for one in reading.decisions if one.reason != "ingest_limit"]  # `more` says it
    slots: dict[str, bytes] = {}
    refused = reading.refused
    if not refused:
        slots = _canonical_files(reading, files)
        over = [_oversized(name, files) for name, content in slots.items() if len(content) > SLOTS[name]]
        if over:
            refused, slots = True, {}
            gone = {one.path for one in over}
            decisions = over + [one for one in decisions if one.path not in gone or one.decision != "accepted"]
    return refused, decisions, reading.more, slots


def _canonical_files(reading: ModelReading, files: Mapping[str, Path]) -> dict[str, bytes]:
    made = {CONFIG: canonical(reading.config), TENSORS: table(reading.tensors)}
    if GENERATION in files:
        made[GENERATION] = canonical(reading.documents[GENERATION])
    if TOKENIZER in files:
        # Parsed a second time: to keep it while everything else is read would double the memory of the largest file.
        data = read_capped(files[TOKENIZER], names.TOKENIZER_CAP)
        made[TOKENIZER] = canonical(strict_json.loads(data, cap=names.TOKENIZER_CAP, fractions=True))
    return made


def _oversized(name: str, files: Mapping[str, Path]) -> Decision:
    """A number such as 1e15 is longer when it is written out; a table repeats the name of each tensor's file."""
    if name == TENSORS:
        return Decision(path=None, decision="refused", reason="st_too_many_tensors")
    path = name if name in files else DECLARATION
    return Decision(path=path, decision="refused", reason="size_cap", at={"offset": SLOTS[name]})


def table(tensors: Sequence[TensorEntry]) -> bytes:
    """Return `tensors.json`: the canonical list of all tensors, by name. Equal tables have equal bytes."""
    return canonical(
        [
            {
                "name": one.name,
                "file": one.file,
                "dtype": one.dtype,
                "shape": list(one.shape),
                "begin": one.begin,
                "end": one.end,
            }
            for one in sorted(tensors, key=lambda one: one.name)
        ]
    )


def result(nonce: str, refused: bool, decisions: Sequence[Decision], more: int, *, cap: int = RESULT_CAP) -> bytes:
    """Return the result's canonical bytes, within the cap: what does not fit is counted, refusals are kept first."""
    kept = list(decisions)
    document = _document(nonce, refused, kept, more)
    if len(document) > cap:
        kept.sort(key=lambda one: one.decision != "refused")
    while len(document) > cap and kept:
        left = min(len(kept) - 1, len(kept) * cap // len(document))
        more += len(kept) - left
        del kept[left:]
        document = _document(nonce, refused, kept, more)
    return document


def _document(nonce: str, refused: bool, decisions: Sequence[Decision], more: int) -> bytes:
    told = [one.to_json() for one in decisions]
    return canonical({"schema": RESULT_SCHEMA, "nonce": nonce, "refused": refused, "decisions": told, "more": more})


def _fill(slot: Path, content: bytes) -> None:
    # The slot is there already; nothing is ever created.
    with open(os.open(slot, os.O_WRONLY | os.O_CLOEXEC), "wb") as stream:
        stream.write(content)


if __name__ == "__main__":
    main()
