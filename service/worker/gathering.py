"""Plan and parts of an audit in shards: which files a job of it needs, and what its order says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sandbox.cell import Input
from service.rules.names import BlobName
from service.store.shards import Plan
from service.worker.materialise import Wanted
from service.worker.order import Shards
from service.worker.shards import CARRIED, DOCUMENT


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """What the job of a shard, or the one that combines, starts from."""

    check: int
    """Position of the check in the request."""
    plan: Plan
    shard: int | None = None
    """Which to scan; None to combine."""
    parts: tuple[BlobName, ...] = ()
    """Of the finished shards, in their order; every attempt gets them in this one."""
    dead: tuple[int, ...] = ()

    @property
    def wanted(self) -> tuple[Wanted, ...]:
        """The files: the plan; to scan, what it carries; to combine, the parts."""
        found = [(DOCUMENT, self.plan.document)]
        if self._carried:
            found.append((CARRIED, self._carried))
        found += [(f"part.{number}", part) for number, part in enumerate(self.parts)]
        return tuple(Wanted(input=name, sha256=one.sha256, size=one.size) for name, one in found)

    def shards(self, made: Sequence[Input]) -> Shards:
        """Return what the order says, of `wanted` once it was copied."""
        document, *rest = made
        carried = rest.pop(0) if self._carried else None
        return Shards(
            check=self.check, document=document, carried=carried, shard=self.shard, parts=tuple(rest), dead=self.dead
        )

    @property
    def _carried(self) -> BlobName | None:
        return self.plan.carried if self.shard is not None else None
