"""Servers to back up and restore: what both commands read of a configuration, planted in a folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from assay.tlog.entries import Entry
from assay.tlog.log import Log

from service.blobs import LocalBlobs
from service.main.config import Server
from service.main.restoring import keys_of
from service.rules.names import BlobName
from service.signer.keys import ensure_key, ensure_log_key, load_log_key
from service.store.engine import open_store
from service.store.migrations import migrate
from service.store.tables import audit
from service.store.uploads import record_blob
from tests.service.store.fresh import migrated
from tests.service.store.planting import registered

HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


def place(root: Path, url: str = "", origin: str = "log.example/a") -> Server:
    """Return what backup and restore read of a configuration."""
    root.mkdir(exist_ok=True)
    told = {
        "database_url": url or f"sqlite:///{root}/assay.db",
        "blobs": root / "blobs",
        "s3": None,
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
        path.write_text(f"what {path.name} holds")
    (server.signer_home / "registered").mkdir()
    (server.signer_home / "registered" / "a.json").write_text("{}")
    if url:
        migrate(url)
    else:
        migrated(root / "assay.db")
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


def open_log(server: Server, *entries: int) -> bytes:
    """Append entries to a server's log; return the checkpoint that readers then have."""
    with Log(server.signer_home / "log", server.log_origin, load_log_key(server.log_key)) as log:
        for n in entries:
            log.append(Entry(kind="trust-root", at=f"2026-11-22T00:00:{n:02}Z", commit=f"{n:064x}"))
        return log.checkpoint


def with_keys(server: Server, of: Server) -> Server:
    """Put another server's keys in place, as an operator does who keeps them apart."""
    for name, path in keys_of(server).items():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy(keys_of(of)[name], path)
    return server
