"""The roles of single texts, `benign` and `statements`.

Specification: truth_probe, sections 3 and 5.14. Nothing here looks at a state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from checks.check import Text
from checks.role_rows import field_problems, is_flag, is_text, read_rows

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
