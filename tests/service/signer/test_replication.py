"""Replications are judged, signed and logged beside their report; a stranger's first report never holds one back."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from assay import bundle, canonical
from assay.compare import signed
from assay.testing import forged_entry
from assay.tlog import proofs
from assay.verify import Verification, verify
from sqlalchemy import insert

from service.signer.handed_out import handed_out
from service.signer.refusal import Refused
from service.store.tables import report
from tests.service.signer.planting import World
from tests.service.signer.test_killed import STEPS_MAX, STRIDES, die_at, kinds, work

Change = Callable[[dict[str, Any]], object]
TOLERANCE = {"abs": "0.001", "rel": "0"}


def repeatable(root: Path) -> World:
    """Return a world whose check promises how far a run on the same machine may move its numbers."""
    return World(root, metrics=[{**one, "tolerance": TOLERANCE} for one in forged_entry().raw["metrics"]])


def record(world: World, change: Change | None = None) -> dict[str, Any]:
    """Return an honest record whose numbers declare how far a run on the same machine may move them."""
    made = world.record()
    for answer in made["answers"]:
        for metric in answer["measured"]["metrics"]:
            metric["tolerance"] = TOLERANCE
    if change is not None:
        change(made["answers"][0]["measured"]["metrics"][0])
    return made


def first_report(root: Path) -> tuple[World, Path]:
    world = repeatable(root)
    world.register()
    world.finish(record(world))
    return world, Path(world.sealed()["directory"])


def asks(world: World, data: bytes, *, seed: int | None = None, statement_sha256: str | None = None) -> None:
    """Let the world's request name a first report, uploaded before."""
    carried = bundle.read(data)
    told = json.loads(carried.payload)["predicate"]["registration"]
    named = {"statement_sha256": statement_sha256 or _sha256(carried.payload), "bundle_sha256": world.put(data)}
    world.request |= {"seed_mode": "fixed", "seed": told["seed"] if seed is None else seed, "first": named}
    world.request_sha256 = world.put(canonical.dumps(world.request))
    world.set(request_sha256=world.request_sha256)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def first(tmp_path: Path) -> bytes:
    _, report = first_report(tmp_path / "first")
    return (report / bundle.FILE_NAME).read_bytes()


def sealed(world: World, change: Change | None = None) -> tuple[Path, dict[str, Any]]:
    world.register()
    world.finish(record(world, change))
    told = world.sealed()
    place = Path(told["directory"])
    assert {bundle.REPLICATION_FILE_NAME, proofs.REPLICATION_PROOF} <= {one["path"] for one in told["files"]}
    return place, signed.parse(bundle.read((place / bundle.REPLICATION_FILE_NAME).read_bytes()).payload)["predicate"]


def seen(world: World, place: Path, **more: Any) -> Verification:
    return verify(
        place,
        keys=[world.desk.public_file],
        log_vkeys=[world.desk.journal.vkey.text],
        log_dir=world.desk.home.log,
        catalogue=world.desk.catalogue,
        now=world.now,
        **more,
    )


def test_a_repeated_run_is_signed_and_logged_as_replicated(tmp_path: Path) -> None:
    _, one = first_report(tmp_path / "first")
    world = repeatable(tmp_path / "second")
    asks(world, (one / bundle.FILE_NAME).read_bytes())
    place, told = sealed(world)
    assert (told["outcome"], told["reason"], told["counts"]) == ("replicated", None, {"agrees": 3})
    assert told["first"]["own_key"] is False
    assert told["first"]["key_id"] == bundle.read((one / bundle.FILE_NAME).read_bytes()).key_id
    assert kinds(world) == ["request", "report", "replication"]
    found = seen(world, place, first=one)
    assert (found.outcome, found.replication) == ("verified", "replicated"), found.render_text()
    assert "judged again" in found.step("V14").detail
    without = seen(world, place)
    assert without.outcome == "verified"
    assert any("not judged again" in item for item in without.not_checked)


def test_another_number_is_signed_as_not_replicated(tmp_path: Path, first: bytes) -> None:
    world = repeatable(tmp_path / "second")
    asks(world, first)
    moved = {"value": "0.912", "interval": {"low": "0.877", "high": "0.947", "level": "0.95", "method": "wilson"}}
    place, told = sealed(world, lambda metric: metric.update(moved))
    assert told["outcome"] == "not_replicated"
    assert seen(world, place).outcome == "verified"


def test_a_first_report_under_our_own_key_is_told_so(tmp_path: Path, first: bytes) -> None:
    world = repeatable(tmp_path / "second")
    payload = bundle.read(first).payload
    asks(world, world.desk.sign(payload))
    _, told = sealed(world)
    assert (told["first"]["own_key"], told["first"]["key_id"]) == (True, world.desk.key_id)


