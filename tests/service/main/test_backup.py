"""A server that is backed up while it lives is whole elsewhere, or nobody says that it is."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import select

from service.blobs import LocalBlobs
from service.main import backup, copying
from service.main.config import Server
from service.main.copying import BackupFailed
from service.rules.names import BlobName
from service.signer.keys import ensure_key, ensure_log_key
from service.store import backup as database
from service.store.engine import StoreNotUsable, open_store
from service.store.migrations import migrate
from service.store.tables import audit
from service.store.uploads import record_blob
from tests.service.store import postgres
from tests.service.store.planting import registered

HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


def place(root: Path, url: str = "", origin: str = "log.example/a") -> Server:
    """Return what backup and restore read of a configuration."""
    root.mkdir(exist_ok=True)
    told = {
        "database_url": url or f"sqlite:///{root}/assay.db",
        "blobs": root / "blobs",
        "signer_home": root / "signer",
        "signing_key": root / "signer" / "report.key.pem",
        "log_key": root / "signer" / "log.key.pem",
        "log_origin": origin,
        "page_key": root / "page.key",
        "tls": SimpleNamespace(ca=root / "ca.pem", certificate=root / "s.pem", key=root / "s.key"),
    }
    return cast("Server", SimpleNamespace(**told))


def living(root: Path, url: str = "") -> Server:
    """A server with keys, a blob and a queued audit."""
    server = place(root, url)
    server.signer_home.mkdir(mode=0o700)
    ensure_key(server.signing_key)
    ensure_log_key(server.log_key)
    for path in (server.page_key, server.tls.ca, server.tls.certificate, server.tls.key):
        path.write_bytes(b"secret")
    (server.signer_home / "registered").mkdir()
    (server.signer_home / "registered" / "a.json").write_text("{}")
    migrate(server.database_url)
    LocalBlobs(server.blobs).put(b"hello", HELLO)
    store = open_store(server.database_url)
    with store.begin() as connection:
        record_blob(connection, BlobName(HELLO, 5))
    registered(store)
    with store.begin() as connection:
        connection.execute(audit.update().values(registration_json=None))  # no log entry stands behind the planted one
    store.close()
    open_log(server)
    return server


def open_log(server: Server) -> None:
    from datetime import UTC, datetime

    from service.signer.journal import Journal
    from service.signer.keys import load_log_key

    Journal(
        server.signer_home / "log", server.log_origin, load_log_key(server.log_key), lambda: datetime.now(UTC)
    ).close()


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return living(tmp_path / "old")


def test_what_was_backed_up_is_there_elsewhere(server: Server, tmp_path: Path) -> None:
    told = backup.back_up(server, tmp_path / "copy")
    assert told["blobs"] == 2  # and the empty one
    new = place(tmp_path / "new")
    assert backup.restore(new, tmp_path / "copy")["blobs"] == 2
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


def test_nothing_is_overwritten(server: Server, tmp_path: Path) -> None:
    backup.back_up(server, tmp_path / "copy")
    with pytest.raises(FileExistsError):
        backup.back_up(server, tmp_path / "copy")
    with pytest.raises(BackupFailed, match="empty"):
        backup.restore(server, tmp_path / "copy")
    new = place(tmp_path / "new")
    Path(new.database_url.removeprefix("sqlite:///")).write_bytes(b"")
    with pytest.raises(StoreNotUsable, match="exists"):
        backup.restore(new, tmp_path / "copy")
    assert not any(new.blobs.rglob(HELLO))


@pytest.mark.parametrize("what", ["changed", "absent", "added", "none", "schema", "origin", "revision"])
def test_a_backup_that_is_not_as_it_was_made_is_refused(server: Server, tmp_path: Path, what: str) -> None:
    copy = tmp_path / "copy"
    backup.back_up(server, copy)
    new, told = place(tmp_path / "new"), json.loads((copy / "backup.json").read_text())
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
        backup.restore(new, copy)
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
        backup.restore(place(tmp_path / "new"), tmp_path / "copy")


@pytest.mark.slow
def test_postgresql_is_dumped_and_restored(tmp_path: Path) -> None:
    found = postgres.server()
    if found is None:
        pytest.skip(postgres.WITHOUT)
    old = living(tmp_path / "old", found.create())
    backup.back_up(old, tmp_path / "copy")
    new = place(tmp_path / "new", found.create())
    backup.restore(new, tmp_path / "copy")
    store = open_store(new.database_url)
    with store.read() as connection:
        assert connection.execute(select(audit.c.state)).scalar_one() == "QUEUED"
    store.close()
    with pytest.raises(StoreNotUsable, match="tables"):
        backup.restore(place(tmp_path / "third", new.database_url), tmp_path / "copy")


def test_without_its_programs_postgresql_is_refused_clearly(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.store.backup import back_up

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StoreNotUsable, match="pg_dump is not installed here: install"):
        back_up("postgresql+psycopg://a@/b", tmp_path / "x")
