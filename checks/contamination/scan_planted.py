"""Planted copies of one shard: their hosts are chosen while it is read, and the copies are scanned at its end (6.11).

Which document is a host depends on the plan and the record's number alone, so a shard that is scanned again gives the
same bytes. A record's place in its file is not known in every format (of a table and of a compressed file it is not),
so hosts are drawn by record and not by byte: the host is the record whose number, mixed, first follows the plant's
draw. Every record with enough words is as likely as any other, whereas by byte a record behind a long one would be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from checks.contamination.normaliser import normalise
from checks.contamination.plan import Plan, Planted
from checks.contamination.plants import COPY_WORDS, HOST_WORDS, PLACES, Plant, PlantedDocument, planted_document
from checks.contamination.scan_found import Span
from checks.contamination.windows import bin_of

if TYPE_CHECKING:
    from checks.contamination.scan_found import Hit

CIRCLE = 2**32
"""Places on which records and plants are drawn (`Planted.at`)."""

REACH = 6
"""Windows of words around a plant that are copied, half on each side: a region is 2.5 windows at most (6.6), and with
half a window more the copy's beginning does not settle where windows start. Less text costs less."""

_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0x9E3779B97F4A7C15)
"""Multipliers and increment of splitmix64 (Steele, Lea & Flood 2014, figure 5)."""


class Copies:
    """Hosts of a shard's plants, as far as it was read.

    Args:
        plan: of the scan.
        ordinal: place of the shard in the plan.
    """

    def __init__(self, plan: Plan, ordinal: int) -> None:
        self.plants: tuple[Planted, ...] = tuple(one for one in plan.plants if one.shard == ordinal)
        self._at = np.array([one.at for one in self.plants], dtype=np.int64)
        self._distance = np.full(len(self.plants), CIRCLE, dtype=np.int64)
        self._around = [_around(plan, one) for one in self.plants]
        told = zip(self.plants, self._around, strict=True)
        self._hosts: list[tuple[int, PlantedDocument]] = [(0, _made("", one, around)) for one, around in told]

    def offer(self, number: int, text: str, words: int) -> None:
        """Take a document as host of the plants that it stands nearest behind.

        Args:
            number: of the record.
            text: the document, or its first stretch.
            words: of it.
        """
        if words < HOST_WORDS or not self.plants:
            return
        distance = (_mixed(number) - self._at) % CIRCLE
        for place in np.flatnonzero(distance < self._distance).tolist():
            self._distance[place] = distance[place]
            self._hosts[place] = (number, _made(text, self.plants[place], self._around[place]))

    def texts(self) -> list[str]:
        """Return the planted copies, in the order of `plants`."""
        return [copy.text for _, copy in self._hosts]

    def spans(self) -> list[Span]:
        """Return where in each copy what was planted stands; windows that do not touch it need no embedding."""
        told = zip(self.plants, self._hosts, strict=True)
        return [
            Span(one.probe, *(len(copy.text[:at].encode()) for at in (copy.begin, copy.end))) for one, (_, copy) in told
        ]

    def touching(self, place: int, hits: Sequence[Hit]) -> list[tuple[int, Hit]]:
        """Return (host's number, hit) of the hits of a plant's probe that touch what was planted."""
        number, span = self._hosts[place][0], self.spans()[place]
        return [(number, hit) for hit in hits if hit.probe == span.probe and span.touches(hit.start, hit.end)]


def _mixed(number: int) -> int:
    value = (number * _MIX[2] + _MIX[2]) % 2**64
    value = (value ^ (value >> 30)) * _MIX[0] % 2**64
    value = (value ^ (value >> 27)) * _MIX[1] % 2**64
    return (value ^ (value >> 31)) >> 32


def _around(plan: Plan, one: Planted) -> int:
    """Return how many words of a host are copied: what a window of the item's length can reach, on either side."""
    read = len(normalise(plan.probes[one.probe].text).words)
    return min(COPY_WORDS, REACH * bin_of(max(read, 1), plan.parameters.windows))


def _made(host: str, one: Planted, around: int) -> PlantedDocument:
    place = _mixed(one.at ^ one.id) % PLACES
    plant = Plant(one.id, "", one.depth, one.placement, "", one.text, one.shard, 0, place)
    return planted_document(host, plant, around)
