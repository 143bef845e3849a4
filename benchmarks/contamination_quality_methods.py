"""Ways to pair items with documents, for contamination_quality.py: each returns the pairs that it finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.contamination_speed_peers import GRAM, PERMUTATIONS, datatrove_filter
from checks.contamination.encoder import Encoder
from checks.contamination.items import Item
from checks.contamination.normaliser import normalise
from checks.contamination.windows import bin_of, windows

Pair = tuple[int, int]
"""Item and document."""
Scores = Mapping[Pair, float]
"""Pairs that are not there were not found."""


@dataclass(frozen=True)
class Planted:
    """A document of the corpus."""

    text: str
    item: int
    """That it holds a version of; -1: background."""
    how: str


class Remembered:
    """An encoder that runs a text once: every method below reads the same windows."""

    def __init__(self) -> None:
        self._encoder = Encoder()
        self._together: dict[str, Any] = {}
        self._alone: dict[str, Any] = {}

    def embed(self, texts: Sequence[str]) -> Any:
        """Return unit vectors of texts."""
        new = [text for text in dict.fromkeys(texts) if text not in self._together]
        if new:
            self._together.update(zip(new, self._encoder.embed(new), strict=True))
        return np.stack([self._together[text] for text in texts])

    def embed_alone(self, text: str) -> Any:
        """Return the unit vector of one text."""
        if text not in self._alone:
            self._alone[text] = self._encoder.embed_alone(text)
        return self._alone[text]


def grams(items: Sequence[Item], held: Sequence[Planted]) -> Scores:
    """Return the share of each item's 5-grams that a document holds, after the normaliser."""
    asked = [_grams(normalise(item.question).words) for item in items]
    out: dict[tuple[int, int], float] = {}
    for doc, one in enumerate(held):
        there = _grams(normalise(one.text).words)
        for item, wanted in enumerate(asked):
            if shared := len(wanted & there):
                out[item, doc] = shared / len(wanted)
    return out


def _grams(words: Sequence[str]) -> set[tuple[str, ...]]:
    return set(zip(*(words[at:] for at in range(GRAM)), strict=False))


def windows_of(items: Sequence[Item], held: Sequence[Planted]) -> dict[int, list[tuple[int, str]]]:
    """Return (document, window) of each length that an item uses."""
    sizes = {bin_of(len(normalise(item.question).words)) for item in items}
    reads = [normalise(one.text) for one in held]
    return {size: [(doc, one.text) for doc, read in enumerate(reads) for one in windows(read, size)] for size in sizes}


def cosines(items: Sequence[Item], told: Mapping[int, list[tuple[int, str]]], encoder: Remembered) -> Scores:
    """Return the largest cosine of an item with a document's windows of its length, brute force."""
    out: dict[tuple[int, int], float] = {}
    for number, item in enumerate(items):
        read = normalise(item.question)
        rows = told[bin_of(len(read.tokens))]
        found = encoder.embed([text for _, text in rows]) @ encoder.embed_alone(read.window_text)
        for (doc, _), cosine in zip(rows, found.tolist(), strict=True):
            if cosine >= 0.5:
                out[number, doc] = max(out.get((number, doc), 0), cosine)
    return out


def lsh(items: Sequence[Item], told: Mapping[int, list[tuple[int, str]]], least: float) -> Scores:
    """Return what datasketch's LSH of that Jaccard threshold pairs: items with windows of their length."""
    sketch = import_module("datasketch")

    def hashed(text: str) -> Any:
        made = sketch.MinHash(num_perm=PERMUTATIONS)
        made.update_batch([" ".join(gram).encode() for gram in _grams(text.lower().split())])
        return made

    out: dict[tuple[int, int], float] = {}
    by_size: dict[int, list[int]] = {}
    for number, item in enumerate(items):
        by_size.setdefault(bin_of(len(normalise(item.question).words)), []).append(number)
    for size, numbers in by_size.items():
        index = sketch.MinHashLSH(threshold=least, num_perm=PERMUTATIONS)
        for number in numbers:
            index.insert(number, hashed(normalise(items[number].question).window_text))
        for doc, text in told[size]:
            for number in index.query(hashed(text)):
                out[number, doc] = 1.0
    return out


def trove(items: Sequence[Item], held: Sequence[Planted]) -> Scores:
    """Return the documents that datatrove's filter drops, as pairs with the item that they hold a version of."""
    keeps = datatrove_filter([item.question for item in items])
    return {(max(one.item, 0), doc): 1.0 for doc, one in enumerate(held) if not keeps(one.text)}
