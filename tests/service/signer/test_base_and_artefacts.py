"""A base model and handed-out files are sealed by what the signer re-reads itself, and by nothing that it is told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from assay import canonical
from assay.verify import verify
from sqlalchemy import update

from service.store.tables import audit, result
from tests.service.signer.planting import World
from tests.service.signer.test_sealing import refused
from tests.service.signer.test_walls import CHECKED, READ

CARDS = {"name": "cards.json", "media_type": "application/json", "max_bytes": 100, "summary": "Cards."}
CONTENT = b'{"cards":[]}'


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, base=True, base_model=True)


def report(world: World) -> tuple[Path, dict[str, Any]]:
    directory = Path(world.sealed()["directory"])
    return directory, world.forge.statement(directory)["predicate"]


def test_a_base_is_named_beside_the_model_and_the_report_verifies(world: World) -> None:
    world.register()
    world.finish(world.record(base_ingest={"decisions": [
        {"path": "config.json", "decision": "accepted", "reason": None, "at": None}
    ]}))  # fmt: skip
    world.execute(update(result).values(base_lifetime_bytes=70, base_lifetime_cap=2**20))
    directory, told = report(world)
    assert world.base is not None
    assert told["base"]["manifest_sha256"] == world.base.digest
    assert told["base"]["ingest"]["decisions"][0]["path"] == "config.json"
    assert told["base"]["lifetime_output"] == {"bytes": 70, "cap": 2**20}
    assert told["model"]["manifest_sha256"] == world.forge.manifest.digest
    seen = verify(directory, keys=[world.desk.public_file], catalogue=world.desk.catalogue, now=world.now)
    assert seen.outcome == "verified", seen.render_text()
    assert world.base.digest[:8] in seen.step("V07").detail


def test_a_changed_base_digest_is_wrong_at_v07(world: World) -> None:
    world.register()
    world.finish()
    directory, _ = report(world)
    statement = world.forge.statement(directory)
    for change in ({**statement["predicate"]["base"], "manifest_sha256": "0" * 64}, None):
        statement["predicate"]["base"] = change
        forged = world.forge.reseal(directory, statement)
        seen = verify(forged, keys=[world.forge.key_file], catalogue=world.desk.catalogue, now=world.now)
        assert [step.id for step in seen.steps if step.status == "wrong"] == ["V07"]
        assert "base model" in seen.step("V07").detail


def test_an_audit_without_a_base_says_null(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.register()
    world.finish()
    assert report(world)[1]["base"] is None


def test_data_is_told_with_its_media_type(world: World) -> None:
    world.register()
    world.finish()
    [data] = report(world)[1]["data"]
    assert (data["media_type"], data["rows"]) == ("application/jsonl", 3)


def test_bytes_have_a_media_type_and_no_rows(tmp_path: Path) -> None:
    role = {"name": "pairs", "required": True, "media_type": "application/octet-stream", "summary": "."}
    world = World(tmp_path, data_roles=[role])
    world.register()
    world.finish()
    [data] = report(world)[1]["data"]
    assert (data["media_type"], data["rows"]) == ("application/octet-stream", None)


@pytest.mark.parametrize("base", [None, "0" * 64])
def test_a_row_that_names_another_base_than_the_request_is_not_registered(world: World, base: str | None) -> None:
    world.execute(update(audit).values(base_sha256=base))
    assert refused(world.register) == "REQUEST_REJECTED"


def test_a_row_with_a_base_that_nobody_registered_is_not_sealed(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.register()
    world.finish()
    world.execute(update(audit).values(base_sha256="0" * 64))
    assert refused(world.sealed) == "REQUEST_REJECTED"


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_changed_file_of_the_base_is_never_signed(world: World, moment: str) -> None:
    """Its weights are verified as the model's are: before the run and before the signature."""
    assert world.base is not None
    place = world.blob(world.base.files[1].sha256)
    if moment == "before":
        place.write_bytes(b"\x01" + place.read_bytes()[1:])
        assert refused(world.register) == "BLOB_CORRUPT"
        return
    world.register()
    world.finish()
    place.write_bytes(b"\x01" + place.read_bytes()[1:])
    assert refused(world.sealed) == "BLOB_CORRUPT"


def test_a_missing_manifest_of_the_base_is_told(world: World) -> None:
    assert world.base is not None
    world.blob(world.base.digest).unlink()
    assert refused(world.register) == "BLOB_MISSING"


def test_numbers_about_a_base_that_no_cell_read_are_not_signed(world: World) -> None:
    world.register()
    record = world.record()
    del record["base_ingest"]
    world.finish(record)
    assert refused(world.sealed) == "RECORD_REJECTED"


