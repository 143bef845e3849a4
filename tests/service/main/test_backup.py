"""A server that is backed up while it lives is whole elsewhere, or nobody says that it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import delete, select

from service.blobs import LocalBlobs
from service.main import backup, copying, restoring
from service.main.config import Server
from service.main.copying import BackupFailed
from service.main.restoring import keys_of, restore
from service.signer.keys import KeyUnusable
from service.store import backup as database
from service.store.engine import StoreNotUsable, open_store
from service.store.tables import audit, blob
from tests.service.main.places import HELLO, living, place, with_keys
from tests.service.store import postgres


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return living(tmp_path / "old")


def test_what_was_backed_up_is_there_elsewhere(server: Server, tmp_path: Path) -> None:
    told = backup.back_up(server, tmp_path / "copy", with_keys=True)
    assert told["blobs"] == 2  # and the empty one
    new = place(tmp_path / "new")
    assert restore(new, tmp_path / "copy", None) == {"blobs": 2, "files": told["files"], "missing": 0}
    with LocalBlobs(new.blobs).open(HELLO) as file:
        assert file.read() == b"hello"
    with open_store(new.database_url).read() as connection:
        assert connection.execute(select(audit.c.state)).scalar_one() == "QUEUED"
    assert new.signing_key.read_bytes() == server.signing_key.read_bytes()
    assert (new.signer_home / "registered" / "a.json").read_text() == "{}"
    assert (new.signer_home / "log" / "checkpoint").read_bytes()


def test_a_backup_can_link_blobs(server: Server, tmp_path: Path) -> None:
    backup.back_up(server, tmp_path / "copy", link=True)
    linked = tmp_path / "copy" / "blobs" / HELLO[:2] / HELLO[2:4] / HELLO
    assert linked.samefile(LocalBlobs(server.blobs).path(HELLO))


def test_the_log_is_copied_after_the_database(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that is older than the database would deny what was handed out."""
    order: list[str] = []

    def noted(module: ModuleType, name: str, word: str) -> None:
        real = getattr(module, name)

        def call(*args: Any) -> Any:
            order.append(word)
            return real(*args)

        monkeypatch.setattr(module, name, call)

    noted(backup, "copy_blobs", "copy_blobs")
    noted(backup, "copy_log", "copy_log")
    noted(database, "back_up", "database")
    backup.back_up(server, tmp_path / "copy")
    assert order == ["database", "copy_blobs", "copy_log"]


def test_a_log_that_is_written_meanwhile_is_copied_until_it_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    log.mkdir()
    (log / "checkpoint").write_text("0")
    real, rounds = copying.copy_file, iter(range(3))

    def busy(path: Path, target: Path) -> None:
        real(path, target)
        if (n := next(rounds, None)) is not None:
            (log / "checkpoint").write_text("longer" * (n + 2))

    monkeypatch.setattr(copying, "copy_file", busy)
    copying.copy_log(log, out)
    assert (out / "checkpoint").read_text() == (log / "checkpoint").read_text()


def test_a_corrupt_blob_is_named_and_all_else_is_copied(server: Server, tmp_path: Path) -> None:
    path = LocalBlobs(server.blobs).path(HELLO)
    path.chmod(0o600)
    path.write_bytes(b"rotten")
    with pytest.raises(BackupFailed, match=HELLO):
        backup.back_up(server, tmp_path / "copy")
    assert json.loads((tmp_path / "copy" / "backup.json").read_text())["damaged"] == [HELLO]
    path.unlink()
    with pytest.raises(BackupFailed, match=HELLO):
        backup.back_up(server, tmp_path / "again")


