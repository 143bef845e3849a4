"""`assay-server restore`: an empty server filled from a backup, unless that would fork the log that readers remember.

Whether the database is as old as the log says nothing: both come from one backup. So whoever restores shows the newest
checkpoint that readers were given, and the log must be its extension.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.main.buckets import open_blobs
from service.main.copying import BackupFailed, blob_path, copy_file, files_of, sha256_of

if TYPE_CHECKING:
    from service.main.config import Server

SCHEMA = "assay-backup/v1"


def keys_of(server: Server) -> Mapping[str, Path]:
    """Return the files that a server needs and a backup does not hold, by their names in one that does."""
    return {
        "report.key.pem": server.signing_key,
        "log.key.pem": server.log_key,
        "page.key": server.page_key,
        "tls.ca.pem": server.tls.ca,
        "tls.certificate.pem": server.tls.certificate,
        "tls.key.pem": server.tls.key,
    }


def restore(server: Server, source: Path, checkpoint: bytes | None, *, log: Path | None = None) -> dict[str, int]:
    """Fill an empty server from a backup, and check it as its signer will at its start.

    Args:
        server: the new one. Its keys may be in place already; none is overwritten.
        source: the backup.
        checkpoint: the newest one that readers were given; None says that nobody has a newer one than the backup's.
        log: a newer copy of the log than the backup's.

    Returns:
        How much was restored, and how many blobs are missing: their owners are asked for them again.

    Raises:
        BackupFailed: the backup is changed or of another kind, its log is older than the checkpoint or no log of the
            key, or something is in the place already; nothing was overwritten.
        KeyUnusable: the log's key is neither in place nor in the backup.
        StoreError: the database cannot be made.
        BlobError: the blobs cannot be written; call again with more room.
        CannotServe: the signer would not serve on what was restored.
    """
    from service.store import backup as database

    told = _read(source)
    _require_fitting(server, told)
    _require_newest(server, source, log or source / "log", checkpoint)
    _require_empty(server, source)
    database.require_empty(server.database_url)
    count = _put_blobs(server, source)
    _put_files(server, source, log or source / "log")
    database.restore(server.database_url, source / "database")
    missing = _missing(server)
    database.call_missing(server.database_url, missing)
    for digest in missing:
        print(f"assay-server: blob {digest} is missing: its owner is asked for it again", file=sys.stderr)
    for name, path in keys_of(server).items():
        if not path.exists():
            print(f"assay-server: {path} is missing ({name}): put it there before the start", file=sys.stderr)
    _require_served(server)
    return {"blobs": count, "files": len(told["files"]), "missing": len(missing)}


def _put_blobs(server: Server, source: Path) -> int:
    """Copy blobs, hashed on the way; what has rotted in the backup is left out and named."""
    from service.blobs import BlobMismatch

    blobs, count = open_blobs(server), 0
    for path in files_of(source / "blobs"):
        try:
            blobs.put(path, path.name)
            count += 1
        except BlobMismatch:
            print(f"assay-server: {path} is corrupt and was left out: look in an older backup", file=sys.stderr)
    return count


def _put_files(server: Server, source: Path, log: Path) -> None:
    home = server.signer_home
    for path in files_of(log):
        copy_file(path, home / "log" / path.relative_to(log))
    for path in files_of(source / "signer"):
        if not (home / path.relative_to(source / "signer")).exists():
            copy_file(path, home / path.relative_to(source / "signer"))
    for name, target in keys_of(server).items():
        if (source / "keys" / name).exists() and not target.exists():
            copy_file(source / "keys" / name, target)


def _missing(server: Server) -> list[str]:
    """Return the blobs that the restored database promises and that are not there."""
    from service.store import backup as database

    return sorted(database.present(server.database_url).difference(open_blobs(server).digests()))


def _read(source: Path) -> dict[str, Any]:
    """Return what a backup says of itself, once every file of it but its blobs was found to be as it was made."""
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
    for path in files_of(source / "blobs"):
        if path != blob_path(source / "blobs", path.name):
            raise BackupFailed(f"{path} is no blob of a backup: look at it and remove it")
    return dict(told)


def _require_fitting(server: Server, told: Mapping[str, Any]) -> None:
    from service.store.migrations import head

    kind = server.database_url.partition(":")[0].partition("+")[0]
    for name, mine in (("revision", head()), ("database", kind), ("log_origin", server.log_origin)):
        if told.get(name) != mine:
            raise BackupFailed(f"the backup's {name} is {told.get(name)}, this server's is {mine}: they must be equal")


def _require_newest(server: Server, source: Path, log: Path, checkpoint: bytes | None) -> None:
    """Do nothing if a log holds all that was ever signed of it, as far as is known; nothing is written."""
    from assay.errors import AssayError
    from assay.tlog import notes, tiles

    from service.signer.keys import load_log_key

    kept = source / "keys" / "log.key.pem"
    own = kept if kept.exists() and not server.log_key.exists() else server.log_key
    key = notes.vkey_of(load_log_key(own), server.log_origin)
    fetch = tiles.folder(log)
    held = [("the backup", (source / "log" / tiles.CHECKPOINT).read_bytes())]
    if checkpoint is not None:
        held.append(("readers", checkpoint))
    try:
        newest = notes.open_checkpoint(tiles.checkpoint(fetch), [key])
        tree = tiles.TileTree(fetch, newest.size)
        for who, note in held:
            had = notes.open_checkpoint(note, [key])
            if had.size > newest.size:
                raise BackupFailed(
                    f"the log in {log} has {newest.size} entries, and {who} had a checkpoint of {had.size}: to go on "
                    "would fork it; name a newer copy of the log with --log, e.g. the published one, or a newer backup"
                )
            if tree.root(had.size) != had.root:
                raise BackupFailed(
                    f"the log in {log} is not the one of which {who} had a checkpoint of size {had.size}: one of them "
                    "was forked; serve on neither before you know why"
                )
    except AssayError as error:
        raise BackupFailed(f"the log in {log} cannot be held against the checkpoint: {error}") from error


def _require_empty(server: Server, source: Path) -> None:
    """Blobs of an earlier try, and keys, may be in place."""
    from service.blobs import EMPTY_SHA256

    for digest in open_blobs(server).digests():
        if digest != EMPTY_SHA256 and not blob_path(source / "blobs", digest).exists():
            raise BackupFailed(f"{server.blobs} holds other blobs: restore to an empty place")
    keys = {path.resolve() for path in keys_of(server).values()}
    for held in files_of(server.signer_home):
        if held.resolve() not in keys:
            raise BackupFailed(f"{held} exists: restore to a signer's folder that holds nothing but keys")


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
        log.require(handed_out(Rows(server.database_url), Evidence(open_blobs(server).open)))
    finally:
        log.close()
