"""Checks on their way to an answer: what an order asks, each with its data and its needs, or why there is no answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assay.result import Answer
from pydantic import ValidationError

from checks.ask import failed, listed, refused
from checks.base import NO_BASE, Base, read_base
from checks.check import ROWS, Check, ModelFacts, Needs, Refusal
from checks.documents import Order, OrderedCheck
from checks.runtime.plan import check_needs
from checks.sharding import Gathered, ShardedCheck, ShardFile
from sandbox.reader import jsonl
from sandbox.reader.error import ReaderError
from sandbox.reader.model import read_capped

BLOB_CAP = 512 * 2**20
"""Bytes of a role that is not rows: a sparse dictionary of 32 Ki latents at width 2048, in float32."""

Rows = Sequence[Mapping[str, Any]]


@dataclass(kw_only=True)
class Asked:
    """One check on its way to an answer."""

    ordered: OrderedCheck
    check: Check | None = None
    needs: Needs | None = None
    rows: dict[str, Rows] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    files: tuple[ShardFile, ...] = ()
    """Of the role that is read in shards."""
    gathered: Gathered | None = None
    """Plan and joined parts, once there are any."""
    answer: Answer | None = None
    """Set as soon as it is known: by a refusal, a failure, or at the end."""

    @property
    def sharded(self) -> bool:
        """Whether these parameters and roles ask for shards."""
        if not isinstance(self.check, ShardedCheck) or not self.files:
            return False
        return self.check.is_sharded({*self.rows, *self.blobs, self.check.shard_role})


def asked_of(ordered: OrderedCheck, catalogue: Mapping[str, type[Check]]) -> Asked:
    """Return the check of an order, or its refusal where this build has no such check or parameter."""
    kind = catalogue.get(ordered.name)
    if kind is None or ordered.version != kind.version:
        have = [f"{name}:{one.version}" for name, one in sorted(catalogue.items())]
        return Asked(ordered=ordered, answer=not_asked(ordered, "check_unknown", have))
    try:
        # Through JSON, so that arrays become tuples while all else stays strict.
        return Asked(ordered=ordered, check=kind.model_validate_json(json.dumps(ordered.params)))
    except ValidationError as error:
        fields = [".".join(map(str, one["loc"])) for one in error.errors(include_url=False)]
        return Asked(
            ordered=ordered, answer=not_asked(ordered, "params_invalid", [f"params.{name}" for name in fields])
        )


def not_asked(ordered: OrderedCheck, reason: str, items: Sequence[str]) -> Answer:
    """Return a refused answer that records the parameters as they were given."""
    return Answer(
        check=ordered.name,
        version=ordered.version,
        params=ordered.params,
        outcome="refused",
        reason=reason,
        skipped=listed(items, reason),
    )


def gather(asked: Sequence[Asked], order: Order, inputs: Mapping[str, Path], facts: ModelFacts) -> None:
    """Parse each check's data and hear its needs; a check whose data or needs are wrong is answered here."""
    for one in asked:
        if one.check is not None and facts.kind not in one.check.kinds:
            one.answer = refused(one.check, Refusal("model_kind", (f"kind:{facts.kind}",)))
    gather_data(asked, order, inputs)
    for one in asked:
        if one.check is None or one.answer is not None:
            continue
        try:
            # Of a role that is bytes the check hears that it is there, and reads it when it measures.
            there = {**one.rows, **dict.fromkeys(one.blobs, ())}
            if one.files and isinstance(one.check, ShardedCheck):
                there[one.check.shard_role] = ()
            needs = one.check.needs(facts, there)
            check_needs(needs, facts)
            one.needs = needs
        except Refusal as refusal:
            one.answer = refused(one.check, refusal)
        except MemoryError:  # the cell's limit, not the check's fault: the host names it
            raise
        except Exception:  # a check that raises is answered as failed; the others are still asked
            one.answer = failed(one.check, "needs")


def gather_data(asked: Sequence[Asked], order: Order, inputs: Mapping[str, Path]) -> None:
    """Parse each check's data, but what it reads in shards; a check whose data are wrong is answered here."""
    given = {data.role: inputs[data.input] for data in order.data}
    for one in asked:
        if one.check is None or one.answer is not None:
            continue
        try:
            roles = one.check.data_roles
            here = [role for role in roles if role.name in given and not role.many]
            one.rows = {role.name: _rows(given, role.name) for role in here if role.media_type == ROWS}
            one.blobs = {role.name: _blob(given, role.name) for role in here if role.media_type != ROWS}
            if isinstance(one.check, ShardedCheck):
                one.files = files_of(one.check, order, inputs)
            missing = [role.name for role in roles if role.required and role.name not in given]
            if missing:
                raise Refusal("data_missing", tuple(f"role:{name}" for name in missing))
        except Refusal as refusal:
            one.answer = refused(one.check, refusal)
        except MemoryError:
            raise
        except Exception:  # what goes wrong with one check's data is that check's answer alone
            one.answer = failed(one.check, "needs")


def files_of(check: ShardedCheck, order: Order, inputs: Mapping[str, Path]) -> tuple[ShardFile, ...]:
    """Return the files of the role that a check reads in shards, in the order in which they were sent."""
    sent = [data for data in order.data if data.role == check.shard_role]
    return tuple(
        ShardFile(path=inputs[data.input], name=f"{data.role}.{number}", sha256=data.sha256, size=data.size)
        for number, data in enumerate(sent)
    )


def _rows(given: Mapping[str, Path], role: str) -> Rows:
    try:
        return tuple(row for _number, row in jsonl.rows(given[role]))
    except ReaderError as error:
        raise Refusal("data_invalid", (f"{role}:{error.at or 'file'}:{error.code}",)) from None


def _blob(given: Mapping[str, Path], role: str) -> bytes:
    try:
        return read_capped(given[role].resolve(), BLOB_CAP)
    except ReaderError as error:
        raise Refusal("data_invalid", (f"{role}:{error.at or 'file'}:{error.code}",)) from None


def base_of(
    asked: Sequence[Asked], order: Order, inputs: Mapping[str, Path], facts: ModelFacts, files: Mapping[str, Path]
) -> Base:
    """Read the base model where one of the checks asks for it, and refuse those checks where it cannot be asked.

    Args:
        asked: the checks, which have told their needs.
        order: what is asked.
        inputs: path of each input of the order.
        facts: of the submitted model.
        files: its files, by path.
    """
    asking = [one for one in asked if one.needs is not None and "base" in one.needs.passage_models]
    if not asking:
        return NO_BASE
    base = read_base(order.base, inputs, facts, files)
    for one in asking:
        if base.refusal is not None and one.check is not None:
            one.needs, one.answer = None, refused(one.check, base.refusal)
    return base
