"""A check whose corpus is read in shards, with cells that are made by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from assay import canonical
from sqlalchemy import select

from sandbox.cell import Cancelled, OnStep, Order, Outcome
from sandbox.orders import check_order
from service.store.tables import job
from tests.service.worker.scripted import OK, House, catalogue, document, filled

COUNT = 3
ROLE = {"name": "corpus", "required": True, "media_type": "application/vnd.assay.corpus", "summary": "", "many": True}
SHARDED = catalogue(data_roles=[ROLE], shard_role="corpus")


def staged(order: Order, count: int, contents: dict[str, bytes]) -> Outcome:
    """Return what a cell leaves that answers nothing."""
    slots = tuple(filled(slot.name, contents.get(slot.name, b"")) for slot in order.slots)
    told = [{"slot": one.name, "sha256": one.sha256, "size": one.size} for one in slots if one.name in contents]
    return replace(OK, result=canonical.dumps(leaving(order.nonce, shards=count, files=told)), slots=slots)


def leaving(nonce: str, **told: Any) -> dict[str, Any]:
    return {
        "schema": "assay-cell-result/v1",
        "nonce": nonce,
        "answers": [],
        "ingest": {"decisions": []},
        "facts": None,
        "staged": told,
    }


def works(count: int = COUNT, carried: bytes = b"vectors") -> Callable[[Order, OnStep, Cancelled], Outcome]:
    """A cell of a check in shards: what a scan leaves follows from its order alone."""

    def script(order: Order, _on_step: OnStep, _cancelled: Cancelled) -> Outcome:
        check_order(order)
        asked = json.loads(order.request)
        stage = asked.get("stage", "whole")
        if stage == "plan":
            if count < 2:
                return staged(order, count, {})
            return staged(order, count, {"plan.document": b"plan", "plan.carried": carried})
        if stage == "scan":
            return staged(order, 1, {"scan.part": b"part %d" % asked["shards"]["shard"]})
        return replace(OK, result=canonical.dumps(document(order)))

    return script


def corpus(place: House, n: int = 0, **more: Any) -> str:
    """Plant an audit with two files of a corpus, equal ones."""
    return place.submit(n, data_rows=[("corpus", b"text"), ("corpus", b"text")], **more)


def jobs_of(place: House, key: str) -> dict[str, str]:
    with place.store.read() as connection:
        rows = connection.execute(select(job.c.id, job.c.state).where(job.c.audit == key))
        return {row.id.removeprefix(key): row.state for row in rows}
