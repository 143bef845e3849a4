"""Tokens of many texts at once, as 64-bit hashes: the byte path of the normaliser `n1` (contamination, 6.4).

The hashes are those of the plain path's tokens (`normaliser`); spans are left to the plain path, which runs where this
one has found something. Clean ASCII text is worked on as bytes, other text as code points.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from checks.contamination.normaliser_letters import CJK, LETTER, OTHER, SIGN, kinds
from checks.contamination.normaliser_markup import clean
from checks.contamination.tokens_chains import Chains, Memory

if TYPE_CHECKING:
    from jaxtyping import Int, Shaped, UInt8, UInt64

BASE = 0x9E3779B97F4A7C15
"""Base of the polynomial: 2^64 over the golden ratio, rounded to an odd number (Knuth, TAOCP 6.4), so that it has an
inverse modulo 2^64 and a word's hash does not depend on where it stands."""

MIX = 0xD6E8FEB86659FD93
"""Odd factor of the finaliser: xor with the high half, multiply, xor again; each step can be undone."""

WORD = 2**64 - 1
"""Hashes are integers of 64 bits."""

SEPARATOR = "\n\x00\n"
"""Between two texts: no token, no number and no run of words crosses it."""

PIECE = 2**18
"""Code points worked on at once: arrays of 2 MB. Sizes from 2^16 to 2^20 differ by less than the noise (measured)."""

CUTS = (". ", "\n\n", ", ", "\u3002")
"""Where a long text is cut: no word and no number of the plain path crosses these (`numbers_reading.JOINTS`)."""

NOT = "not"


@dataclass(frozen=True)
class Tokens:
    """Tokens of several texts, one after the other."""

    hashes: UInt64[np.ndarray, " token"]
    text: Int[np.ndarray, " token"]
    """Which text each stands in; ascending."""


def token_hash(text: str) -> int:
    """Return the hash of one token: sum of code point j times BASE^j, finalised."""
    total, power = 0, 1
    for letter in text:  # in Python: a token is a few letters, and an array costs more to make
        total += ord(letter) * power
        power = power * BASE & WORD
    total &= WORD
    total = (total ^ total >> 32) * MIX & WORD
    return total ^ total >> 32


def tokens(texts: Sequence[str], memory: Memory | None = None) -> Tokens:
    """Return the tokens of texts.

    Args:
        texts: as read, not yet normalised.
        memory: what was learnt of numbers in earlier batches; changes the speed and nothing else.
    """
    memory = memory if memory is not None else Memory()
    owners: list[int] = []
    hashes: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    parts: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for joined, starts, numbers in _pieces(map(clean, texts), owners):
        found, begins = _tokens(_points(joined), memory)
        hashes[joined.isascii()].append(found)
        # Parts are few and tokens many: each part's first token is looked up, not each token's part.
        first = np.searchsorted(begins, starts)
        parts[joined.isascii()].append(np.repeat(numbers, np.diff(first, append=len(begins))))
    every = np.concatenate([np.empty(0, dtype=np.uint64), *hashes[0], *hashes[1]])
    part = np.concatenate([np.empty(0, dtype=np.int64), *parts[0], *parts[1]])
    if parts[0] and parts[1]:
        order = np.argsort(part, kind="stable")  # two ascending runs
        every, part = every[order], part[order]
    return Tokens(every, np.array(owners, dtype=np.int64)[part])


def _pieces(texts: Iterable[str], owners: list[int]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield parts of texts joined to about `PIECE` code points, where each begins, and its number; ascending.

    Bytes and code points are not mixed, for one letter outside ASCII would cost its neighbours fourfold: of two pieces
    in a row the second may hold parts before those of the first.

    Args:
        texts: cleaned.
        owners: the text of each part is added.
    """
    waiting = _Piece(), _Piece()
    for number, (owner, part) in enumerate(_parts(texts)):
        owners.append(owner)
        piece = waiting[part.isascii()]
        if piece.size >= PIECE:
            yield piece.taken()
        piece.add(part, number)
    for piece in waiting:
        if piece.held:
            yield piece.taken()


class _Piece:
    """A piece in the making."""

    def __init__(self) -> None:
        self.held: list[str] = []
        self.size = 0
        self._starts: list[int] = []
        self._numbers: list[int] = []

    def add(self, part: str, number: int) -> None:
        self._starts.append(self.size)
        self._numbers.append(number)
        self.held.append(part)
        self.size += len(part) + len(SEPARATOR)

    def taken(self) -> tuple[str, np.ndarray, np.ndarray]:
        """Return what was added, and forget it."""
        done = SEPARATOR.join(self.held), np.array(self._starts), np.array(self._numbers)
        self.__init__()  # type: ignore[misc]
        return done


def _parts(texts: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yield (text, part of it): what is worked on does not grow with a text that has any of `CUTS`."""
    for owner, text in enumerate(texts):
        begin = 0
        while len(text) - begin > 2 * PIECE:
            cuts = ((text.rfind(mark, begin + PIECE, begin + 2 * PIECE), len(mark)) for mark in CUTS)
            cut = next((at + size for at, size in cuts if at >= 0), 0)
            if not cut:
                break
            yield owner, text[begin:cut]
            begin = cut
        yield owner, text[begin:]


def _points(text: str) -> Shaped[np.ndarray, " point"]:
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), dtype=np.uint8)
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)


