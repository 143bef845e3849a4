"""Which tables of lesions an answer has room for, and which numbers a report can hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from checks.clusterability.lesion import Lesions
from checks.clusterability.lesion_tests import ClusterTest
from checks.quantise import LARGEST

if TYPE_CHECKING:
    from jaxtyping import Int

CELLS_MOST = 72
"""Clusters times tasks whose three tables are told as metrics: each number is charged some 20 bytes to the result.
Beyond it `loss_rise` and `on_accuracy`, on which no claim rests, are left out and named as skipped."""

UNCLAIMED = ("loss_rise", "on_accuracy")
"""Tables that no claim rests on."""

DROPS_MOST = 192
"""Clusters times tasks whose drops are told as metrics. Beyond it a partition's heat map alone has them: claims rest on
its clusters' largest drop and gap, which are told of every cluster."""

CLUSTERS_MOST = 32
"""Clusters that an audit may lesion: 32 with 12 tasks are charged at most 27 KiB of its 64 KiB of output."""

PARTS_MOST = 48
"""Matrices and lesioned clusters whose plots an answer has room for: of 24 of each at most 52 KiB are charged."""

TELLABLE = LARGEST / 10
"""Numbers from here on are left out by name: a decimal has 15 digits before the point, and bounds are rounded up."""


@dataclass(frozen=True)
class PartitionLesions:
    """Lesions of one partition, with the names of what they are made of."""

    name: str
    """"network", "mlp.{l}" or "head_graph"."""
    tasks: tuple[str, ...]
    counts: Int[np.ndarray, " task"]
    """Rows of each task."""
    lesions: Lesions
    tests: tuple[ClusterTest, ...]
    matrix: str = ""
    """What gave the clusters, as structure names it."""

    @property
    def rows(self) -> int:
        """Rows of all tasks."""
        return int(self.counts.sum())


def untold(measured: Sequence[PartitionLesions]) -> dict[str, tuple[str, ...]]:
    """Return the tables that are too large for each partition: of the first that pass a bound, and on."""
    cells = list(accumulate(len(one.tests) * len(one.tasks) for one in measured))
    return {
        one.name: ("drop", *UNCLAIMED) if upto > DROPS_MOST else UNCLAIMED if upto > CELLS_MOST else ()
        for one, upto in zip(measured, cells, strict=True)
    }


def tellable(number: float) -> bool:
    """Return whether a report can hold a number; a loss in nats, alone of all numbers, may be too large for it."""
    return isfinite(number) and abs(number) < TELLABLE


def out_of_range(measured: Sequence[PartitionLesions]) -> tuple[tuple[str, str], ...]:
    """Return (partition, table) for each told table of losses that lacks a number, because it is not `tellable`."""
    crowded, found = untold(measured), []
    for one in measured:
        rise = one.lesions.loss_rise
        whole: dict[str, tuple[np.ndarray, ...]] = {"baseline_loss": (one.lesions.baseline_loss,)}
        whole |= {} if "loss_rise" in crowded[one.name] else {"loss_rise": (rise.value, rise.low, rise.high)}
        found += [
            (one.name, table)
            for table, parts in whole.items()
            if not all(tellable(float(number)) for part in parts for number in part.flat)
        ]
    return tuple(found)
