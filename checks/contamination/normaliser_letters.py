"""What each code point is to the normaliser `n1`, and how it is folded (specification: contamination, 6.2)."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import UInt8

OTHER, LETTER, DIGIT, CJK, SIGN = range(5)
"""Kinds of code points after folding: words are runs of letters, numbers runs of digits, the rest stands alone."""

SIGNS = "%$/"
"""The signs that stay tokens (6.2); all others only separate."""

CJK_RANGES = (
    (0x3040, 0x30FF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x323AF),
)
"""Blocks written without spaces: Hiragana, Katakana, and the Han blocks of the Unicode standard."""

DOUBLE_QUOTES = "\u201c\u201d\u201e\u201f\u00ab\u00bb\u2039\u203a\u2033\u301d\u301e"
SINGLE_QUOTES = "\u2018\u2019\u201a\u201b\u2032\u02bc"
SLASHES = "\u2044\u2215"
"""Fraction slash and division slash: NFKC leaves them where it opens a vulgar fraction."""
LINE_ENDS = "\u0085\u2028\u2029"
TIMES = "\u00d7"
MINUS = "\u2212"


@lru_cache(maxsize=1)
def kinds() -> UInt8[np.ndarray, 1114112]:
    """Return the kind of every code point; letters are the Unicode categories L and M without the CJK blocks."""
    table = np.zeros(sys.maxunicode + 1, dtype=np.uint8)
    told = "".join(map(unicodedata.category, map(chr, range(sys.maxunicode + 1)))).encode()
    category = np.frombuffer(told, dtype=np.uint8)[::2]  # the first of its two letters
    table[(category == ord("L")) | (category == ord("M"))] = LETTER
    for first, last in CJK_RANGES:
        block = table[first : last + 1]
        block[block == LETTER] = CJK
    table[ord("0") : ord("9") + 1] = DIGIT
    for sign in SIGNS:
        table[ord(sign)] = SIGN
    table.setflags(write=False)
    return table


_ASCII_TOKENS = re.compile(rf"[a-zA-Z]+|[0-9]+|[{SIGNS}]")

_SEPARATORS = r"(?![\x00-#&-.:-@\[-`{-\x7f])"
"""No token begins at these: asked first, since a class with letters beyond the BMP is slow to say no."""


def raw_tokens(text: str) -> Iterator[re.Match[str]]:
    """Find the raw tokens of folded text: words, runs of digits, CJK characters and signs."""
    return (_ASCII_TOKENS if text.isascii() else _all_tokens()).finditer(text)


@lru_cache(maxsize=1)
def _all_tokens() -> re.Pattern[str]:
    table = kinds()
    letters, cjk = _ranges(table == LETTER), _ranges(table == CJK)
    return re.compile(f"{_SEPARATORS}(?:[{letters}]+|[0-9]+|[{cjk}]|[{SIGNS}])")


def _ranges(chosen: np.ndarray) -> str:
    edges = np.flatnonzero(np.diff(chosen.astype(np.int8), prepend=0, append=0))
    return "".join(f"{chr(a)}-{chr(b - 1)}" for a, b in edges.reshape(-1, 2).tolist())


class _Folds(dict[int, str]):
    """What code points outside ASCII become after NFKC and case folding; filled as they occur."""

    def __missing__(self, point: int) -> str:
        letter = chr(point)
        category = unicodedata.category(letter)
        folded = _FOLDS.get(letter, letter)
        if category == "Cf":
            folded = ""
        elif category == "Pd":
            folded = "-"
        elif category == "Zs":
            folded = " "
        elif category == "Nd":
            folded = str(unicodedata.decimal(letter))
        self[point] = folded
        return folded


_FOLDS = {
    **dict.fromkeys(DOUBLE_QUOTES, '"'),
    **dict.fromkeys(SINGLE_QUOTES, "'"),
    **dict.fromkeys(SLASHES, "/"),
    **dict.fromkeys(LINE_ENDS, "\n"),
    TIMES: "*",
    MINUS: "-",
}
_TABLE = _Folds()
_FOREIGN = re.compile(r"[^\x00-\x7f]+")

_MIXED = re.compile(r"[\x00-\x7f]?[^\x00-\x7f]+")
"""A stretch that folding may change beyond the case of ASCII letters. A mark joins the letter before it, so that letter
belongs to it; what is ASCII joins nothing before it."""

REMEMBERED = 8
"""Letters of a stretch whose fold is remembered: quotes, dashes and single letters, which come again and again."""


def fold(text: str) -> str:
    """Return text after NFKC and case folding, without format characters, dashes and quotes as ASCII."""
    if text.isascii():
        return text.lower()
    # Only ASCII letters are lowered here: bytes know no others.
    return _MIXED.sub(_fold_found, text).encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def _fold_found(found: re.Match[str]) -> str:
    text = found.group()
    return _fold_short(text) if len(text) <= REMEMBERED else _fold_all(text)


def _fold_all(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _FOREIGN.sub(lambda found: found.group().translate(_TABLE), folded)


_fold_short = lru_cache(maxsize=2**14)(_fold_all)


def fold_pieces(text: str) -> list[str]:
    """Return stretches of text such that folding each on its own and joining them is folding the whole.

    NFKC composes across characters: a mark joins the letter before it, Hangul letters join into syllables.
    """
    pieces: list[str] = []
    for letter in text:
        if pieces and (unicodedata.combining(letter) or not unicodedata.is_normalized("NFKC", pieces[-1][-1] + letter)):
            # A pair that is not normal may only hold one letter that is not: those need no joining.
            pair = pieces[-1][-1] + letter
            apart = unicodedata.normalize("NFKC", pair[0]) + unicodedata.normalize("NFKC", pair[1])
            if unicodedata.combining(letter) or unicodedata.normalize("NFKC", pair) != apart:
                pieces[-1] += letter
                continue
        pieces.append(letter)
    if fold(text) != "".join(map(fold, pieces)):
        return [text]
    return pieces
