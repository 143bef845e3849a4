"""`assay-server backup` and `restore`: everything that a server must not lose, copied while it serves.

The database is copied first and the transparency log last: so a restored log is never older than what the restored
database handed out, and a signer that starts on both finds every proof in its own past.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.main import config
from service.main.config import Server
from service.main.copying import BackupFailed, copy_blobs, copy_file, copy_log, files_of, sha256_of

if TYPE_CHECKING:
    pass

SCHEMA = "assay-backup/v1"


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `backup` and `restore` to the command line."""
    back = commands.add_parser("backup", help="copy database, blobs, keys and log while the server runs")
    back.add_argument("--config", type=Path, required=True)
    back.add_argument("--out", type=Path, required=True, help="folder to make; it must not exist")
    back.add_argument("--link", action="store_true", help="hard links to blobs instead of copies: same disk, no space")
    back.set_defaults(run=lambda options: _say(lambda: back_up(config.load(options.config), options.out, options.link)))
    again = commands.add_parser("restore", help="fill an empty server from a backup")
    again.add_argument("--config", type=Path, required=True, help="of the new server")
    again.add_argument("--from", type=Path, required=True, dest="source", help="what backup made")
    again.set_defaults(run=lambda options: _say(lambda: restore(config.load(options.config), options.source)))


def _say(work: Any) -> int:
    from service.signer.refusal import CannotServe
    from service.store.engine import StoreError

    try:
        print(json.dumps(work()))
    except (BackupFailed, StoreError, CannotServe, OSError) as error:
        print(f"assay-server: {error}", file=sys.stderr)
        return 1
    return 0


