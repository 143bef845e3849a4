"""Jobs of an audit in shards, held against one another: a plan, then every shard, then what combines them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from assay import canonical
from assay.errors import Malformed
from assay.predicate import Cell
from pydantic import ValidationError

from service.signer.record import check_seals
from service.signer.refusal import Refused
from service.signer.rows import AttemptRow

WHOLE, COMBINE = "whole", "combine"
_SHARD = re.compile(r"shard:(0|[1-9][0-9]{0,2})")

_SCANS = frozenset({("check",), ("check_gpu",)})
"""The one cell of a shard's attempt: no model is read there."""


@dataclass(frozen=True, kw_only=True)
class Scans:
    """What cells before the deciding attempt have done."""

    cells: Mapping[int, tuple[Cell, ...]]
    """Their seals, by the attempt's number in its audit; of attempts that left a plan or a part."""
    dead: tuple[int, ...]
    """Shards without a part."""


NO_SCANS = Scans(cells={}, dead=())


def check_jobs(attempts: Sequence[AttemptRow], profile: str, *, base: bool, planned: bool) -> Scans:
    """Hold the attempts of an audit against the order in which shards are read.

    Args:
        attempts: all of the audit, by their number.
        profile: under which profile the report is to be signed.
        base: whether the request names a base model.
        planned: whether a check that was asked reads its data in shards.

    Returns:
        What a report tells of them; nothing where one job was the whole audit.

    Raises:
        Refused: RECORD_REJECTED, or as `check_seals` where a plan or a part came out of no isolated cell.
    """
    jobs = list(dict.fromkeys(one.job for one in attempts))
    if jobs == [WHOLE]:
        return NO_SCANS
    named = [_SHARD.fullmatch(job) for job in jobs[1:-1]]
    shards = sorted(int(one.group(1)) for one in named if one is not None)
    if not planned or jobs[0] != WHOLE or jobs[-1] != COMBINE or len(shards) < 2:
        raise Refused("RECORD_REJECTED", "the jobs of the audit are not a plan, its shards and what combines them")
    if shards != list(range(len(named))):
        raise Refused("RECORD_REJECTED", f"{len(named)} shards have attempts, and they are not 0 to {len(named) - 1}")
    _check_order(attempts)
    plan_stages = {("ingest",) * (2 if base else 1) + (kind,) for kind in ("check", "check_gpu")}
    found: dict[int, tuple[Cell, ...]] = {}
    for one in attempts:
        if one.result_sha256 is not None and one.job != COMBINE:
            found[one.n] = _cells(one)
            check_seals(found[one.n], profile, plan_stages if one.job == WHOLE else _SCANS)
    done = {one.job for one in attempts if one.result_sha256 is not None}
    return Scans(cells=found, dead=tuple(shard for shard in shards if f"shard:{shard}" not in done))


def numbered(jobs: Iterable[str]) -> list[int]:
    """Return the number of each attempt within its job, as a report has them; its rows are numbered in the audit."""
    seen: dict[str, int] = {}
    numbers = []
    for job in jobs:
        seen[job] = seen.get(job, 0) + 1
        numbers.append(seen[job])
    return numbers


def _check_order(attempts: Sequence[AttemptRow]) -> None:
    rank = {WHOLE: 0, COMBINE: 2}
    ranks = [rank.get(one.job, 1) for one in attempts]
    if ranks != sorted(ranks):
        raise Refused("RECORD_REJECTED", "a shard was read before the plan was made, or after its parts were joined")
    last = {one.job: one for one in attempts}
    for one in attempts:
        if one.result_sha256 is not None and last[one.job] is not one:
            raise Refused("RECORD_REJECTED", f"attempt {one.n} at job {one.job} has a result and is not its last")
    if last[WHOLE].result_sha256 is None:
        raise Refused("RECORD_REJECTED", "no attempt has made the plan")


def _cells(row: AttemptRow) -> tuple[Cell, ...]:
    try:
        told = json.loads(row.cells_json)
        seals = [{key: value for key, value in one.items() if key != "usage"} for one in told]
        cells = tuple(Cell.model_validate_json(canonical.dumps(one)) for one in seals)
    except (ValueError, AttributeError, TypeError, Malformed, ValidationError) as error:
        raise Refused(
            "RECORD_REJECTED", f"the seals of attempt {row.n} cannot be read: {type(error).__name__}"
        ) from error
    if not cells:
        raise Refused("RECORD_REJECTED", f"attempt {row.n} at job {row.job} has a result, but no cell is named")
    return cells
