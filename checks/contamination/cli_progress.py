"""Progress of a scan in words: bytes, words a second, time left (contamination, 6.8)."""

from __future__ import annotations

import time
from typing import TextIO

PAUSE = 1.0
"""Seconds between two lines (our choice): a log of a day's scan stays readable."""


class Progress:
    """Writes a line now and then.

    Args:
        total: stored bytes, row groups or record batches of all shards.
        out: where lines go.
    """

    def __init__(self, total: int, out: TextIO) -> None:
        self._total, self._out = max(total, 1), out
        self._begun = self._told = time.monotonic()
        self._done = self._words = self._shard_words = 0

    def batch(self, docs: int, words: int) -> None:
        """Take how much of the present shard was read.

        Args:
            docs: records of it.
            words: of it.
        """
        self._shard_words = words
        if time.monotonic() - self._told >= PAUSE:
            self._say(f"{docs} records of this shard")

    def shard(self, size: int) -> None:
        """Take a whole shard of so many bytes, row groups or record batches."""
        self._done += size
        self._words += self._shard_words
        self._shard_words = 0
        self._say("shard done")

    def _say(self, what: str) -> None:
        self._told = time.monotonic()
        past = self._told - self._begun
        words = self._words + self._shard_words
        left = f"{past * (self._total - self._done) / self._done:.0f} s left" if self._done else "time left unknown"
        rate = words / past if past > 0 else 0.0
        print(f"{self._done}/{self._total}, {words} words, {rate:.0f} words/s, {left}: {what}", file=self._out)
