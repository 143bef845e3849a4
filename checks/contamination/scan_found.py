"""What a scan finds in one text (contamination, 6.8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from checks.contamination.sketch import AnswerNear

KEY_BYTES = 16
"""Bytes of a window key (6.8): two of 10^9 windows share one with probability 10^-21."""


@dataclass(frozen=True)
class Hit:
    """One match in one document."""

    probe: int
    tier: str
    score: int
    window_key: str
    start: int
    """First byte in the document."""
    end: int
    answer_near: AnswerNear


@dataclass(frozen=True)
class Found:
    """What was found in one text (section 6.8); counts are 0 where nothing was embedded."""

    hits: tuple[Hit, ...]
    contexts: Sequence[int]
    words: int
    english: bool
    windows: int = 0
    embedded: int = 0
    cosines: Mapping[tuple[str, int], int] = field(default_factory=dict)


@dataclass(frozen=True)
class Span:
    """Where in a planted copy the plant stands."""

    probe: int
    """Of the plant."""
    begin: int
    """First byte."""
    end: int

    def touches(self, begin: int, end: int) -> bool:
        """Return whether bytes from `begin` to `end` hold any of it."""
        return begin < self.end and end > self.begin