def back_up(server: Server, out: Path, link: bool = False) -> dict[str, int]:
    """Copy a server to a new folder, which holds its private keys: keep it as you keep them.

    Returns:
        How much was copied.

    Raises:
        BackupFailed: a blob is corrupt or missing; all others were copied, and the folder is marked as damaged.
        StoreError: the database cannot be copied.
    """
    from service.blobs import LocalBlobs
    from service.store import backup as database
    from service.store.migrations import check_revision, head

    check_revision(server.database_url)
    out.mkdir(mode=0o700, parents=True, exist_ok=False)
    database.back_up(server.database_url, out / "database")
    copied, wrong = copy_blobs(LocalBlobs(server.blobs), out / "blobs", link)
    wrong |= _not_copied(server, out / "blobs")
    for name, path in _keys(server).items():
        copy_file(path, out / "keys" / name)
    for path in files_of(server.signer_home, apart=("log", "aside")):
        copy_file(path, out / "signer" / path.relative_to(server.signer_home))
    copy_log(server.signer_home / "log", out / "log")
    told = {
        "schema": SCHEMA,
        "made_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "revision": head(),
        "database": server.database_url.partition(":")[0].partition("+")[0],
        "log_origin": server.log_origin,
        "damaged": sorted(wrong),
        "files": {str(path.relative_to(out)): sha256_of(path) for path in files_of(out, apart=("blobs",))},
    }
    (out / "backup.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    if wrong:
        raise BackupFailed(
            f"{len(wrong)} blob(s) are corrupt or missing, the first is {sorted(wrong)[0]}; everything else was "
            "copied, and backup.json names them: restore them from an older backup, or have their owners send them "
            "again"
        )
    return {"blobs": copied, "files": len(told["files"])}


def restore(server: Server, source: Path) -> dict[str, int]:
    """Fill an empty server from a backup, and check it as its signer will at its start.

    Raises:
        BackupFailed: the backup is changed or of another kind, or something is in the place already; nothing was
            overwritten.
        StoreError: the database cannot be made.
        CannotServe: the signer would not serve on what was restored.
    """
    from service.blobs import LocalBlobs
    from service.store import backup as database

    told = _read(source)
    _require_fitting(server, told)
    _require_empty(server)
    database.require_empty(server.database_url)
    blobs = LocalBlobs(server.blobs)
    count = 0
    for path in files_of(source / "blobs"):
        blobs.put(path, path.name)  # hashed again on the way
        count += 1
    for path in files_of(source / "signer"):
        copy_file(path, server.signer_home / path.relative_to(source / "signer"))
    for path in files_of(source / "log"):
        copy_file(path, server.signer_home / "log" / path.relative_to(source / "log"))
    for name, target in _keys(server).items():
        if (source / "keys" / name).exists() and not target.exists():
            copy_file(source / "keys" / name, target)
    database.restore(server.database_url, source / "database")
    _require_served(server)
    for digest in told["damaged"]:
        print(f"assay-server: blob {digest} was corrupt or missing when the backup was made", file=sys.stderr)
    return {"blobs": count, "files": len(told["files"])}


def _keys(server: Server) -> Mapping[str, Path]:
    return {
        "report.key.pem": server.signing_key,
        "log.key.pem": server.log_key,
        "page.key": server.page_key,
        "tls.ca.pem": server.tls.ca,
        "tls.certificate.pem": server.tls.certificate,
        "tls.key.pem": server.tls.key,
    }


def _not_copied(server: Server, out: Path) -> set[str]:
    """Return blobs that the database still knows and that were not copied."""
    from sqlalchemy import select

    from service.store.engine import open_store
    from service.store.tables import blob
    from service.store.uploads import EMPTY

    store = open_store(server.database_url)
    try:
        with store.read() as connection:
            known = set(connection.execute(select(blob.c.sha256).where(blob.c.doomed_at.is_(None))).scalars())
    finally:
        store.close()
    # What was stored after the copy of the database is not owed to it; it is whole all the same, or not there.
    return {
        digest
        for digest in known - {EMPTY.sha256}
        if not (out / digest[:2] / digest[2:4] / digest).exists() and _is_in(server, digest, out)
    }


def _is_in(server: Server, digest: str, out: Path) -> bool:
    """Say whether the copied database knows a blob; of a dump nobody can tell, and it counts as known."""
    import sqlite3
    from contextlib import closing

    if not server.database_url.startswith("sqlite"):
        return True
    with closing(sqlite3.connect(f"file:{out.parent / 'database'}?mode=ro", uri=True)) as copy:
        return copy.execute("SELECT 1 FROM blob WHERE sha256 = ?", (digest,)).fetchone() is not None


def _read(source: Path) -> dict[str, Any]:
    """Return what a backup says of itself, once every file of it was found to be as it was made."""
    try:
        told = json.loads((source / "backup.json").read_text(encoding="utf-8"))
        files, kind = dict(told["files"]), told["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackupFailed(
            f"{source} holds no backup.json that can be read: name the folder that backup made"
        ) from error
    if kind != SCHEMA:
        raise BackupFailed(f"{source} is of the schema {kind}, this release reads {SCHEMA}")
    found = {str(path.relative_to(source)): path for path in files_of(source, apart=("blobs",))}
    found.pop("backup.json")
    changed = sorted(
        name for name in found.keys() | files.keys() if name not in found or sha256_of(found[name]) != files.get(name)
    )
    if changed:
        raise BackupFailed(f"{changed[0]} of the backup is not as it was made: use another backup")
    return dict(told)


def _require_fitting(server: Server, told: Mapping[str, Any]) -> None:
    from service.store.migrations import head

    kind = server.database_url.partition(":")[0].partition("+")[0]
    for name, mine in (("revision", head()), ("database", kind), ("log_origin", server.log_origin)):
        if told.get(name) != mine:
            raise BackupFailed(f"the backup's {name} is {told.get(name)}, this server's is {mine}: they must be equal")


def _require_empty(server: Server) -> None:
    from service.blobs import LocalBlobs
    from service.blobs.contract import EMPTY_SHA256

    if any(digest != EMPTY_SHA256 for digest in LocalBlobs(server.blobs).digests()):
        raise BackupFailed(f"{server.blobs} holds blobs: restore to an empty place")
    held = next(files_of(server.signer_home), None)
    if held is not None:
        raise BackupFailed(f"{held} exists: restore to an empty signer's folder")


def _require_served(server: Server) -> None:
    """Do what the signer does at its start: every proof that was handed out must be in the log's past."""
    from service.signer.evidence import Evidence
    from service.signer.handed_out import handed_out
    from service.signer.journal import Journal
    from service.signer.keys import load_log_key
    from service.signer.rows import Rows

    log = Journal(
        server.signer_home / "log", server.log_origin, load_log_key(server.log_key), lambda: datetime.now(UTC)
    )
    try:
        log.require(handed_out(Rows(server.database_url), Evidence(server.blobs)))
    finally:
        log.close()
