"""Reads the heads of a feed-forward model: which of its outputs answer which question."""

from __future__ import annotations

import re
from typing import Any

from sandbox.reader.error import ReaderError, shown

HEAD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,63}")
"""Names of heads travel as labels of metrics, with room for what else a label says."""

OUTPUT = "out"
"""Name of the head of a model that declares none."""

SHOWN_MAX = 128


def read_heads(given: Any, outputs: int | None) -> tuple[list[dict[str, Any]], list[ReaderError]]:
    """Return the heads, and every problem of them.

    Args:
        given: what the file says under "heads".
        outputs: number of the model's outputs; None where it is not known, and then no slice is beyond them.
    """
    if not isinstance(given, list):
        return [], [ReaderError("config_type", "key:heads")]
    problems = [] if given else [ReaderError("config_range", "key:heads")]
    heads = [_head(f"key:heads.{index}", head, outputs, problems) for index, head in enumerate(given)]
    names: set[str] = set()
    for index, head in enumerate(heads):
        if head.get("name") in names:
            problems.append(ReaderError("config_range", f"key:heads.{index}.name"))
        names.add(head.get("name", ""))
    last = 0
    for (start, stop), index in sorted((head["slice"], index) for index, head in enumerate(heads) if "slice" in head):
        if start < last:
            problems.append(ReaderError("config_range", f"key:heads.{index}.slice"))
        last = max(last, stop)
    return heads, problems


def _head(at: str, head: Any, outputs: int | None, problems: list[ReaderError]) -> dict[str, Any]:
    """Return those keys of a head that are good."""
    if not isinstance(head, dict):
        problems.append(ReaderError("config_type", at))
        return {}
    for key in sorted(head.keys() - {"name", "slice"}):
        problems.append(ReaderError("config_key_unknown", f"{at}.{shown(key)}"[:SHOWN_MAX]))
    codes = {"name": _wrong_name(head.get("name")), "slice": _wrong_slice(head.get("slice"), outputs)}
    for key, code in codes.items():
        if key not in head:
            problems.append(ReaderError("missing_required", f"{at}.{key}"))
        elif code is not None:
            problems.append(ReaderError(code, f"{at}.{key}"))
    return {key: head[key] for key, code in codes.items() if key in head and code is None}


def _wrong_name(name: Any) -> str | None:
    if not isinstance(name, str):
        return "config_type"
    return None if HEAD_NAME.fullmatch(name) else "config_range"


def _wrong_slice(part: Any, outputs: int | None) -> str | None:
    if not isinstance(part, list) or len(part) != 2 or not all(type(one) is int for one in part):
        return "config_type"
    return None if 0 <= part[0] < part[1] and (outputs is None or part[1] <= outputs) else "config_range"
