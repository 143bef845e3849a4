"""The strictness that rows of data roles are read with: one value a row, or the role refused by line and field."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from checks.check import Refusal

V = TypeVar("V")

TOLD_MAX = 20
"""Lines named of a role that is refused; the rest are counted (specifications of truth_probe and sae_features, 3)."""


def read_rows(
    rows: Sequence[Mapping[str, Any]],
    problems: Callable[[Mapping[str, Any]], Iterable[str]],
    made: Callable[[Mapping[str, Any]], V],
    *,
    names: Callable[[Mapping[str, Any]], Iterable[Hashable]] = lambda row: (row["id"],),
    place: str = "",
) -> tuple[V, ...]:
    """Return one value a row, or refuse the whole role.

    Args:
        rows: as parsed, in file order.
        problems: what is wrong with a row, each as "field:reason"; nothing where it can be made.
        made: makes a row without problems.
        names: what no two rows may share.
        place: stands before each line's name, where the role would not be clear.

    Raises:
        Refusal: `role_invalid`: the first twenty problems as "line:field:reason", and the total.
    """
    told: list[str] = []
    values: list[V] = []
    seen: set[Hashable] = set()
    for line, row in enumerate(rows, start=1):
        wrong = list(problems(row))
        if not wrong and not seen.isdisjoint(names(row)):
            wrong = ["id:duplicate"]
        told += (f"{place}line:{line}:{what}" for what in wrong)
        if not wrong:
            seen.update(names(row))
            values.append(made(row))
    if told:
        raise Refusal("role_invalid", (*told[:TOLD_MAX], f"total:{len(told)}"))
    return tuple(values)


def field_problems(
    row: Mapping[str, Any], required: Sequence[str], optional: Sequence[str], texts: Sequence[str]
) -> Iterable[str]:
    """Yield unknown fields, missing fields, and fields that should hold text and do not.

    Args:
        row: one row.
        required: fields that must be there.
        optional: further fields that may be.
        texts: fields of either kind that hold text where they are there.
    """
    known = {*required, *optional}
    # A caller's own field name may hold anything: only its alphabet is repeated.
    yield from (f"{safe(name)}:unknown" for name in sorted(map(str, row)) if name not in known)
    yield from (f"{name}:missing" for name in required if name not in row)
    yield from (f"{name}:not_text" for name in texts if name in row and not is_text(row[name]))


def is_text(value: object) -> bool:
    """Return whether a value is text that a tokenizer can take: not empty, and no half of a surrogate pair."""
    return isinstance(value, str) and bool(value) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def is_flag(value: object) -> bool:
    """Return whether a value is the integer 0 or 1; true and 1.0 are neither."""
    return type(value) is int and value in (0, 1)


def safe(name: object) -> str:
    """Return a caller's name in an alphabet that can be repeated, at most 40 characters."""
    kept = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "_" for letter in str(name)
    )
    return kept[:40] or "_"
