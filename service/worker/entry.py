"""A third-party check's catalogue entry, held against what the host knows: its words are a stranger's.

The API validates parameters by the schema in it, so nothing of that schema may reach out or run long.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assay import catalogue, strict_json
from assay.catalogue import CheckEntry
from assay.errors import Malformed
from assay.result import DECIMAL

from sandbox.cell import Outcome
from service.worker.distribution import ThirdPartyRefused

SCHEMA = "assay-plugin-entries/v1"
ENTRY_BYTES = 256 * 1024
"""Ours have 5 KB."""
WALL_MAX_S = 86_400
KEYS = frozenset(
    {
        *("access", "capability", "code_sha256", "controls", "data_roles", "distribution", "false_positive_rate"),
        *("metrics", "name", "params", "power", "reasons", "source", "summary", "time_limit_s", "version", "words"),
    }
)
OPTIONAL = frozenset({"base_model", "artefacts", "shard_role"})
"""Left out where a check reads no second model, hands out nothing, and reads no data in shards."""
_CODES = frozenset(
    {
        *("list_invalid", "name_clash", "digest_mismatch", "import_failed", "foreign_module", "entry_missing"),
        *("not_a_check", "name_differs", "undeclared", "entry_invalid"),
    }
)
"""Refusals that `checks.plugins` tells; any other word of the cell is not repeated."""
_PATTERN = f"^{DECIMAL.pattern}$"
_REACHING = ("$id", "$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef", "patternProperties")
_ACCESS = {"weights", "activations", "gradients", "training_data"}


def told_by_cell(outcome: Outcome, nonce: str, said: str) -> Mapping[str, Any]:
    """Return the one entry that a describing cell handed out.

    Raises:
        ThirdPartyRefused: with the code that the loader in the cell told, or cell_died, entry_invalid.
    """
    if outcome.result is None:
        ending = outcome.why or f"{outcome.ended} {outcome.status}"
        raise ThirdPartyRefused("cell_died", f"{said}: the cell that loaded it ended by {ending}\n{outcome.log_tail}")
    try:
        value = strict_json.loads(outcome.result, ENTRY_BYTES)
    except Malformed as error:
        raise ThirdPartyRefused("entry_invalid", f"{said}: its cell's answer: {error}") from None
    if not isinstance(value, dict) or (value.get("schema"), value.get("nonce")) != (SCHEMA, nonce):
        raise ThirdPartyRefused("entry_invalid", f"{said}: its cell's answer is not one to this question")
    if "refused" in value:
        code = value["refused"] if value["refused"] in _CODES else "entry_invalid"
        raise ThirdPartyRefused(str(code), f"{said}: refused by the loader in the cell\n{outcome.log_tail}")
    checks = value.get("checks")
    if not isinstance(checks, list) or len(checks) != 1 or not isinstance(checks[0], dict):
        raise ThirdPartyRefused("entry_invalid", f"{said}: its cell's answer holds not one entry")
    return dict(checks[0])


def read_entry(data: bytes, host: Mapping[str, Any], said: str) -> CheckEntry:
    """Return an entry whose form, and whatever the host knows of it, is right.

    Args:
        data: its canonical bytes.
        host: fields that must have exactly these values.
        said: what an error calls the check.

    Raises:
        ThirdPartyRefused: entry_invalid or entry_stale.
    """
    try:
        value = strict_json.loads(data, ENTRY_BYTES)
        entry = catalogue.parse_entry(value)
    except Malformed as error:
        raise ThirdPartyRefused("entry_invalid", f"{said}: its catalogue entry: {error}") from None
    if odd := sorted((frozenset(value) - OPTIONAL) ^ KEYS):
        raise ThirdPartyRefused("entry_invalid", f"{said}: its catalogue entry has or lacks {', '.join(odd)[:256]}")
    for key, owed in host.items():
        if value[key] != owed:
            raise ThirdPartyRefused(
                "entry_stale", f"{said}: {key} of its catalogue entry is not {owed}: describe again"
            )
    wrong = _wrong(value)
    if wrong:
        raise ThirdPartyRefused("entry_invalid", f"{said}: {wrong} of its catalogue entry cannot be used")
    return entry


def _wrong(value: Mapping[str, Any]) -> str:
    """Return the first field that the service could not work with; empty when there is none."""
    limit = value["time_limit_s"]
    problems = {
        "access": not value["access"] or not _ACCESS.issuperset(value["access"]),
        "capability": value["capability"] != "cpu",
        "time_limit_s": type(limit) is not int or not 1 <= limit <= WALL_MAX_S,
        "metrics": not value["metrics"],
        "params": not _is_harmless(value["params"]),
    }
    return next((name for name, wrong in problems.items() if wrong), "")


def _is_harmless(schema: Any, *, in_definition: bool = False) -> bool:
    """Whether a JSON Schema names nothing outside of itself or in circles, and no pattern but that of decimals."""
    if isinstance(schema, list):
        return all(_is_harmless(one, in_definition=in_definition) for one in schema)
    if not isinstance(schema, dict):
        return True
    for key, value in schema.items():
        if key == "$ref" and (in_definition or not (isinstance(value, str) and value.startswith("#/$defs/"))):
            return False
        if key in _REACHING or (key == "pattern" and isinstance(value, str) and value != _PATTERN):
            return False
    return all(_is_harmless(value, in_definition=in_definition or key == "$defs") for key, value in schema.items())
