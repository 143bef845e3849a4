"""Numbers among hashed tokens: chains of digits, number words and what joins them, each distinct one read once.

What a chain holds is read by the plain path's own reader (`numbers_reading`), so a chain has only to hold all that one
number may be made of. It may hold more: the reader tells apart what does not belong together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from checks.contamination.normaliser_letters import DIGIT, LETTER, SIGN
from checks.contamination.numbers_reading import AFTER_ARTICLE, ARTICLES, NUMERIC, PERCENT, Raw, read_numbers

if TYPE_CHECKING:
    from jaxtyping import Bool, Int, Shaped, UInt8, UInt64

NONE, DIGITS, WORD, COUNTED, ARTICLE, AND, PER, SLASH = range(8)
"""What a token may be to a number: nothing, digits, a number word, one that "a" counts, "a", "and", percent, "/"."""

MEMORY = 2**17
"""Chains remembered between batches; then forgotten, so that memory does not grow with the corpus (our choice)."""

PLAIN_DIGITS = 15
"""Digits of a number that is its own canonical text when no zero leads; longer ones go through the reader (any number
below `DIGITS_MAX` would do)."""

_SPACES = np.array([chr(point).isspace() for point in range(128)])
"""White space as `str.isspace` has it; what is not ASCII has been folded away."""

_JOINS = np.zeros((8, 8), dtype=bool)
"""Pairs of roles that white space may join."""
_JOINS[DIGITS : COUNTED + 1, [DIGITS, WORD, COUNTED, AND, PER]] = True
_JOINS[COUNTED, ARTICLE] = _JOINS[ARTICLE, COUNTED] = True
_JOINS[AND, [DIGITS, WORD, COUNTED, ARTICLE]] = True

_MEETS = _JOINS.copy()
"""Pairs of roles that one number may hold side by side, whatever stands between; all others end a chain."""
_MEETS[SLASH, DIGITS] = _MEETS[DIGITS, SLASH] = True

Hash = Callable[[str], int]


@dataclass
class Memory:
    """Canonical tokens of chains, by the hash of a chain's text."""

    read: dict[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    """Chain -> (hash, first raw token) of each of its tokens."""


@dataclass(frozen=True)
class Found:
    """The chains of a piece of text."""

    chains: Chains
    first: Int[np.ndarray, " chain"]
    """First raw token."""
    last: Int[np.ndarray, " chain"]

    def __len__(self) -> int:
        return len(self.first)

    def replaced(self, keys: UInt64[np.ndarray, " chain"], token_hash: Hash) -> tuple[np.ndarray, np.ndarray]:
        """Return hashes and begins of all tokens, those of chains as the reader of numbers gives them."""
        memory = self.chains.memory.read
        if len(memory) > MEMORY:
            memory.clear()
        distinct, place, which = np.unique(keys, return_index=True, return_inverse=True)
        reads = []
        for key, at in zip(distinct.tolist(), place.tolist(), strict=True):
            read = memory.get(key)
            if read is None:
                read = memory[key] = self._read(int(self.first[at]), int(self.last[at]), token_hash)
            reads.append(read)
        return self._laid_out(reads, which)

    def _laid_out(
        self, reads: Sequence[tuple[tuple[int, int], ...]], which: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return hashes and begins of all tokens, given the distinct chains' tokens and which chain is which."""
        chains = self.chains
        told = np.fromiter((hashed for read in reads for hashed, _ in read), dtype=np.uint64)
        places = np.fromiter((place for read in reads for _, place in read), dtype=np.int64)
        sizes = np.fromiter(map(len, reads), dtype=np.int64, count=len(reads))
        size = sizes[which]
        chain = np.repeat(np.arange(len(which)), size)  # of each token that a chain gives
        row = np.arange(len(chain)) + np.repeat((np.cumsum(sizes) - sizes)[which] - (np.cumsum(size) - size), size)
        # Chains do not overlap: +1 where one begins and -1 behind its end adds up to 1 within.
        edges = np.zeros(len(chains.hashes) + 1, dtype=np.int8)
        edges[self.first] += 1
        edges[self.last + 1] -= 1
        keep = np.cumsum(edges[:-1], dtype=np.int8) == 0
        hashes, at = chains.hashes.copy(), self.first[chain] + places[row]
        hashes[at] = told[row]
        keep[at] = True
        return hashes[keep], chains.begins[keep]

    def _read(self, first: int, last: int, token_hash: Hash) -> tuple[tuple[int, int], ...]:
        chains = self.chains
        origin = int(chains.begins[first])
        text = chains.text(origin, int(chains.ends[last]))
        bounds = zip(chains.begins[first : last + 1].tolist(), chains.ends[first : last + 1].tolist(), strict=True)
        raws = [Raw(text[a - origin : b - origin], a - origin, b - origin) for a, b in bounds]
        return tuple((token_hash(read.text), read.first) for read in read_numbers(_window(text, raws), _moved(raws)))


def _moved(raws: list[Raw]) -> list[Raw]:
    """Return raw tokens where they stand once every joining gap is one letter or none."""
    out: list[Raw] = []
    at = 0
    for place, raw in enumerate(raws):
        at += 0 if not place or raw.begin == raws[place - 1].end else 1
        out.append(Raw(raw.text, at, at + len(raw.text)))
        at += len(raw.text)
    return out


def _window(text: str, raws: list[Raw]) -> str:
    """Return a chain's text as the window text would show it: white space between its tokens is one space."""
    out: list[str] = []
    for place, raw in enumerate(raws):
        if place and raw.begin > raws[place - 1].end:
            gap = text[raws[place - 1].end : raw.begin]
            out.append(" " if gap.isspace() else gap)
        out.append(raw.text)
    return "".join(out)


@dataclass(frozen=True)
class Chains:
    """Raw tokens of a piece of text, among which chains are looked for."""

    points: Shaped[np.ndarray, " point"]
    begins: Int[np.ndarray, " token"]
    ends: Int[np.ndarray, " token"]
    hashes: UInt64[np.ndarray, " token"]
    kind: UInt8[np.ndarray, " token"]
    memory: Memory

    def text(self, begin: int, end: int) -> str:
        """Return a stretch of the text."""
        encoding = "ascii" if self.points.dtype == np.uint8 else "utf-32-le"
        return self.points[begin:end].tobytes().decode(encoding)

    def find(self) -> Found:
        """Return the chains that must be read, after reading number words that stand alone in place."""
        role = self._roles()
        at = np.flatnonzero(role)
        # Only tokens with a role are looked at from here on: they are few.
        joined = np.zeros(len(at) + 1, dtype=bool)  # to the next token with a role; the last to none
        told = role[at].astype(np.int64)
        pairs = np.flatnonzero((at[1:] == at[:-1] + 1) & _MEETS.ravel()[told[:-1] * len(_MEETS) + told[1:]])
        if len(pairs):
            joined[pairs + 1] = self._linked(told, at, pairs)
        first, last = at[joined[1:] & ~joined[:-1]], at[~joined[1:] & joined[:-1]]
        alone = at[~joined[1:] & ~joined[:-1]]
        odd = alone[(role[alone] == DIGITS) & ~self._plain(alone)]
        return Found(self, np.concatenate((first, odd)), np.concatenate((last, odd)))

    def _roles(self) -> UInt8[np.ndarray, " token"]:
        """Return every token's role; a number word's hash becomes its number's, as it reads where it stands alone."""
        role = np.zeros(len(self.hashes), dtype=np.uint8)
        known, roles, singles, table = _lexicon()
        maybe = np.flatnonzero(table[(self.hashes >> np.uint64(48)).astype(np.int64)] & (self.kind != DIGIT))
        place = np.searchsorted(known, self.hashes[maybe])
        place[place == len(known)] = 0
        same = (known[place] == self.hashes[maybe]) & ((self.kind[maybe] == LETTER) | (self.kind[maybe] == SIGN))
        role[maybe[same]] = roles[place[same]]
        self.hashes[maybe[same]] = singles[place[same]]
        role[self.kind == DIGIT] = DIGITS
        return role

    def _plain(self, at: Int[np.ndarray, " lone"]) -> Bool[np.ndarray, " lone"]:
        """Return which lone tokens are digits that are their own canonical text."""
        size = self.ends[at] - self.begins[at]
        plain: np.ndarray = (
            (self.kind[at] == DIGIT) & (size <= PLAIN_DIGITS) & ((size == 1) | (self.points[self.begins[at]] != 48))
        )
        return plain

    def _linked(
        self, role: Int[np.ndarray, " some"], at: Int[np.ndarray, " some"], pairs: Int[np.ndarray, " pair"]
    ) -> Bool[np.ndarray, " pair"]:
        """Return which of the pairs, of neighbours whose roles meet, belong to one number.

        Args:
            role: of the tokens with one.
            at: where these stand among all tokens.
            pairs: places in `at` of the left ones.
        """
        left, right = role[pairs], role[pairs + 1]
        begin = self.ends[at[pairs]]
        size = self.begins[at[pairs + 1]] - begin
        follows = np.flatnonzero(pairs[1:] == pairs[:-1] + 1)  # pairs that share a token with the next
        none, one = size == 0, size == 1
        letter = self.points[np.minimum(begin, len(self.points) - 1)]
        space = _SPACES[np.minimum(letter, 127)]
        blank = one & space
        # Wider gaps are read one by one.
        for pair in np.flatnonzero((size > 1) & _JOINS[left, right] & space).tolist():
            blank[pair] = _one_space(self.text(int(begin[pair]), int(begin[pair] + size[pair])))
        joint = none | blank | (one & (letter == ord("-")))
        number, word = (left >= DIGITS) & (left <= COUNTED), (right == WORD) | (right == COUNTED)
        digits = (left == DIGITS) & (right == DIGITS)
        linked = joint & number & (word | (right == PER))
        linked |= none & (((left == SLASH) & (right == DIGITS)) | ((left == DIGITS) & (right == SLASH)))
        linked |= digits & one & ((letter == ord(".")) | (letter == ord(",")))
        # A whole number and a fraction: only where a slash stands behind the second digits.
        linked |= digits & blank & _next(none & (right == SLASH), follows)
        article = joint & (left == ARTICLE) & (right == COUNTED)
        linked |= article | (joint & (left == COUNTED) & (right == ARTICLE) & _next(article, follows))
        counted = joint & (left == DIGITS) & (right == COUNTED)
        part = (right == ARTICLE) & _next(article, follows) | (right == DIGITS) & _next(counted, follows)
        before = joint & number & (right == AND)
        behind = joint & (left == AND) & (word | part) & _previous(before, follows)
        every: np.ndarray = linked | behind | (before & _next(behind, follows))
        return every


def _next(pairs: Bool[np.ndarray, " pair"], follows: Int[np.ndarray, " shared"]) -> Bool[np.ndarray, " pair"]:
    """Return what holds of the pair that begins where each pair ends."""
    out = np.zeros(len(pairs), dtype=bool)
    out[follows] = pairs[follows + 1]
    return out


def _previous(pairs: Bool[np.ndarray, " pair"], follows: Int[np.ndarray, " shared"]) -> Bool[np.ndarray, " pair"]:
    out = np.zeros(len(pairs), dtype=bool)
    out[follows + 1] = pairs[follows]
    return out


def _one_space(gap: str) -> bool:
    """Return whether a gap is white space that the window text shows as one space (`normaliser_prose`)."""
    return gap.isspace() and (gap.count("\n") == 0 or (gap.count("\n") == 1 and gap.endswith("\n")))


@lru_cache(maxsize=1)
def _lexicon() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return hashes of the words with a role, sorted; their roles; their hashes as numbers; their upper 16 bits."""
    from checks.contamination.tokens import token_hash

    words: dict[str, int] = dict.fromkeys(NUMERIC, WORD)
    words |= dict.fromkeys(AFTER_ARTICLE, COUNTED) | dict.fromkeys(ARTICLES, ARTICLE) | dict.fromkeys(PERCENT, PER)
    words |= {"and": AND, "/": SLASH}
    told = {token_hash(word): (role, word) for word, role in words.items()}
    known = np.array(sorted(told), dtype=np.uint64)
    roles = np.array([told[int(one)][0] for one in known], dtype=np.uint8)
    alone = [read_numbers(word, [Raw(word, 0, len(word))])[0].text for _, word in map(told.__getitem__, known.tolist())]
    table = np.zeros(2**16, dtype=bool)
    table[(known >> np.uint64(48)).astype(np.int64)] = True
    return known, roles, np.array([token_hash(word) for word in alone], dtype=np.uint64), table
