"""A prepared plan as a file, and back: strict, so that what is read is what was written (contamination, 5, 6.8)."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from assay import canonical
from assay.errors import Malformed

from checks.check import Refusal
from checks.contamination.plan import Owner, Plan, PlanProbe, Planted, ScanParameters
from checks.contamination.planning import Asked, ItemFact, Prepared, conclusion_digest
from checks.contamination.shards import Shard, Stored
from sandbox.reader import strict_json
from sandbox.reader.error import ReaderError

SCHEMA = "assay-contamination-prepared/v1"

PLAN_CAP = 2**31
"""Bytes of a plan: 200 000 items of the longest question with four siblings each exceed it, 20 000 with 20 siblings of
500 characters do not (section 3)."""


def to_bytes(prepared: Prepared) -> bytes:
    """Return the canonical JSON of a prepared plan."""
    plan = prepared.plan
    return canonical.dumps(
        {
            "schema": SCHEMA,
            "plan_sha256": plan.plan_sha256,
            "plan": strict_json.loads(plan.document(), cap=PLAN_CAP),
            "owners": [_plain(one) for one in plan.owners],
            "shards": [_shard_json(one) for one in plan.shards],
            "asked": _plain(prepared.asked),
            "facts": [_plain(one) for one in prepared.facts],
            "sources": list(prepared.sources),
        }
    )


def read_prepared(data: bytes) -> Prepared:
    """Return the prepared plan of canonical bytes.

    Raises:
        Refusal: `plan_invalid`: no JSON, other fields or types, or a digest that its content does not have.
    """
    try:
        told = strict_json.loads(data, cap=PLAN_CAP)
        if not isinstance(told, dict) or told.get("schema") != SCHEMA:
            raise Refusal("plan_invalid", ("plan:schema",))
        made = _made(told)
        digest = conclusion_digest(made.asked, made.facts, made.sources)
        same = to_bytes(made) == data and made.plan.digests.get("conclusion") == digest
    except ReaderError as error:
        raise Refusal("plan_invalid", (f"plan:{error.code}",)) from None
    except (KeyError, TypeError, ValueError, AttributeError, SyntaxError, IndexError, Malformed):
        raise Refusal("plan_invalid", ("plan:fields",)) from None
    if not same:  # also where a digest was edited: it is computed from what was read
        raise Refusal("plan_invalid", ("plan:not_what_its_digest_says",))
    return made


def differences(told: Prepared, other: Prepared) -> tuple[str, ...]:
    """Return what differs between two plans, each as "plan:" and a name; nothing where their bytes are equal."""
    first, second = (strict_json.loads(to_bytes(one), cap=PLAN_CAP) for one in (told, other))
    inner = first.pop("plan"), second.pop("plan")
    names = {
        name
        for one, two in ((first, second), inner)
        for name in one.keys() | two.keys()
        if one.get(name) != two.get(name)
    }
    # What follows from the rest is told only where nothing else is.
    return tuple(f"plan:{name}" for name in sorted(names - FOLLOWS or names))


FOLLOWS = frozenset({"plan_sha256", "window_key"})
"""Fields of a plan that follow from the others."""


def _made(told: Mapping[str, Any]) -> Prepared:
    plan = told["plan"]
    parameters = {name: _tuples(value) for name, value in plan["parameters"].items()}
    return Prepared(
        plan=Plan(
            parameters=ScanParameters(**parameters),
            probes=tuple(_probe(one) for one in plan["probes"]),
            plants=tuple(Planted(**one) for one in plan["plants"]),
            shards=tuple(_shard(one, number) for number, one in enumerate(told["shards"])),
            seed=plan["seed"],
            window_key=bytes.fromhex(plan["window_key"]),
            digests=plan["digests"],
            owners=tuple(Owner(**one) for one in told["owners"]),
        ),
        asked=Asked(**{name: _tuples(value) for name, value in told["asked"].items()}),
        facts=tuple(ItemFact(**one) for one in told["facts"]),
        sources=tuple(told["sources"]),
    )


def _probe(told: Mapping[str, Any]) -> PlanProbe:
    # Arguments of code stand as text: canonical JSON holds no fractions.
    return PlanProbe(
        **{**told, "choices": tuple(told["choices"]), "probes": ast.literal_eval(told["probes"])},
    )


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _shard(told: Mapping[str, Any], ordinal: int) -> Shard:
    file = Stored(Path(told["name"]), told["name"], told["format"], told["size"], told["sha256"])
    return Shard(file, ordinal, told["begin"], told["end"], told["units"])


def _shard_json(shard: Shard) -> dict[str, Any]:
    file = shard.file
    return {
        "name": file.name,
        "format": file.format,
        "size": file.size,
        "sha256": file.sha256,
        "begin": shard.begin,
        "end": shard.end,
        "units": shard.units,
    }


def _plain(value: Any) -> dict[str, Any]:
    return {one.name: getattr(value, one.name) for one in fields(value)}
