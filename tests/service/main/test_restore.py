"""An empty server is filled from a backup whole, or it is said what is missing; and no log is forked by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from service.blobs import LocalBlobs
from service.main import backup, cli
from service.main.config import Server
from service.main.copying import BackupFailed, blob_path
from service.main.restoring import restore
from service.store.engine import StoreNotUsable, open_store
from service.store.tables import audit, blob
from tests.service.main.places import HELLO, living, open_log, place, with_keys


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return living(tmp_path / "old")


def test_nothing_is_overwritten(server: Server, tmp_path: Path) -> None:
    backup.back_up(server, tmp_path / "copy")
    with pytest.raises(FileExistsError):
        backup.back_up(server, tmp_path / "copy")
    with pytest.raises(BackupFailed, match="nothing but keys"):
        restore(server, tmp_path / "copy", None)
    new = with_keys(place(tmp_path / "new"), server)
    Path(new.database_url.removeprefix("sqlite:///")).write_bytes(b"")
    with pytest.raises(StoreNotUsable, match="exists"):
        restore(new, tmp_path / "copy", None)
    assert not any(new.blobs.rglob(HELLO))


@pytest.mark.parametrize("what", ["changed", "absent", "added", "none", "schema", "origin", "revision"])
def test_a_backup_that_is_not_as_it_was_made_is_refused(server: Server, tmp_path: Path, what: str) -> None:
    copy = tmp_path / "copy"
    backup.back_up(server, copy)
    new, told = with_keys(place(tmp_path / "new"), server), json.loads((copy / "backup.json").read_text())
    if what == "changed":
        (copy / "signer" / "registered" / "a.json").write_text("{} ")
    elif what == "absent":
        (copy / "signer" / "registered" / "a.json").unlink()
    elif what == "added":
        (copy / "signer" / "voided.json").write_text("{}")
    elif what == "none":
        (copy / "backup.json").unlink()
    else:
        name = {"schema": "schema", "origin": "log_origin", "revision": "revision"}[what]
        (copy / "backup.json").write_text(json.dumps({**told, name: "other"}))
    with pytest.raises(BackupFailed):
        restore(new, copy, None)
    assert not Path(new.database_url.removeprefix("sqlite:///")).exists()


def test_a_log_that_is_older_than_its_database_is_not_served(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.signer.refusal import CannotServe

    backup.back_up(server, tmp_path / "copy")

    def forked(*_: Any) -> None:
        raise CannotServe("the log is not the one")

    monkeypatch.setattr("service.signer.journal.Journal.require", forked)
    with pytest.raises(CannotServe):
        restore(with_keys(place(tmp_path / "new"), server), tmp_path / "copy", None)


@pytest.mark.parametrize("how", ["rotten", "gone"])
def test_one_rotten_file_in_a_backup_costs_that_file_alone(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    backup.back_up(server, tmp_path / "copy")
    file = blob_path(tmp_path / "copy" / "blobs", HELLO)
    file.write_bytes(b"rotten") if how == "rotten" else file.unlink()
    new = with_keys(place(tmp_path / "new"), server)
    assert restore(new, tmp_path / "copy", None)["missing"] == 1
    assert HELLO in capsys.readouterr().err
    with open_store(new.database_url).read() as connection:
        assert connection.execute(select(blob.c.quarantined_at).where(blob.c.sha256 == HELLO)).scalar_one()
        assert connection.execute(select(audit.c.state)).scalar_one() == "QUEUED"


def test_restore_that_broke_off_among_the_blobs_can_be_tried_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup.back_up(server, tmp_path / "copy")
    new = with_keys(place(tmp_path / "new"), server)
    LocalBlobs(new.blobs).put(b"hello", HELLO)
    assert restore(new, tmp_path / "copy", None)["blobs"] == 2
    other = with_keys(place(tmp_path / "other"), server)
    LocalBlobs(other.blobs).put(b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    LocalBlobs(other.blobs).put(b"x", "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881")
    with pytest.raises(BackupFailed, match="other blobs"):
        restore(other, tmp_path / "copy", None)


def test_older_backup_never_forks_the_log_that_readers_remember(server: Server, tmp_path: Path) -> None:
    """Database and log are equally old, so nothing but what readers hold can tell."""
    first = open_log(server, 1)
    backup.back_up(server, tmp_path / "copy")
    newest = open_log(server, 2, 3)
    new = with_keys(place(tmp_path / "new"), server)
    with pytest.raises(BackupFailed, match=r"has 1 entries, and readers had a checkpoint of 3: .* --log"):
        restore(new, tmp_path / "copy", newest)
    assert not any(new.blobs.rglob(HELLO))
    fork = with_keys(place(tmp_path / "fork"), server)
    with pytest.raises(BackupFailed, match="one of them was forked"):
        restore(new, tmp_path / "copy", open_log(fork, 9))
    with pytest.raises(BackupFailed, match="the backup had a checkpoint of 1"):
        restore(new, tmp_path / "copy", None, log=with_log(tmp_path / "older", server))
    restore(new, tmp_path / "copy", newest, log=server.signer_home / "log")
    assert open_log(new) == newest
    restore(with_keys(place(tmp_path / "third"), server), tmp_path / "copy", first)


def with_log(root: Path, of: Server) -> Path:
    """Return a log of no entries under a server's key."""
    older = with_keys(place(root), of)
    open_log(older)
    return older.signer_home / "log"


@pytest.mark.parametrize("given", [[], ["--checkpoint", "x", "--no-checkpoint"]])
def test_restore_asks_what_readers_were_given(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["restore", "--config", "c", "--from", "d", *given])
    assert "checkpoint" in capsys.readouterr().err
