"""What is looked for in a corpus: rolling hashes of all probes, in one sorted array (contamination, 6.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.contamination.languages import FUNCTION_WORDS
from checks.contamination.tokens import token_hash

if TYPE_CHECKING:
    from jaxtyping import Bool, Int, UInt8, UInt64

ROLL = 0xD1342543DE82EF95
"""Factor of the rolling hash: an odd constant of a published 64-bit linear congruential generator (Steele and Vigna,
Computationally easy, spectrally good multipliers, 2022)."""

SHORTEST, LONGEST_SHORT = 5, 12
"""Tokens of questions that are looked for as a whole; shorter ones are not searched, longer ones by seeds (6.4)."""

PRESENCE_BITS = 26
"""Address bits of the table that most tokens are turned away by: 2^26 bits are 8 MB (6.4)."""


@dataclass(frozen=True)
class Grams:
    """Hashes of n-grams, and where in which needle each stands."""

    size: int
    hashes: UInt64[np.ndarray, " gram"]
    """Distinct, ascending."""
    first: Int[np.ndarray, " gram1"]
    """Row of each hash's first occurrence; one more at the end."""
    needle: Int[np.ndarray, " row"]
    place: Int[np.ndarray, " row"]
    """Token of the needle at which the n-gram begins."""
    counts: Bool[np.ndarray, " row"]
    """Whether it counts for S2; not where it is made of function words alone."""
    presence: UInt8[np.ndarray, " byte"]

    def look_up(self, rolled: UInt64[np.ndarray, " token"]) -> tuple[np.ndarray, np.ndarray]:
        """Return (position, gram) of every rolling hash that is one of these."""
        if not len(self.hashes):
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        address = (rolled >> np.uint64(64 - PRESENCE_BITS)).astype(np.int64)
        maybe = np.flatnonzero((self.presence[address >> 3] >> (address & 7).astype(np.uint8)) & 1)
        gram = np.searchsorted(self.hashes, rolled[maybe])
        gram[gram == len(self.hashes)] = 0
        same = self.hashes[gram] == rolled[maybe]
        return maybe[same], gram[same]


@dataclass(frozen=True)
class Seeds:
    """All needles: the questions of probes and their contexts."""

    grams: Grams
    """Of needles longer than `LONGEST_SHORT`, and of all that are long enough to be near."""
    short: Mapping[int, Grams]
    """Length -> needles of that length, as a whole."""
    hashes: tuple[UInt64[np.ndarray, " token"], ...]
    """Token hashes of each needle."""

    @property
    def lengths(self) -> frozenset[int]:
        """Return the lengths that must be rolled."""
        return frozenset({self.grams.size, *self.short})


def make_seeds(needles: Sequence[Sequence[str]], size: int = SHORTEST) -> Seeds:
    """Return the seeds of needles.

    Args:
        needles: canonical words of each; those under five tokens are not searched.
        size: tokens of a seed, 4 to 13.
    """
    known: dict[str, int] = {}
    hashes = tuple(_hashed(words, known) for words in needles)
    rows = [row for number, words in enumerate(needles) for row in _rows(number, words, hashes[number], size)]
    short: dict[int, list[tuple[int, int, int, bool]]] = {}
    for number, words in enumerate(needles):
        if SHORTEST <= len(words) <= LONGEST_SHORT:
            whole = int(rolled(hashes[number], {len(words)})[len(words)][0])
            short.setdefault(len(words), []).append((whole, number, 0, True))
    return Seeds(_grams(size, rows), {length: _grams(length, found) for length, found in short.items()}, hashes)


def rolled(hashes: UInt64[np.ndarray, " token"], lengths: frozenset[int] | set[int]) -> dict[int, np.ndarray]:
    """Return the rolling hashes of every stretch of so many tokens, by length, one multiplication per length."""
    out: dict[int, np.ndarray] = {}
    running = hashes.copy()
    for length in range(1, max(lengths, default=0) + 1):
        if length > 1:
            running = running[:-1] * np.uint64(ROLL) + hashes[length - 1 :]
        if length in lengths:
            out[length] = _mixed(running)
        if len(running) <= 1:
            break
    return {length: out.get(length, np.empty(0, dtype=np.uint64)) for length in lengths}


def _mixed(running: UInt64[np.ndarray, " gram"]) -> UInt64[np.ndarray, " gram"]:
    mixed: np.ndarray = running ^ (running >> np.uint64(29))
    return mixed


def _hashed(words: Sequence[str], known: dict[str, int]) -> UInt64[np.ndarray, " token"]:
    for word in words:
        if word not in known:
            known[word] = token_hash(word)
    return np.array([known[word] for word in words], dtype=np.uint64)


def _rows(
    number: int, words: Sequence[str], hashes: UInt64[np.ndarray, " token"], size: int
) -> Iterator[tuple[int, int, int, bool]]:
    if len(words) < max(size, SHORTEST):
        return
    found = rolled(hashes, {size})[size].tolist()
    # The first seed is the anchor of exact copies: it is kept whatever it is made of.
    for place, hashed in enumerate(found):
        counts = any(word not in FUNCTION_WORDS for word in words[place : place + size])
        if counts or not place:
            yield hashed, number, place, counts


def _grams(size: int, rows: Sequence[tuple[int, int, int, bool]]) -> Grams:
    ordered = sorted(rows)
    every = np.array([row[0] for row in ordered], dtype=np.uint64)
    hashes, first = np.unique(every, return_index=True)
    presence = np.zeros(2 ** (PRESENCE_BITS - 3), dtype=np.uint8)
    address = (hashes >> np.uint64(64 - PRESENCE_BITS)).astype(np.int64)
    np.bitwise_or.at(presence, address >> 3, np.left_shift(1, address & 7).astype(np.uint8))
    return Grams(
        size=size,
        hashes=hashes,
        first=np.append(first, len(every)),
        needle=np.array([row[1] for row in ordered], dtype=np.int64),
        place=np.array([row[2] for row in ordered], dtype=np.int64),
        counts=np.array([row[3] for row in ordered], dtype=bool),
        presence=presence,
    )
