"""Fields of a table, each read as what the policy language says it is, and refused with its line otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import NoReturn, TypeVar

from assay.decimals import NAME, canonical_decimal
from assay.errors import shown
from assay.manifest import is_sha256
from assay.policy.loader import Document, Node, Refused, Scalar, Sequence, Table

T = TypeVar("T")

Labels = tuple[tuple[str, str], ...]
"""Labels of an instance, sorted by key."""

TEXT_MAX = 512
"""Most characters of a free text, as in the report itself (specification, section 3)."""

COUNT_MAX = 2**53 - 1
"""Largest integer that every JSON reader reads exactly (specification, section 3)."""


@dataclass(frozen=True)
class Fields:
    """The fields of one table. Call `known` first: a field that nobody reads would promise what is not kept."""

    document: Document
    table: Table
    named: str
    """What the table is, for messages, e.g. "assertion"."""

    @classmethod
    def of(cls, document: Document, node: Node, named: str, known: tuple[str, ...]) -> Fields:
        """Return the fields of a node.

        Raises:
            Refused: it is no mapping, or has a field outside `known`.
        """
        if not isinstance(node, Table):
            document.refuse(node, f"{named} is a mapping")
        for key in node.fields:
            if key not in known:
                raise Refused(
                    document.file, node.lines[key], f"{named} has no field {shown(key, 60)}; it has {', '.join(known)}"
                )
        return cls(document, node, named)

    def refuse(self, field: str, message: str) -> NoReturn:
        """Refuse the file at a field."""
        line = self.table.lines.get(field, self.table.line)
        raise Refused(self.document.file, line, f"{self.named}: {field} {message}")

    def scalar(self, field: str) -> Scalar | None:
        """Return a scalar as it was written; None when it is absent or null."""
        node = self.table.fields.get(field)
        if node is None:
            return None
        if not isinstance(node, Scalar):
            self.refuse(field, "is one value, not a list or a mapping")
        if node.plain and node.text == "null":
            return None
        if node.plain and not node.text:
            self.refuse(field, "is empty; write null, or leave the field out")
        return node

    def need(self, field: str, value: T | None) -> T:
        """Return a value that must be there."""
        if value is None:
            self.refuse(field, "is missing")
        return value

    def name(self, field: str) -> str | None:
        """Return a text of the name alphabet, as it was written."""
        found = self.scalar(field)
        return None if found is None else self._named(field, found)

    def _named(self, field: str, found: Scalar) -> str:
        if found.plain and found.text in ("true", "false", "null"):
            self.refuse(field, f"is a name; write {found.text} in quotes if it is one")
        if not NAME.fullmatch(found.text):
            self.refuse(field, f"is no name ([A-Za-z0-9._:/@+-], at most 128 characters): {shown(found.text, 60)}")
        return found.text

    def text(self, field: str) -> str | None:
        """Return a free text: printable, not empty, at most 512 characters."""
        found = self.scalar(field)
        if found is None:
            return None
        if not found.text.strip() or len(found.text) > TEXT_MAX or not found.text.isprintable():
            self.refuse(field, f"is a printable text of 1 to {TEXT_MAX} characters")
        return found.text

    def choice(self, field: str, words: tuple[str, ...]) -> str | None:
        """Return one of a few words."""
        found = self.scalar(field)
        if found is not None and found.text not in words:
            self.refuse(field, f"is one of {', '.join(words)}; found {shown(found.text, 60)}")
        return None if found is None else found.text

    def count(self, field: str, low: int, high: int = COUNT_MAX) -> int | None:
        """Return a whole number of a range."""
        found = self.scalar(field)
        if found is None:
            return None
        digits = found.text
        fits = found.plain and digits.isascii() and digits.isdecimal() and len(digits) <= len(str(COUNT_MAX))
        if not fits or (digits[0] == "0" and digits != "0") or not low <= int(digits) <= high:
            self.refuse(field, f"is a whole number from {low} to {high}; found {shown(digits, 60)}")
        return int(digits)

    def decimal(self, field: str) -> Decimal | None:
        """Return a decimal; in quotes or not, since both are text here."""
        found = self.scalar(field)
        return None if found is None else self._decimal(field, found)

    def _decimal(self, field: str, found: Scalar) -> Decimal:
        try:
            return Decimal(canonical_decimal(found.text))
        except ValueError:
            self.refuse(field, f"is a decimal like 0.60, without exponent; found {shown(found.text, 60)}")

    def pair(self, field: str) -> tuple[Decimal, Decimal]:
        """Return [low, high]."""
        node = self.table.fields.get(field)
        if not isinstance(node, Sequence) or len(node.items) != 2:
            self.refuse(field, "is [low, high] under `within`")
        low, high = (self._decimal(field, item) if isinstance(item, Scalar) else None for item in node.items)
        if low is None or high is None or low > high:
            self.refuse(field, "is [low, high], two decimals in order")
        return low, high

    def names(self, field: str) -> tuple[str, ...] | None:
        """Return a list of distinct names, at least one, sorted."""
        node = self.table.fields.get(field)
        if node is None or (isinstance(node, Scalar) and node.plain and node.text == "null"):
            return None
        if not isinstance(node, Sequence) or not node.items:
            self.refuse(field, "is a list of names, at least one")
        found = [self._named(field, item) if isinstance(item, Scalar) else "" for item in node.items]
        if "" in found or len(set(found)) != len(found):
            self.refuse(field, "is a list of distinct names")
        return tuple(sorted(found))

    def labels(self, field: str) -> Labels:
        """Return a mapping of names to names, sorted by key; empty when absent."""
        node = self.table.fields.get(field)
        if node is None:
            return ()
        if not isinstance(node, Table):
            self.refuse(field, "is a mapping of labels to values")
        found = []
        for key, value in node.fields.items():
            if not isinstance(value, Scalar) or not NAME.fullmatch(key):
                self.refuse(field, "is a mapping of label names to single values")
            found.append((key, self._named(field, value)))
        return tuple(sorted(found))

    def each(self, field: str, read: Callable[[Node], T]) -> tuple[T, ...]:
        """Return the items of a list, each read by a function; empty when absent."""
        node = self.table.fields.get(field)
        if node is None:
            return ()
        if not isinstance(node, Sequence):
            self.refuse(field, "is a list")
        return tuple(read(item) for item in node.items)

    def day(self, field: str) -> date | None:
        """Return a date written 2026-01-02."""
        found = self.scalar(field)
        if found is None:
            return None
        try:
            value = date.fromisoformat(found.text)
        except ValueError:
            value = None
        if value is None or value.isoformat() != found.text:
            self.refuse(field, f"is a day like 2026-01-02; found {shown(found.text, 60)}")
        return value

    def sha256(self, field: str) -> str | None:
        """Return a digest."""
        found = self.scalar(field)
        if found is not None and not is_sha256(found.text):
            self.refuse(field, "is a digest: 64 lower-case hexadecimal digits")
        return None if found is None else found.text
