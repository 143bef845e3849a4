"""S1 and S2: stretches of texts that may hold a needle, by rolling hashes (contamination, 6.4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from checks.contamination.seeds import LONGEST_SHORT, Grams, Seeds, rolled

if TYPE_CHECKING:
    from jaxtyping import Int

    from checks.contamination.tokens import Tokens

ROWS = 2**20
"""Hits looked at together: what is common to many needles is not laid out all at once (about 50 MB)."""


class Stretch(NamedTuple):
    """Tokens of a text that may hold a needle."""

    text: int
    needle: int
    begin: int
    """First token within the text."""
    end: int
    """One past the last; at most 2 x the needle's length away."""


@dataclass(frozen=True)
class _Hits:
    """Seeds found; sorted by text, needle and token."""

    text: Int[np.ndarray, " hit"]
    needle: Int[np.ndarray, " hit"]
    token: Int[np.ndarray, " hit"]
    """Within the text."""
    place: Int[np.ndarray, " hit"]
    seed: Int[np.ndarray, " hit"]


def search(tokens: Tokens, seeds: Seeds) -> list[Stretch]:
    """Return the stretches to be compared, sorted; whole needles as they stand (S1), others around their seeds (S2)."""
    if not len(tokens.hashes):
        return []
    rolls = rolled(tokens.hashes, seeds.lengths)
    starts = np.searchsorted(tokens.text, np.arange(int(tokens.text[-1]) + 2))
    found: set[Stretch] = set()
    for length, grams in seeds.short.items():
        for hits in _hits(tokens, starts, grams, rolls[length]):
            ends = hits.token + length
            found.update(map(Stretch, *(a.tolist() for a in (hits.text, hits.needle, hits.token, ends))))
    for hits in _hits(tokens, starts, seeds.grams, rolls[seeds.grams.size]):
        found.update(_whole(hits, tokens, starts, seeds))
        found.update(_around(hits, starts, seeds))
    return sorted(found)


def _hits(
    tokens: Tokens, starts: Int[np.ndarray, " text1"], grams: Grams, rolls: Int[np.ndarray, " token"]
) -> Iterator[_Hits]:
    """Yield the hits of whole texts, about `ROWS` at a time."""
    at, gram = grams.look_up(rolls)
    inside = tokens.text[at] == tokens.text[at + grams.size - 1]
    at, gram = at[inside], gram[inside]
    if not len(at):
        return
    rows = grams.first[gram + 1] - grams.first[gram]
    total = np.cumsum(rows)
    text = tokens.text[at]
    begin = 0
    while begin < len(at):
        end = int(np.searchsorted(total, (total[begin - 1] if begin else 0) + ROWS, side="right"))
        end = int(np.searchsorted(text, text[min(max(end, begin), len(at) - 1)], side="right"))
        yield _laid_out(at[begin:end], gram[begin:end], rows[begin:end], grams, tokens, starts)
        begin = end


def _laid_out(
    at: np.ndarray, gram: np.ndarray, rows: np.ndarray, grams: Grams, tokens: Tokens, starts: np.ndarray
) -> _Hits:
    hit = np.repeat(np.arange(len(at)), rows)
    row = grams.first[gram][hit] + np.arange(len(hit)) - (np.cumsum(rows) - rows)[hit]
    text = tokens.text[at][hit]
    token = at[hit] - starts[text]
    needle, seed = grams.needle[row], np.where(grams.counts[row], gram[hit], -1)
    order = np.lexsort((grams.place[row], token, needle, text))
    return _Hits(text[order], needle[order], token[order], grams.place[row][order], seed[order])


def _whole(hits: _Hits, tokens: Tokens, starts: np.ndarray, seeds: Seeds) -> Iterator[Stretch]:
    """Yield the places where a long needle stands whole: found by its first seed, then compared in full."""
    first = np.flatnonzero(hits.place == 0)
    for text, needle, token in zip(
        hits.text[first].tolist(), hits.needle[first].tolist(), hits.token[first].tolist(), strict=True
    ):
        words = seeds.hashes[needle]
        begin = int(starts[text]) + token
        end = begin + len(words)
        fits = len(words) > LONGEST_SHORT and end <= starts[text + 1]
        if fits and np.array_equal(tokens.hashes[begin:end], words):
            yield Stretch(text, needle, token, token + len(words))


def _around(hits: _Hits, starts: np.ndarray, seeds: Seeds) -> Iterator[Stretch]:
    """Yield stretches that hold two distinct seeds of one needle within 2 x its length."""
    size = np.array([len(words) for words in seeds.hashes])
    pair = (hits.text[1:] == hits.text[:-1]) & (hits.needle[1:] == hits.needle[:-1])
    # Between two distinct seeds that are near each other lie two neighbours that are.
    near = hits.token[1:] + seeds.grams.size - hits.token[:-1] <= 2 * size[hits.needle[1:]]
    pair &= near & (hits.seed[1:] != hits.seed[:-1]) & (hits.seed[1:] >= 0) & (hits.seed[:-1] >= 0)
    edges = np.flatnonzero(np.diff(hits.text, prepend=-1) | np.diff(hits.needle, prepend=-1))
    bounds = np.append(edges, len(hits.text))
    groups = np.unique(np.searchsorted(edges, np.flatnonzero(pair), side="right") - 1)
    for group in groups.tolist():
        low, high = int(bounds[group]), int(bounds[group + 1])
        text, needle = int(hits.text[low]), int(hits.needle[low])
        rows = [
            (token, token - place, seed)
            for token, place, seed in zip(
                hits.token[low:high].tolist(), hits.place[low:high].tolist(), hits.seed[low:high].tolist(), strict=True
            )
            if seed >= 0
        ]
        last = int(starts[text + 1] - starts[text])
        for begin, end in _stretches(rows, int(size[needle])):
            yield Stretch(text, needle, max(begin, 0), min(end, last))


def _stretches(rows: list[tuple[int, int, int]], size: int) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) for rows of (token, where the needle would begin, seed), sorted by token.

    Seeds belong together whose needle would begin within half its length of where the first one's would.
    """
    used = bytearray(len(rows))
    for at, (_, origin, _) in enumerate(rows):
        if used[at]:
            continue
        together: list[tuple[int, int, int]] = []
        for other in range(at, len(rows)):
            token, begin, _ = rows[other]
            if token >= origin + size + size // 2:
                break
            if not used[other] and abs(begin - origin) <= size // 2:
                used[other] = 1
                together.append(rows[other])
        if len({seed for _, _, seed in together}) >= 2:
            begin = min(row[1] for row in together)
            yield begin, min(max(row[1] for row in together) + size, begin + 2 * size)
