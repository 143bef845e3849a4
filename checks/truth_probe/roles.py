"""The roles of single texts, `benign` and `statements`, and the strictness that every role is read with.

Specification: truth_probe, sections 3 and 5.14. Nothing here looks at a state.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from checks.check import Refusal, Text

V = TypeVar("V")

TOLD_MAX = 20
"""Lines named of a role that is refused; the rest are counted (section 3)."""

BENIGN_FIELDS = ("id", "cluster", "text")
STATEMENT_FIELDS = (*BENIGN_FIELDS, "true", "asserted")
RESERVED_SETS = ("benign", "statements")
"""What ids of these roles begin with; a set of that name would share them."""


@dataclass(frozen=True)
class Benign:
    """A text that nobody should be alarmed by; it sets and measures the alarm rate (5.14)."""

    id: str
    cluster: str
    """The unit of halving and of resampling."""
    words: str
    read_at: int | None
    """Character before which the state is read; None reads the last token."""

    def text(self) -> Text:
        """Return the text to sweep."""
        return Text(id=f"benign/{self.id}", text=self.words, read_at=self.read_at)


@dataclass(frozen=True)
class Statement:
    """A single text that is true or false, and that somebody asserts or not (5.14)."""

    id: str
    cluster: str
    words: str
    true: int
    """1 where the statement is true, 0 where it is false."""
    asserted: int | None
    """1 where the speaker asserts it, 0 where not, None where nobody said."""
    read_at: int | None

    def text(self) -> Text:
        """Return the text to sweep."""
        return Text(id=f"statements/{self.id}", text=self.words, read_at=self.read_at)


def read_benign(rows: Sequence[Mapping[str, Any]]) -> tuple[Benign, ...]:
    """Return the texts of the role `benign`, in file order.

    Raises:
        Refusal: `role_invalid`, naming line, field and reason of the first twenty problems and the total count.
    """

    def made(row: Mapping[str, Any]) -> Benign:
        return Benign(id=row["id"], cluster=row["cluster"], words=row["text"], read_at=_position(row))

    return read_rows(rows, _benign_problems, made, place="benign:")


def read_statements(rows: Sequence[Mapping[str, Any]]) -> tuple[Statement, ...]:
    """Return the texts of the role `statements`, in file order.

    Raises:
        Refusal: `role_invalid`, as `read_benign`.
    """

    def made(row: Mapping[str, Any]) -> Statement:
        return Statement(
            id=row["id"],
            cluster=row["cluster"],
            words=row["text"],
            true=row["true"],
            asserted=row["asserted"],
            read_at=_position(row),
        )

    return read_rows(rows, _statement_problems, made, place="statements:")


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


def _benign_problems(row: Mapping[str, Any]) -> Iterable[str]:
    yield from field_problems(row, BENIGN_FIELDS, ("read_at",), BENIGN_FIELDS)
    yield from _read_at(row)


def _statement_problems(row: Mapping[str, Any]) -> Iterable[str]:
    yield from field_problems(row, STATEMENT_FIELDS, ("read_at",), BENIGN_FIELDS)
    if "true" in row and not is_flag(row["true"]):
        yield "true:not_0_or_1"
    if row.get("asserted") is not None and not is_flag(row["asserted"]):
        yield "asserted:not_0_1_null"
    yield from _read_at(row)


def _read_at(row: Mapping[str, Any]) -> Iterable[str]:
    at = row.get("read_at", "last")
    if at == "last":
        return
    if type(at) is not int:
        yield "read_at:not_last_or_integer"
    elif is_text(row.get("text")) and not 0 < at <= len(row["text"]):
        yield "read_at:outside_the_text"


def _position(row: Mapping[str, Any]) -> int | None:
    at = row.get("read_at", "last")
    return None if at == "last" else int(at)
