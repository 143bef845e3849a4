"""`assay-server backup`: everything that a server must not lose but its keys, copied while it serves.

The database is copied first and the transparency log last: so a restored log is never older than what the restored
database handed out, and a signer that starts on both finds every proof in its own past.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.main import config
from service.main.buckets import open_blobs
from service.main.config import Server
from service.main.copying import BackupFailed, blob_path, copy_blobs, copy_file, copy_log, files_of, sha256_of
from service.main.restoring import SCHEMA, keys_of, restore


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `backup` and `restore` to the command line."""
    back = commands.add_parser("backup", help="copy database, blobs and log while the server runs")
    back.add_argument("--config", type=Path, required=True)
    back.add_argument("--out", type=Path, required=True, help="folder to make; it must not exist")
    back.add_argument("--link", action="store_true", help="hard links to blobs instead of copies: same disk, no space")
    back.add_argument(
        "--with-keys", action="store_true", help="copy private keys too: whoever reads the copy can then sign"
    )
    back.set_defaults(
        run=lambda options: _say(
            lambda: back_up(config.load(options.config), options.out, options.link, with_keys=options.with_keys)
        )
    )
    again = commands.add_parser("restore", help="fill an empty server from a backup")
    again.add_argument("--config", type=Path, required=True, help="of the new server")
    again.add_argument("--from", type=Path, required=True, dest="source", help="what backup made")
    again.add_argument("--log", type=Path, help="a newer copy of the log than the backup's, e.g. the published one")
    newest = again.add_mutually_exclusive_group(required=True)
    newest.add_argument("--checkpoint", type=Path, help="the newest checkpoint that readers were given")
    newest.add_argument("--no-checkpoint", action="store_true", help="nobody was given a newer one than the backup's")
    again.set_defaults(
        run=lambda options: _say(
            lambda: restore(
                config.load(options.config),
                options.source,
                options.checkpoint.read_bytes() if options.checkpoint else None,
                log=options.log,
            )
        )
    )


def _say(work: Callable[[], Mapping[str, int]]) -> int:
    from assay.errors import AssayError

    from service.blobs import BlobError
    from service.signer.keys import KeyUnusable
    from service.signer.refusal import CannotServe
    from service.store.engine import StoreError

    try:
        print(json.dumps(work()))
    except (BackupFailed, StoreError, BlobError, CannotServe, KeyUnusable, AssayError, OSError) as error:
        print(f"assay-server: {error}", file=sys.stderr)
        return 1
    return 0


def back_up(server: Server, out: Path, link: bool = False, *, with_keys: bool = False) -> dict[str, int]:
    """Copy a server to a new folder.

    Args:
        server: what is copied; of its keys nothing is needed.
        out: the folder.
        link: make hard links to blobs.
        with_keys: copy those private keys that are on this machine too.

    Returns:
        How much was copied.

    Raises:
        BackupFailed: there is no log; or a blob is corrupt or missing, and then all others were copied, and
            backup.json names those that were not.
        StoreError: the database cannot be copied.
    """
    from service.store import backup as database
    from service.store.migrations import check_revision, head

    check_revision(server.database_url)
    if not (server.signer_home / "log" / "checkpoint").is_file():
        raise BackupFailed(f"{server.signer_home} holds no log: run backup where the signer's folder is, as its user")
    out.mkdir(mode=0o700, parents=True, exist_ok=False)
    owed = database.back_up(server.database_url, out / "database")
    copied, wrong = copy_blobs(open_blobs(server), out / "blobs", link)
    # Held against the copy of the database: the living one forgets what is collected while blobs are copied.
    wrong |= {digest for digest in owed if not blob_path(out / "blobs", digest).exists()}
    keys = _copy_keys(server, out / "keys") if with_keys else []
    secret = {path.resolve() for path in keys_of(server).values()}
    for path in files_of(server.signer_home, apart=("log", "aside")):
        if path.resolve() not in secret:
            copy_file(path, out / "signer" / path.relative_to(server.signer_home))
    copy_log(server.signer_home / "log", out / "log")
    told = {
        "schema": SCHEMA,
        "made_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "revision": head(),
        "database": server.database_url.partition(":")[0].partition("+")[0],
        "log_origin": server.log_origin,
        "keys": keys,
        "damaged": sorted(wrong),
        "files": {str(path.relative_to(out)): sha256_of(path) for path in files_of(out, apart=("blobs",))},
    }
    (out / "backup.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    if wrong:
        raise BackupFailed(
            f"{len(wrong)} blob(s) are corrupt or missing, the first is {sorted(wrong)[0]}; everything else was "
            "copied, and backup.json names them: restore them from an older backup, or have their owners send them "
            "again; one that was collected meanwhile is not missed by the next backup"
        )
    return {"blobs": copied, "files": len(told["files"])}


def _copy_keys(server: Server, out: Path) -> list[str]:
    """Copy the keys that this machine has; return their names."""
    found = []
    for name, path in keys_of(server).items():
        if path.exists():
            copy_file(path, out / name)
            found.append(name)
        else:
            print(f"assay-server: {path} is not on this machine: {name} is not in the backup", file=sys.stderr)
    return found
