"""`assay-server journal export|check`: hand out what happened to every audit, and say whether it holds together."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

from service.blobs import BlobDamaged, BlobError, BlobMissing, BlobStore
from service.main import config
from service.main.buckets import open_blobs
from service.rules.consistency import Checker
from service.rules.journal import LINE_MAX, JournalMalformed, read_line
from service.rules.states import STRIKES_MAX

PIECE = 1 << 20
"""Bytes hashed at a time."""


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `journal` to the command line."""
    journal = commands.add_parser("journal", help="export the journal of all audits, or check an export")
    actions = journal.add_subparsers(required=True, metavar="ACTION")
    export = actions.add_parser("export", help="write every entry as a line of JSON")
    export.add_argument("--config", type=Path, required=True)
    export.add_argument("--out", type=Path, help="file to write (default: standard output)")
    export.set_defaults(run=_export)
    check = actions.add_parser("check", help="hold an export against the rules J1-J15; exit 1 if one is broken")
    check.add_argument("file", type=Path)
    where = check.add_mutually_exclusive_group()
    where.add_argument("--blobs", type=Path, help="blob folder: hash again what entries refer to (J11)")
    where.add_argument("--config", type=Path, help="instead of --blobs: where this server's blobs are, a bucket too")
    check.add_argument("--live", action="store_true", help="the service still runs: what is owed is no violation")
    check.add_argument("--lifted", action="store_true", help="the export is of a rehearsal without caps (no J8)")
    check.add_argument(
        "--strikes", type=int, default=STRIKES_MAX, metavar="N", help="the server's strikes_max (J8; default 3)"
    )
    check.set_defaults(run=_check)


def _export(options: argparse.Namespace) -> int:
    from service.store.engine import open_store
    from service.store.journal import entries
    from service.store.migrations import check_revision

    url = config.load(options.config).database_url
    check_revision(url)
    store = open_store(url)
    try:
        with options.out.open("w") if options.out else nullcontext(sys.stdout) as out:
            for entry in entries(store):
                out.write(entry.line() + "\n")
    finally:
        store.close()
    return 0


def _check(options: argparse.Namespace) -> int:
    try:
        stored = None if options.blobs is None else stored_in(options.blobs)
        if options.config is not None:
            stored = stored_by(open_blobs(config.load(options.config)))
        with options.file.open("rb") as lines:
            return check(lines, stored=stored, live=options.live, lifted=options.lifted, strikes_max=options.strikes)
    except OSError as error:
        raise config.ConfigError(f"{error.filename}: {error.strerror}") from error
    except BlobError as error:
        raise config.ConfigError(f"the blobs cannot be read: {error}; check again when they can") from error
    except JournalMalformed as error:
        raise config.ConfigError(
            f"{options.file}: {error}; export it again with `assay-server journal export`"
        ) from None


def check(
    lines: BinaryIO,
    *,
    stored: Callable[[str], bool] | None,
    live: bool = False,
    lifted: bool = False,
    strikes_max: int = STRIKES_MAX,
) -> int:
    """Print each violation as a line of JSON, and one line of counts to standard error; return the exit status.

    Args:
        lines: an export; read once, an entry at a time.
        stored: see `Checker`.
        live: see `Checker.close`.
        lifted: see `Checker`.
        strikes_max: see `Checker`.

    Raises:
        JournalMalformed: a line is no entry; the message has its number.
    """
    checker = Checker(lifted=lifted, strikes_max=strikes_max, stored=stored)
    broken = 0
    number = 0
    while line := lines.readline(LINE_MAX + 2):
        number += 1
        try:
            entry = read_line(line)
        except JournalMalformed as error:
            raise JournalMalformed(f"line {number}: {error}") from None
        for violation in checker.feed(entry):
            broken += 1
            print(violation.line())
    for violation in checker.close(live=live):
        broken += 1
        print(violation.line())
    told = {
        "entries": number,
        "violations": broken,
        "audits_without_an_end": len(checker.unended()),
        "blobs_checked": stored is not None,
        "kinds": dict(sorted(checker.counts.items())),
    }
    print(json.dumps(told), file=sys.stderr)
    return int(bool(broken))


def stored_in(folder: Path) -> Callable[[str], bool]:
    """Return what says whether a blob folder holds bytes of a digest; nothing is written there, unlike by a store.

    Raises:
        ConfigError: it is no blob folder.
    """
    root = folder / "sha256"
    if not root.is_dir():
        raise config.ConfigError(
            f"--blobs {folder}: no blob folder, it has no sha256/; name what `blobs` is in server.toml"
        )

    def stored(digest: str) -> bool:
        found = hashlib.sha256()
        try:
            with (root / digest[:2] / digest[2:4] / digest).open("rb") as file:
                while piece := file.read(PIECE):
                    found.update(piece)
        except FileNotFoundError:
            return False
        return found.hexdigest() == digest

    return stored


def stored_by(blobs: BlobStore) -> Callable[[str], bool]:
    """Return what says whether a store holds bytes of a digest.

    Raises:
        BlobError: by what is returned, where the store cannot tell.
    """

    def stored(digest: str) -> bool:
        found = hashlib.sha256()
        try:
            with blobs.open(digest) as file:
                while piece := file.read(PIECE):
                    found.update(piece)
        except (BlobMissing, BlobDamaged):
            return False
        return found.hexdigest() == digest

    return stored
