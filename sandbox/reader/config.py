"""Contents of configuration files: which keys reach a loader, which are dropped, which refuse the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from sandbox.reader.error import ReaderError, shown

FORBIDDEN = ("auto_map", "custom_*", "_attn_implementation*", "trust_remote_code")
"""Keys that name code to load; refused at any depth, whatever a list of architectures says."""

TEXT_MAX = 256
ITEMS_MAX = 4096
NUMBER_MAX = 2**40

DIMENSIONS = {
    "hidden_size": 2**20, "n_embd": 2**20, "d_model": 2**20, "intermediate_size": 2**22, "n_inner": 2**22,
    "num_hidden_layers": 2**12, "n_layer": 2**12, "num_layers": 2**12,
    "num_attention_heads": 2**14, "n_head": 2**14, "num_heads": 2**14, "num_key_value_heads": 2**14,
    "vocab_size": 2**24, "max_position_embeddings": 2**28, "n_positions": 2**28, "n_ctx": 2**28,
}  # fmt: skip
"""Keys that size memory, with their largest value: far above any published model, far below an overflow."""


def check_forbidden(document: Any, extra: tuple[str, ...] = ()) -> Iterator[ReaderError]:
    """Yield each forbidden key, at any depth.

    Args:
        document: the parsed file.
        extra: further patterns, from the list of architectures.
    """
    patterns = FORBIDDEN + extra
    pending = [document]
    while pending:
        one = pending.pop()
        if isinstance(one, dict):
            for key in one:
                if any(fnmatchcase(key, pattern) for pattern in patterns):
                    yield ReaderError("config_key_forbidden", f"key:{shown(key)}")
            pending += one.values()
        elif isinstance(one, list):
            pending += one


def check_value(key: str, value: Any) -> ReaderError | None:
    """Return the problem of a used key's value: a wrong type, or a size that no model has."""
    at = f"key:{shown(key)}"
    if key in DIMENSIONS and value is not None:
        if type(value) is not int:
            return ReaderError("config_type", at)
        if not 1 <= value <= DIMENSIONS[key]:
            return ReaderError("config_range", at)
    pending = [value]
    count = 0
    while pending:
        one = pending.pop()
        count += 1
        if isinstance(one, dict):
            pending += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            pending += one
        elif isinstance(one, str):
            if len(one) > TEXT_MAX or not one.isprintable():
                return ReaderError("config_range", at)
        elif one is not None and abs(one) > NUMBER_MAX:
            return ReaderError("config_range", at)
        if count > ITEMS_MAX:
            return ReaderError("config_range", at)
    return None


def split_config(
    document: dict[str, Any], architectures: Mapping[str, Any]
) -> tuple[dict[str, Any], list[tuple[str, str | None]], list[ReaderError]]:
    """Sort the keys of a `config.json` by its architecture's lists.

    Args:
        document: the parsed file.
        architectures: the whole document of `architectures.json`.

    Returns:
        What reaches a loader; (key, code or None) of each dropped key; the problems that refuse the model.
    """
    problems = list(check_forbidden(document, tuple(architectures.get("forbidden", ()))))
    name = document.get("model_type")
    if not isinstance(name, str):
        return {}, [], [*problems, ReaderError("config_type", "key:model_type")]
    known = architectures.get("architectures", {}).get(name)
    if known is None:
        return {}, [], [*problems, ReaderError("architecture_unknown", f"key:{shown(name)}")]
    used = {*known["used"], "model_type"}
    ignorable = {*known.get("ignorable", ()), *architectures.get("ignorable", ())}
    kept: dict[str, Any] = {}
    dropped: list[tuple[str, str | None]] = []
    for key, value in document.items():
        if key not in used:
            dropped.append((key, None if key in ignorable else "config_key_unknown"))
        elif problem := check_value(key, value):
            problems.append(problem)
        else:
            kept[key] = value
    return kept, dropped, problems