def _tokens(points: Shaped[np.ndarray, " point"], memory: Memory) -> tuple[np.ndarray, np.ndarray]:
    """Return hashes and begins of the tokens of one piece."""
    kind = np.zeros(len(points) + 4, dtype=np.uint8)  # two empty places before and behind
    if points.dtype == np.uint8:
        kind[2:-2] = np.frombuffer(points.tobytes().translate(_ascii_kinds()), dtype=np.uint8)
    else:
        np.take(kinds(), points, out=kind[2:-2])
    negated = _negations(points, kind)
    begins, ends, first_kind = _bounds(kind)
    prefix = np.zeros(len(points) + 1, dtype=np.uint64)
    power, inverse = _powers(len(points))
    np.cumsum(points * power, dtype=np.uint64, out=prefix[1:])
    hashes = _range_hash(prefix, inverse, begins, ends)
    if len(negated):
        hit = np.searchsorted(begins, negated)
        hashes[hit] = token_hash(NOT)
        begins[hit] -= 2
        first_kind[hit] = OTHER  # "not" is no number word
    chains = Chains(points, begins, ends, hashes, first_kind, memory)
    found = chains.find()
    if not found:
        return hashes, begins
    keys = _range_hash(prefix, inverse, begins[found.first], ends[found.last])  # of the chains' whole text
    return found.replaced(keys, token_hash)


@lru_cache(maxsize=1)
def _ascii_kinds() -> bytes:
    return kinds()[:128].tobytes().ljust(256, b"\0")


def _negations(points: Shaped[np.ndarray, " point"], kind: UInt8[np.ndarray, " padded"]) -> np.ndarray:
    """Cut "n't" off the word before it, and return where the t stands."""
    at = np.flatnonzero(points == ord("'"))
    at = at[(at > 1) & (at + 1 < len(points))]
    at = at[points[at + 1] == ord("t")]
    at = at[points[at - 1] == ord("n")]
    # `kind` is padded by two: the letter before the n, and what stands behind the t.
    at = at[(kind[at] == LETTER) & (kind[at + 4] != LETTER)]
    kind[at + 1] = OTHER
    behind: np.ndarray = at + 1
    return behind


def _bounds(kind: UInt8[np.ndarray, " padded"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return begin, end and kind of every raw token."""
    here = kind[2:-2]
    some, alone = here != OTHER, (here == CJK) | (here == SIGN)
    edge = kind[1:-1] != kind[:-2]  # between each letter and the one before
    begins = np.flatnonzero((edge[1:-1] | alone) & some)
    ends = np.flatnonzero((edge[2:] | alone) & some) + 1
    return begins, ends, here[begins]


def _range_hash(
    prefix: UInt64[np.ndarray, " point1"],
    inverse: UInt64[np.ndarray, " power"],
    begins: Int[np.ndarray, " token"],
    ends: Int[np.ndarray, " token"],
) -> UInt64[np.ndarray, " token"]:
    return _finalise((prefix[ends] - prefix[begins]) * inverse[begins])


def _finalise(total: UInt64[np.ndarray, " token"]) -> UInt64[np.ndarray, " token"]:
    total = total ^ (total >> np.uint64(32))
    total *= np.uint64(MIX)
    total ^= total >> np.uint64(32)
    return total


def _powers(size: int) -> tuple[np.ndarray, np.ndarray]:
    power, inverse = _power_table(1 << max(size, PIECE).bit_length())
    return power[:size], inverse


@lru_cache(maxsize=4)
def _power_table(size: int) -> tuple[np.ndarray, np.ndarray]:
    tables = []
    for base in (BASE, pow(BASE, -1, 2**64)):
        steps = np.full(size, base, dtype=np.uint64)
        steps[0] = 1
        tables.append(np.cumprod(steps, dtype=np.uint64))
        tables[-1].setflags(write=False)
    return tables[0], tables[1]