def going(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """Have the blob collected after the database was copied and before the blobs are."""
    real = copying.copy_blobs

    def late(*args: Any) -> Any:
        store = open_store(server.database_url)
        with store.begin() as connection:
            connection.execute(delete(blob).where(blob.c.sha256 == HELLO))
        store.close()
        LocalBlobs(server.blobs).delete(HELLO)
        return real(*args)

    monkeypatch.setattr(backup, "copy_blobs", late)


def test_blob_that_is_collected_while_blobs_are_copied_is_missed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copied database still promises it, whatever the living one says by then."""
    going(monkeypatch, server)
    with pytest.raises(BackupFailed, match=HELLO):
        backup.back_up(server, tmp_path / "copy")
    assert json.loads((tmp_path / "copy" / "backup.json").read_text())["damaged"] == [HELLO]


def test_backup_holds_no_private_key_unless_it_is_asked_for(server: Server, tmp_path: Path) -> None:
    secrets = [path.read_bytes() for path in keys_of(server).values()]
    backup.back_up(server, tmp_path / "copy")
    held = [path.read_bytes() for path in (tmp_path / "copy").rglob("*") if path.is_file()]
    assert not [secret for secret in secrets if any(secret in data for data in held)]
    with pytest.raises(KeyUnusable, match=r"log\.key\.pem"):
        restore(place(tmp_path / "new"), tmp_path / "copy", None)
    assert not (tmp_path / "new" / "blobs").exists()


def test_backup_works_on_a_machine_without_keys(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = with_keys(place(tmp_path / "kept"), server)
    for path in keys_of(server).values():
        path.unlink()
    backup.back_up(server, tmp_path / "copy")
    restore(with_keys(place(tmp_path / "new"), kept), tmp_path / "copy", None)
    assert capsys.readouterr().err == ""
    backup.back_up(server, tmp_path / "again", with_keys=True)
    assert json.loads((tmp_path / "again" / "backup.json").read_text())["keys"] == []
    assert capsys.readouterr().err.count("not on this machine") == len(keys_of(server))


def test_backup_without_a_log_is_none(server: Server, tmp_path: Path) -> None:
    """On a machine that cannot see the signer's folder a copy would look whole."""
    shutil.rmtree(server.signer_home / "log")
    with pytest.raises(BackupFailed, match="holds no log"):
        backup.back_up(server, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.slow
def test_postgresql_is_dumped_and_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = postgres.server()
    if found is None:
        pytest.skip(postgres.WITHOUT)
    old = living(tmp_path / "old", found.create())
    going(monkeypatch, old)
    with pytest.raises(BackupFailed, match=HELLO):
        backup.back_up(old, tmp_path / "lossy")
    monkeypatch.undo()
    LocalBlobs(old.blobs).put(b"hello", HELLO)
    backup.back_up(old, tmp_path / "copy", with_keys=True)
    new = place(tmp_path / "new", found.create())
    restore(new, tmp_path / "copy", None)
    store = open_store(new.database_url)
    with store.read() as connection:
        assert connection.execute(select(audit.c.state)).scalar_one() == "QUEUED"
    store.close()
    with pytest.raises(StoreNotUsable, match="tables"):
        restore(with_keys(place(tmp_path / "third", new.database_url), old), tmp_path / "copy", None)


def test_without_its_programs_postgresql_is_refused_clearly(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.store.backup import back_up

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StoreNotUsable, match="pg_dump is not installed here: install"):
        back_up("postgresql+psycopg://a@/b", tmp_path / "x")


def test_backup_and_restore_reach_into_buckets(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup of what lies in the folder `blobs` would hold a cache."""
    from service.blobs.bucket import S3Settings
    from service.blobs.s3 import S3Blobs
    from tests.service.plants.s3 import WHO, served

    with served() as first, served() as second:
        stores = {
            place: S3Blobs(S3Settings(endpoint=held.address, bucket="bucket", credentials=WHO), tmp_path / name)
            for place, name, held in ((server.blobs, "a", first), (tmp_path / "new" / "blobs", "b", second))
        }
        for module in (backup, restoring):
            monkeypatch.setattr(module, "open_blobs", lambda asked: stores[asked.blobs])
        stores[server.blobs].put(b"hello", HELLO)
        backup.back_up(server, tmp_path / "copy")
        restore(with_keys(place(tmp_path / "new"), server), tmp_path / "copy", None)
        assert list(second.objects.values()) == [b"hello"]
        key = next(iter(first.objects))
        first.objects[key] = b"rotten"
        shutil.rmtree(tmp_path / "a" / "cache" / "sha256")
        with pytest.raises(BackupFailed, match=HELLO):
            backup.back_up(server, tmp_path / "again")
