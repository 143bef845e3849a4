"""A cell's result, read as hostile: strict JSON to its end, one schema, one nonce, nothing that is the host's to say.

This is the half that needs no vocabulary of ours; what the values may be, the reader's caller knows (names, numbers,
words). Nothing is repaired: a document is accepted whole or rejected whole, with one code.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from sandbox.cell import Outcome
from sandbox.errors import ResultRejected
from sandbox.reader import strict_json
from sandbox.reader.error import ReaderError

DEPTH = 24
"""Our deepest document nests 12 levels."""

# fmt: off
CODES = frozenset({
    "result_missing", "result_over_cap", "result_not_utf8", "result_bom", "result_trailing", "result_duplicate_key",
    "result_too_deep", "result_number", "result_surrogate", "result_schema", "result_nonce", "host_field_claimed",
    "host_field_disagrees", "unknown_slot", "slot_too_large", "slot_not_regular", "free_text", "unquantised_number",
    "output_budget",
})
"""Closed list of what can be wrong with what comes out of a cell (specs: sandbox, section 9)."""

HOST_FIELDS = frozenset({
    "attempt", "attempts", "audit", "catalogue_sha256", "cells", "code_sha256", "composed_at", "cpu_s", "data",
    "ended_at", "entropy", "environment", "exit_class", "job", "layers", "limits", "manifest_sha256", "measured_at",
    "model", "network", "output", "policy_sha256", "profile_sha256", "registered_at", "registration",
    "request_sha256", "sandbox", "seal", "seed", "signature", "signatures", "signer", "started_at", "state",
    "statements", "submitted_at", "timings", "token", "usage", "verdict", "wall_s",
})
"""What only the host may say. A cell that says it is not believed at all."""

NOWHERE = frozenset({
    "composed_at", "cpu_s", "ended_at", "exit_class", "measured_at", "registered_at", "seal", "signature",
    "signatures", "started_at", "submitted_at", "timings", "usage", "verdict", "wall_s",
})
"""Of these, what may stand at no depth: times, usage, seal and verdict are no check's words for anything."""
# fmt: on

_JSON_CODES = {
    "size_cap": "result_over_cap",
    "json_bom": "result_bom",
    "json_duplicate_key": "result_duplicate_key",
    "json_too_deep": "result_too_deep",
    "json_number": "result_number",
    "json_surrogate": "result_surrogate",
}


def take_result(outcome: Outcome) -> bytes:
    """Return what a run left to be parsed.

    Raises:
        ResultRejected: result_over_cap, it wrote more than it may; result_missing, it wrote nothing, or it did not end
            by itself with status 0, and then it is no result whatever was written.
    """
    if outcome.why == "output_cap":
        raise ResultRejected("result_over_cap")
    if outcome.why is not None or outcome.ended != "exited" or outcome.status != 0 or not outcome.result:
        raise ResultRejected("result_missing")
    return outcome.result


def read_result(
    data: bytes, *, schema: str, nonce: str, fields: Collection[str], cap: int, depth: int = DEPTH
) -> dict[str, Any]:
    """Return the document that a cell wrote.

    Args:
        data: everything the cell wrote.
        schema: name of the document's form.
        nonce: what this one cell was given.
        fields: the document's keys, `schema` and `nonce` among them; each must be there, and no other.
        cap: most bytes.
        depth: most nested arrays and objects.

    Raises:
        ResultRejected: with one of `CODES`, and the place.
    """
    document = document_of(data, cap=cap, depth=depth)
    if not isinstance(document, dict):
        raise ResultRejected("result_schema")
    check_fields(document, fields, "")
    if document["schema"] != schema:
        raise ResultRejected("result_schema", "schema")
    if document["nonce"] != nonce:
        raise ResultRejected("result_nonce")
    claimed = _claimed(document)
    if claimed is not None:
        raise ResultRejected("host_field_claimed", claimed)
    return document


def document_of(data: bytes, *, cap: int, depth: int) -> Any:
    """Return the one value that a cell wrote.

    Raises:
        ResultRejected: result_missing, or a code that says why it is no strict JSON.
    """
    if not data:
        raise ResultRejected("result_missing")
    try:
        return strict_json.loads(data, cap=cap, depth=depth)
    except ReaderError as error:
        raise ResultRejected(_JSON_CODES.get(error.code) or _why_invalid(data), error.at) from None


def check_fields(found: Mapping[str, Any], fields: Collection[str], at: str) -> None:
    """Refuse unknown and missing fields; a host-owned one has its own code.

    Args:
        found: one object of a document.
        fields: what it must have, and nothing else.
        at: where it stands, ending in a point, for the error.

    Raises:
        ResultRejected: host_field_claimed, result_schema.
    """
    for name in found:
        if name not in fields:
            code = "host_field_claimed" if name in HOST_FIELDS else "result_schema"
            raise ResultRejected(code, f"{at}{name if name in HOST_FIELDS else 'unknown'}")
    for name in fields:
        if name not in found:
            raise ResultRejected("result_schema", f"{at}{name}")


def _claimed(document: dict[str, Any]) -> str | None:
    """Return a key that may stand nowhere, if there is one; parameters are the order's and are compared with it."""
    pending: list[Any] = list(document.values())
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending += value
        elif isinstance(value, dict):
            found = sorted(NOWHERE & value.keys())
            if found:
                return found[0]
            pending += [item for key, item in value.items() if key != "params"]
    return None


def _why_invalid(data: bytes) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return "result_not_utf8"
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return "result_schema"
    return "result_trailing" if end < len(text) else "result_schema"
