"""A check of data that is too large for one cell: plan, scan each shard anywhere, merge, conclude (design, section 4).

The four verbs are pure functions of their arguments, and what passes between them is bytes: a plan is fixed before any
shard is read, a part is what scanning one shard gave, and parts joined in any order and any tree are the same bytes.
`Check.measure` is the conclusion. Whether all of it ran in one process or each verb in a cell of its own on another
machine, the evidence that `measure` sees is the same.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from checks.check import Check

if TYPE_CHECKING:
    from checks.check import Evidence

SHARDS_MAX = 512
"""Most shards of one plan: each is a job, and each part is a file that the last cell opens."""

DOCUMENT_MAX, CARRIED_MAX, PART_MAX = 256 * 2**20, 512 * 2**20, 256 * 2**20
"""Bytes of a plan, of what it carries, and of one part. For `contamination`: 100 000 probes of 1 kB are 100 MB; their
vectors, 384 numbers of 4 bytes, 154 MB; 16 kept matches of 200 bytes fit 83 886 times into a part, and a plan of more
probes is refused before any shard is read (`plan_too_large`) unless it keeps fewer matches."""

ShardStep = Callable[[int, int], None]
"""Takes (done, owed) while a shard is scanned; the unit is the check's own."""


class ShardFailed(Exception):
    """A shard cannot be read; nothing of it counts, and the answer names it.

    Args:
        reason: what is wrong, a word of the name alphabet.
        at: file and record in the name alphabet; never what the record says.
    """

    def __init__(self, reason: str, at: str) -> None:
        super().__init__(f"{reason} at {at}")
        self.reason = reason
        self.at = at[:128]


@dataclass(frozen=True, kw_only=True)
class ShardFile:
    """One file of the sharded role, as the cell sees it."""

    path: Path
    name: str
    """`<role>.<n>`, counted from 0 in the order in which the files were sent."""
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What was fixed before any shard was read."""

    document: bytes
    """The plan itself; its SHA-256 is told."""
    carried: bytes = b""
    """What follows from the document alone and is dear to make again; every scan gets it."""
    shards: int
    """At least 1."""


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """What `measure` sees of the shards."""

    document: bytes
    merged: bytes
    """All parts, joined."""
    files: tuple[ShardFile, ...]
    """For what only a second look at single records can tell."""


class ShardedCheck(Check, abc.ABC):
    """A check of which one role is read in shards."""

    shard_role: ClassVar[str]
    """Its role; may be sent in several files."""

    @abc.abstractmethod
    def is_sharded(self, roles: Collection[str]) -> bool:
        """Say whether these parameters and roles ask for shards at all."""

    @abc.abstractmethod
    def plan_shards(self, evidence: Evidence, files: Sequence[ShardFile]) -> Planned:
        """Fix the plan: its data are the other roles, and there is no model.

        Raises:
            Refusal: data or corpus cannot carry this check.
            ShardFailed: a file has no readable table of contents.
        """

    @abc.abstractmethod
    def scan_shard(self, planned: Planned, shard: int, files: Sequence[ShardFile], on_step: ShardStep) -> bytes:
        """Return the part of one shard: equal arguments give equal bytes.

        Raises:
            ShardFailed: it cannot be read.
        """

    @abc.abstractmethod
    def merge_parts(self, parts: Sequence[bytes]) -> bytes:
        """Return all parts as one: associative, commutative, and a part that is there twice counts once."""
