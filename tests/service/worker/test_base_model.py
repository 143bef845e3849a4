"""Two models in one attempt: each is read in a cell of its own, the last cell gets both, both are charged."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from assay import canonical
from sqlalchemy import select

from checks.documents import read_order
from sandbox.cell import Cancelled, OnStep, Order, Outcome
from service.rules.manifest import weights_sha256
from service.store.tables import output_charge
from tests.service.worker.scripted import OK, SEAL, House, filled, read, reads
from tests.service.worker.test_attempt import classes, record

MODEL = {"config.json": b'{"m":1}', "model.safetensors": b"weights", "tokenizer.json": b"{}"}
BASE = {"README.md": b"x", "config.json": b'{"b":1}', "model.safetensors": b"other weights", "tokenizer.json": b"{}"}


def names(order: Order) -> list[str]:
    return [one.name for one in order.inputs]


def test_each_model_is_read_alone_and_the_last_cell_gets_both(place: House) -> None:
    key = place.submit(files=MODEL, base=BASE)
    place.attempt(key)
    assert classes(place, key) == ["OK"]
    first, second = place.cell.readings
    assert [json.loads(one.request)["files"][0]["path"] for one in (first, second)] == ["config.json", "README.md"]
    assert not [name for name in names(first) if name.startswith(("base", "data"))]
    assert not [name for name in names(second) if name.startswith(("model", "data"))]
    [order] = place.cell.orders
    asked = read_order(order.request)
    assert asked.base is not None
    assert asked.model.manifest_sha256 != asked.base.manifest_sha256
    of_model = [one.input for one in (*asked.model.files, asked.model.tensors) if one]
    of_base = [one.input for one in (*asked.base.files, asked.base.tensors) if one]
    assert of_base == [
        "base.ingest.config.json",
        "base.2.safetensors",
        "base.ingest.tokenizer.json",
        "base.ingest.tensors.json",
    ]
    assert not set(of_model) & set(of_base)
    assert set(names(order)) == {*of_model, *of_base, "data.0"}
    assert len(names(order)) == len(set(names(order)))
    given = {one.name: one.source for one in order.inputs}
    assert set(given) == set(names(order))


def test_every_decision_is_recorded_with_the_model_that_it_is_of(place: House) -> None:
    key = place.submit(files=MODEL, base=BASE)
    place.attempt(key)
    told = record(place, key)
    assert [one["path"] for one in told["ingest"]["decisions"]] == sorted(MODEL)
    assert [one["path"] for one in told["base_ingest"]["decisions"]] == sorted(BASE)
    assert [cell["stage"] for cell in told["sandbox"]["cells"]] == ["ingest", "ingest", "check"]


def test_without_a_base_nothing_tells_of_one(place: House) -> None:
    key = place.submit(files=MODEL)
    place.attempt(key)
    assert "base_ingest" not in record(place, key)
    [order] = place.cell.orders
    assert read_order(order.request).base is None


def test_both_models_are_charged(place: House) -> None:
    key = place.submit(files=MODEL, base=BASE)
    place.attempt(key)
    owed = {weights_sha256(place.put_model(files)) for files in (MODEL, BASE)}
    with place.store.read() as connection:
        rows = connection.execute(select(output_charge.c.model_sha256, output_charge.c.bytes)).all()
    assert {row.model_sha256 for row in rows} == owed
    assert len({row.bytes for row in rows}) == 1


def refusing(nth: int) -> Any:
    """An ingest cell that refuses the nth model that it reads."""
    seen: list[Order] = []

    def script(order: Order, on_step: OnStep, cancelled: Cancelled) -> Outcome:
        seen.append(order)
        if len(seen) != nth:
            return reads(order, on_step, cancelled)
        bad = {"path": "config.json", "decision": "refused", "reason": "config_range", "at": {"key": "n_layer"}}
        document = canonical.dumps(read(order, refused=True, decisions=[bad]))
        empty = tuple(filled(slot.name, b"") for slot in order.slots)
        return replace(OK, seal=replace(SEAL, stage="ingest"), result=document, slots=empty)

    return script


def test_a_refused_base_refuses_every_check_and_is_told_apart(place: House) -> None:
    place.cell.reads = refusing(2)
    key = place.submit(files=MODEL, base=BASE)
    place.attempt(key)
    assert classes(place, key) == ["REFUSED"]
    told = record(place, key)
    [answer] = told["answers"]
    assert (answer["outcome"], answer["reason"]) == ("refused", "ingest_base:config_range")
    assert answer["skipped"] == [{"item": "base:config.json", "reason": "config_range"}]
    assert [one["decision"] for one in told["ingest"]["decisions"]] == ["accepted"] * 3
    assert [one["decision"] for one in told["base_ingest"]["decisions"]] == ["refused"]
    assert place.cell.orders == []


def test_a_refused_model_is_refused_before_its_base_is_read(place: House) -> None:
    place.cell.reads = refusing(1)
    key = place.submit(files=MODEL, base=BASE)
    place.attempt(key)
    told = record(place, key)
    assert told["answers"][0]["reason"] == "ingest:config_range"
    assert "base_ingest" not in told
    assert len(place.cell.readings) == 1


def test_a_missing_file_of_the_base_is_the_hosts_fault(place: House) -> None:
    key = place.submit(files=MODEL, base={**BASE, "model.safetensors": b"lost"}, attempts_max=1)
    place.blobs.delete(place.put(b"lost"))
    place.attempt(key)
    assert classes(place, key) == ["HOST_FAULT"]
    assert place.cell.readings == []


@pytest.mark.parametrize("data", [b"\x80\x04\x95not json", bytes(range(256)), b""])
def test_bytes_of_a_role_reach_the_last_cell_as_they_are(place: House, data: bytes) -> None:
    seen: list[bytes] = []
    script = place.cell.script

    def looking(order: Order, on_step: OnStep, cancelled: Cancelled) -> Outcome:
        [given] = [one for one in order.inputs if one.name == "data.0"]
        seen.append(given.source.read_bytes())
        return script(order, on_step, cancelled)

    place.cell.script = looking
    place.attempt(place.submit(data=data))
    assert seen == [data]
    assert not [name for reading in place.cell.readings for name in names(reading) if name.startswith("data")]