def test_a_base_that_nobody_asked_for_is_not_signed(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.register()
    world.finish(world.record(base_ingest={"decisions": []}))
    assert refused(world.sealed) == "RECORD_REJECTED"


@pytest.mark.parametrize(
    ("cells", "base", "code"),
    [
        ([READ, READ, CHECKED], True, ""),
        ([READ, CHECKED], True, "RECORD_REJECTED"),
        ([READ, READ], True, "RECORD_REJECTED"),
        ([READ, READ, CHECKED], False, "RECORD_REJECTED"),
        ([READ, READ, READ, CHECKED], True, "RECORD_REJECTED"),
    ],
)
def test_each_model_was_read_in_a_cell_of_its_own(
    tmp_path: Path, cells: list[dict[str, Any]], base: bool, code: str
) -> None:
    world = World(tmp_path, profile="production", base=base)
    world.register()
    world.finish(world.record(sandbox={"cells": cells}))
    if code:
        assert refused(world.sealed) == code
    else:
        assert world.sealed()["key_id"]


def test_a_base_that_its_cell_refused_is_signed_without_a_third(tmp_path: Path) -> None:
    world = World(tmp_path, profile="production", base=True)
    world.register()
    [answer] = world.record()["answers"]
    refusal = {"outcome": "refused", "valid": False, "reason": "ingest_base:config_range", "measured": None}
    empty: dict[str, Any] = {"controls": [], "findings": []}
    world.finish(world.record(sandbox={"cells": [READ, READ]}, answers=[{**answer, **refusal, **empty}]))
    assert world.sealed()["key_id"]


def handing(world: World, *told: dict[str, Any]) -> dict[str, Any]:
    record = world.record()
    record["answers"][0]["artefacts"] = list(told)
    return record


def cards(content: bytes = CONTENT, **changes: Any) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    return {"name": "cards.json", "media_type": "application/json", "sha256": digest, "size": len(content), **changes}


def test_a_handed_out_file_travels_with_the_report(tmp_path: Path) -> None:
    world = World(tmp_path, artefacts=[CARDS])
    world.register()
    digest = world.put(CONTENT)
    world.finish(handing(world, cards()))
    sealed = world.sealed()
    directory, told = report(world)
    assert told["answers"][0]["artefacts"] == [cards()]
    assert (directory / "artefacts" / digest).read_bytes() == CONTENT
    assert {"path": f"artefacts/{digest}", "sha256": digest, "size": len(CONTENT)} in sealed["files"]

    def look() -> Any:
        return verify(directory, keys=[world.desk.public_file], catalogue=world.desk.catalogue, now=world.now)

    assert look().outcome == "verified", look().render_text()
    (directory / "artefacts" / digest).write_bytes(CONTENT + b" ")
    assert [step.id for step in look().steps if step.status == "wrong"] == ["V11"]
    (directory / "artefacts" / digest).unlink()
    assert (look().outcome, any("cards.json" in text for text in look().not_checked)) == ("verified", True)


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ([cards(name="other.json")], "RECORD_REJECTED"),
        ([cards(media_type="text/html")], "RECORD_REJECTED"),
        ([cards(size=101)], "RECORD_REJECTED"),
        ([cards(size=3)], "RECORD_REJECTED"),
        ([cards(), cards()], "RECORD_REJECTED"),
        ([cards(sha256="0" * 64)], "BLOB_MISSING"),
        ([cards(extra=1)], "RECORD_REJECTED"),
    ],
)
def test_a_file_that_is_not_what_was_promised_is_not_signed(
    tmp_path: Path, told: list[dict[str, Any]], code: str
) -> None:
    world = World(tmp_path, artefacts=[CARDS])
    world.register()
    world.put(CONTENT)
    world.finish(handing(world, *told))
    assert refused(world.sealed) == code


def test_a_check_that_promises_no_file_hands_out_none(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.register()
    world.put(CONTENT)
    world.finish(handing(world, cards()))
    assert refused(world.sealed) == "RECORD_REJECTED"


FORGED: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "other_name": ("V10", lambda a: a["artefacts"][0].update(name="other.json")),
    "other_type": ("V10", lambda a: a["artefacts"][0].update(media_type="text/html")),
    "too_large": ("V10", lambda a: a["artefacts"][0].update(size=101)),
    "twice": ("V10", lambda a: a["artefacts"].append(a["artefacts"][0])),
    "other_size": ("V11", lambda a: a["artefacts"][0].update(size=3)),
}


@pytest.mark.parametrize("forgery", FORGED)
def test_a_dishonest_operators_file_is_found_by_the_reader(tmp_path: Path, forgery: str) -> None:
    world = World(tmp_path, artefacts=[CARDS])
    world.register()
    world.put(CONTENT)
    world.finish(handing(world, cards()))
    directory, _ = report(world)
    statement = world.forge.statement(directory)
    step, change = FORGED[forgery]
    change(statement["predicate"]["answers"][0])
    forged = world.forge.reseal(directory, json.loads(canonical.dumps(statement)))
    seen = verify(forged, keys=[world.forge.key_file], catalogue=world.desk.catalogue, now=world.now)
    assert step in [one.id for one in seen.steps if one.status == "wrong"], seen.render_text()
