"""JSON as nodes with line numbers, for policies that are written as JSON; numbers stay the text they were written in.

The refusals are those of strict JSON (section 3 of the report's specification), but fractions are accepted here: a
policy compares them exactly, as decimals.
"""

from __future__ import annotations

import re
from json.decoder import JSONDecodeError, scanstring  # type: ignore[attr-defined]
from typing import NoReturn

from assay.errors import shown
from assay.policy.loader import DEPTH, Node, Refused, Scalar, Sequence, Table, table

_BLANK = re.compile(r"[ \t\r\n]*")
_WORD = re.compile(r"[A-Za-z0-9.+-]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", re.ASCII)


def parse(text: str, file: str) -> Node:
    """Read one JSON document.

    Raises:
        Refused: not JSON, a key twice, nesting deeper than 32, an exponent, NaN, a lone surrogate or NUL.
    """
    scanner = _Scanner(text, file)
    root = scanner.value(0)
    if scanner.peek():
        scanner.refuse("a second document, or text after the document")
    return root


class _Scanner:
    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self._at = 0
        self._line = 1
        self._counted = 0

    def line(self) -> int:
        """Return the line of the current place."""
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def refuse(self, message: str) -> NoReturn:
        """Refuse the file at the current place."""
        raise Refused(self._file, self.line(), message)

    def peek(self) -> str:
        """Skip blanks and return the next letter, empty at the end."""
        blank = _BLANK.match(self._text, self._at)
        self._at = blank.end() if blank else self._at
        return self._text[self._at : self._at + 1]

    def value(self, level: int) -> Node:
        """Read the next value."""
        letter = self.peek()
        if letter in ("{", "["):
            if level == DEPTH:
                self.refuse(f"nested deeper than {DEPTH}")
            self._at += 1
            return self._object(level + 1) if letter == "{" else self._array(level + 1)
        line = self.line()
        if letter == '"':
            return Scalar(self._string(), False, line)
        word = _WORD.match(self._text, self._at)
        found = word.group() if word else letter
        if found not in ("true", "false", "null") and not _NUMBER.fullmatch(found):
            self.refuse(f"not JSON: expected a value, found {shown(found, 40) or 'the end'}")
        self._at += len(found)
        return Scalar(found, True, line)

    def _string(self) -> str:
        try:
            text, self._at = scanstring(self._text, self._at + 1, True)
        except JSONDecodeError as error:
            self.refuse(f"not JSON: {shown(error.msg, 80)}")
        if "\x00" in text or _SURROGATE.search(text):
            self.refuse("a string holds NUL or a lone surrogate")
        return str(text)

    def _array(self, level: int) -> Sequence:
        line, items = self.line(), []
        if self.peek() != "]":
            items.append(self.value(level))
            while self._comma("]"):
                items.append(self.value(level))
        self._at += 1
        return Sequence(tuple(items), line)

    def _object(self, level: int) -> Table:
        line, pairs = self.line(), []
        if self.peek() != "}":
            pairs.append(self._pair(level))
            while self._comma("}"):
                pairs.append(self._pair(level))
        self._at += 1
        return table(self._file, pairs, line)

    def _pair(self, level: int) -> tuple[Scalar, Node]:
        if self.peek() != '"':
            self.refuse('not JSON: expected a key in "quotes"')
        line = self.line()
        key = Scalar(self._string(), False, line)
        if self.peek() != ":":
            self.refuse("not JSON: expected `:` after a key")
        self._at += 1
        return key, self.value(level)

    def _comma(self, end: str) -> bool:
        letter = self.peek()
        if letter not in (",", end) or not letter:
            self.refuse(f"not JSON: expected `,` or `{end}`")
        self._at += letter == ","
        return letter == ","