def test_a_stolen_hint_is_no_own_key(tmp_path: Path, first: bytes) -> None:
    """Only the key id is ours; the signature is another's."""
    world = repeatable(tmp_path / "second")
    carried = bundle.read(first)
    forged = bundle.write(bundle.Bundle(payload=carried.payload, signature=carried.signature, key_id=world.desk.key_id))
    asks(world, forged)
    assert sealed(world)[1]["first"]["own_key"] is False


def hostile(first: bytes, change: Change) -> bytes:
    """Return a bundle of another statement; nobody verifies its signature here."""
    carried = bundle.read(first)
    told = json.loads(carried.payload)
    change(told["predicate"])
    return bundle.write(
        bundle.Bundle(payload=canonical.dumps(told), signature=carried.signature, key_id=carried.key_id)
    )


HOSTILE: dict[str, Change] = {
    "/predicate/environment": lambda told: told.update(environment={}),
    "measured/metrics/0/value": lambda told: told["answers"][0]["measured"]["metrics"][0].update(value="1e999999999"),
    "data/pairs/sha256": lambda told: told["data"][0].update(sha256="0" * 64),
    "newer": lambda told: told.update(schema_version="7.0"),
    "name": lambda told: told["audit"].update(name="audits/\u202e"),
}


@pytest.mark.parametrize("words", HOSTILE)
def test_a_first_report_that_cannot_be_judged_never_keeps_a_report_in_signing(
    tmp_path: Path, first: bytes, words: str
) -> None:
    world = repeatable(tmp_path / "second")
    asks(world, hostile(first, HOSTILE[words]))
    place, told = sealed(world)
    assert (told["outcome"], told["results"]) == ("cannot_tell", [])
    assert words in told["reason"]
    assert told["reason"].isprintable()
    found = seen(world, place)
    assert (found.outcome, found.replication) == ("verified", "cannot_tell"), found.render_text()


def test_another_seed_is_signed_with_its_reason(tmp_path: Path, first: bytes) -> None:
    world = repeatable(tmp_path / "second")
    asks(world, first, seed=7)
    assert "registration/seed" in sealed(world)[1]["reason"]


def test_another_statement_than_the_request_names_is_not_judged(tmp_path: Path, first: bytes) -> None:
    world = repeatable(tmp_path / "second")
    asks(world, first, statement_sha256="0" * 64)
    assert "another statement" in sealed(world)[1]["reason"]


def test_a_first_report_that_is_not_on_this_disk_is_asked_for_again(tmp_path: Path, first: bytes) -> None:
    """The operator mends that; a retry then gives the replication."""
    world = repeatable(tmp_path / "second")
    asks(world, first)
    hidden = world.blob(world.request["first"]["bundle_sha256"])
    hidden.rename(tmp_path / "aside")
    world.register()
    world.finish(record(world))
    with pytest.raises(Refused) as refused:
        world.sealed()
    assert (refused.value.code, refused.value.retryable) == ("BLOB_MISSING", True)
    (tmp_path / "aside").rename(hidden)
    world.sealed()
    assert kinds(world) == ["request", "report", "replication"]


@STRIDES
def test_killed_while_sealing_a_replication_at_every_step(tmp_path: Path, first: bytes, stride: int) -> None:
    world = repeatable(tmp_path / "second")
    asks(world, first)
    world.register()
    world.finish(record(world))
    home, before = tmp_path / "second" / "signer", tmp_path / "before"
    shutil.copytree(home, before)
    for step in range(1, STEPS_MAX, stride):
        shutil.rmtree(home)
        shutil.copytree(before, home)
        world.close()
        died = die_at(step, home, lambda: work(world, world.sealed))
        persisted = world.desk.home.replication(world.id)
        kept = persisted.read_bytes() if persisted.exists() else None
        world.now += timedelta(seconds=1)
        world.desk = world.open_desk()
        place = Path(world.sealed()["directory"])
        assert kept is None or persisted.read_bytes() == kept
        assert kinds(world) == ["request", "report", "replication"]
        assert seen(world, place).outcome == "verified"
        if not died:
            break
    else:
        pytest.fail("the signer died at every step")


def test_a_log_without_a_replication_that_was_handed_out_is_not_served(tmp_path: Path, first: bytes) -> None:
    """A restored backup would fork the log: the replication's checkpoint is the newest that anybody holds."""
    world = repeatable(tmp_path / "second")
    asks(world, first)
    place, _ = sealed(world)
    files = [
        {"path": name, "sha256": world.put((place / name).read_bytes()), "size": 1}
        for name in (proofs.REPORT_PROOF, proofs.REPLICATION_PROOF)
    ]
    world.execute(
        insert(report).values(audit=world.id, n=1, files_json=json.dumps(files), key_id=world.desk.key_id, signed_at=1)
    )
    carriers = [who for who, _ in handed_out(world.desk.rows, world.desk.evidence)]
    assert f"{proofs.REPLICATION_PROOF} of audit {world.id}" in carriers
