"""The signer's log: an older copy is never written to, ends are logged, and nothing is logged twice."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from assay.tlog import entries, notes, tiles
from assay.tlog.entries import Entry
from assay.tlog.watch import walk

from service.signer.handed_out import handed_out
from service.signer.keys import ensure_key, load_key
from service.signer.process import SignerSettings, open_server
from service.signer.refusal import CannotServe, Refused
from tests.service.signer.planting import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def logged(world: World) -> list[Entry]:
    """Return what the log holds."""
    found = tiles.folder(world.desk.home.log)
    head = notes.open_checkpoint(tiles.checkpoint(found), [world.desk.journal.vkey])
    return [entries.parse(one) for _, one in walk(tiles.TileTree(found, head.size), 0, head)]


def settings(world: World) -> SignerSettings:
    return SignerSettings(
        database_url=world.url,
        blob_dir=world.root / "blobs",
        home=world.root / "signer",
        socket=world.root / "p",
        allowed_uid=os.getuid(),
        key_file=world.key_file,
        log_key_file=world.log_key_file,
        log_origin="log.assay.example",
        profile="development",
        catalogue=world.desk.catalogue,
        ready=lambda: None,
    )


def restart(world: World) -> None:
    world.close()
    open_server(settings(world)).close()


def test_a_signer_with_an_older_copy_of_its_log_does_not_start(world: World, tmp_path: Path) -> None:
    log = world.desk.home.log
    shutil.copytree(log, tmp_path / "older")
    world.register()
    world.close()
    shutil.copytree(log, tmp_path / "newest")
    shutil.rmtree(log)
    shutil.copytree(tmp_path / "older", log)
    with pytest.raises(CannotServe, match=f"receipt of audit {world.id}"):
        open_server(settings(world))
    assert not (world.root / "p").exists()
    shutil.rmtree(log)
    shutil.copytree(tmp_path / "newest", log)
    restart(world)


def test_a_log_of_one_size_with_another_root_is_refused(world: World) -> None:
    world.register()
    world.close()
    shutil.rmtree(world.desk.home.log)
    world.desk = world.open_desk()
    world.journal.note("request", None, commit="0" * 64, tag="1" * 64)  # type: ignore[union-attr]
    world.close()
    with pytest.raises(CannotServe, match="another root"):
        open_server(settings(world))


def test_a_damaged_log_is_refused(world: World) -> None:
    world.register()
    world.close()
    bundle = next((world.desk.home.log / "tile" / "entries").rglob("1"))
    bundle.write_bytes(bundle.read_bytes()[:-1] + b"!")
    with pytest.raises(CannotServe):
        open_server(settings(world))


def test_a_registration_without_a_receipt_is_refused(world: World) -> None:
    world.set(registration_json='{"entropy":"00"}', registered_at=1)
    with pytest.raises(CannotServe, match="no readable proof"):
        list(handed_out(world.desk.rows, world.desk.evidence))


@pytest.mark.parametrize(
    ("state", "said", "word"),
    [
        ("CANCELLED", "CANCELLED", "cancelled"),
        ("CANCELLED", "APPROVAL_EXPIRED", "cancelled"),
        ("CANCELLED", "APPROVAL_REVOKED", "revoked"),
        ("FAILED", "HOST_FAULT", "failed"),
        ("FAILED", "ATTEMPTS_EXHAUSTED", "failed"),
        ("FAILED", "APPROVAL_REVOKED", "failed"),  # only what was cancelled can have been revoked
        ("CANCELLED", "POISONED", "cancelled"),
        ("FAILED", "POISONED", "poisoned"),
    ],
)
def test_an_audit_that_ends_without_a_report_is_logged(world: World, state: str, said: str, word: str) -> None:
    world.register()
    world.set(state=state)
    for _ in range(2):
        world.ask(op="void", reason=said)
    asked, end = logged(world)
    assert (end.kind, end.prev, end.commit, end.tag, end.reason) == ("void", 0, asked.commit, asked.tag, word)


def test_a_report_that_was_logged_under_another_key_is_not_logged_again(world: World) -> None:
    world.register()
    world.finish()
    world.sealed()
    world.desk.home.logged(world.id).unlink()
    world.key_file.unlink()
    ensure_key(world.key_file)
    assert load_key(world.key_file)
    world.desk = world.open_desk()
    with pytest.raises(Refused, match="another key") as caught:
        world.sealed()
    assert caught.value.code == "SELF_CHECK_FAILED"
    assert [entry.kind for entry in logged(world)] == ["request", "report"]


def test_the_salt_is_the_models_and_stays_out_of_the_database(world: World) -> None:
    told: Callable[..., dict[str, object]] = world.register
    registration = told()
    salt = world.desk.home.salt(world.forge.manifest.digest).read_text()
    assert "tag_salt" not in registration
    assert salt not in str(registration)
    world.finish()
    assert world.forge.statement(Path(world.sealed()["directory"]))["predicate"]["registration"]["tag_salt"] == salt
