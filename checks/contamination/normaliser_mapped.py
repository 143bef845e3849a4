"""Text under edit that remembers which bytes of the original each of its characters came from."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.contamination.normaliser_letters import fold, fold_pieces

if TYPE_CHECKING:
    from jaxtyping import Int

_FOREIGN = re.compile(r"[\x00-\x7f]?[^\x00-\x7f]+")
"""A stretch that folding may change beyond its case, with the ASCII letter that a mark may join."""


@dataclass(frozen=True)
class Mapped:
    """Text whose character i came from the bytes begin[i]:end[i] of the original's UTF-8."""

    text: str
    begin: Int[np.ndarray, " letters"]
    end: Int[np.ndarray, " letters"]

    @classmethod
    def of(cls, text: str) -> Mapped:
        """Return text as it stands; it holds no lone surrogate."""
        points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        widths = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
        end = np.cumsum(widths)
        return cls(text, end - widths, end)

    def sub(self, pattern: re.Pattern[str], made: Callable[[re.Match[str]], str]) -> Mapped:
        """Return the text with every match replaced; the new characters stand for the whole match."""
        edits = [(found.start(), found.end(), made(found)) for found in pattern.finditer(self.text)]
        return self.edited(edits)

    def folded(self) -> Mapped:
        """Return `fold` of the text, piece by piece."""
        if self.text.isascii():
            return Mapped(fold(self.text), self.begin, self.end)
        edits: list[tuple[int, int, str]] = []
        last = 0
        for found in _FOREIGN.finditer(self.text):
            edits.append((last, last, ""))
            at = found.start()
            for piece in fold_pieces(found.group()):
                edits.append((at, at + len(piece), fold(piece)))
                at += len(piece)
            last = at
        done = self.edited(edits)
        return Mapped(fold(done.text) if done.text.isascii() else _lower(done.text), done.begin, done.end)

    def edited(self, edits: list[tuple[int, int, str]]) -> Mapped:
        """Return the text with each (start, end, replacement) applied; in order, not overlapping."""
        edits = [one for one in edits if one[2] != self.text[one[0] : one[1]]]
        if not edits:
            return self
        texts: list[str] = []
        begins: list[np.ndarray] = []
        ends: list[np.ndarray] = []
        last = 0
        for start, stop, new in edits:
            texts += (self.text[last:start], new)
            begins.append(self.begin[last:start])
            ends.append(self.end[last:start])
            first = int(self.begin[start]) if start < len(self.text) else int(self.end[-1]) if len(self.end) else 0
            after = int(self.end[stop - 1]) if stop > start else first
            begins.append(np.full(len(new), first, dtype=np.int64))
            ends.append(np.full(len(new), after, dtype=np.int64))
            last = stop
        texts.append(self.text[last:])
        begins.append(self.begin[last:])
        ends.append(self.end[last:])
        return Mapped("".join(texts), np.concatenate(begins), np.concatenate(ends))


_UPPER = re.compile(r"[A-Z]+")


def _lower(text: str) -> str:
    """Return text with its ASCII letters lowered; all others are folded already."""
    return _UPPER.sub(lambda found: found.group().lower(), text)
