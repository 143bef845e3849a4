"""`assay-server access-log export|check`: hand out who did what or was denied it, and say whether the chain holds."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TextIO

from service.main import config
from service.rules.access_log import LINE_MAX, AccessLogMalformed, AccessRow, ChainChecker, read_line

_HEAD = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `access-log` to the command line."""
    log = commands.add_parser("access-log", help="export the log of access, or check its chain")
    actions = log.add_subparsers(required=True, metavar="ACTION")
    export = actions.add_parser("export", help="write every row as a line of JSON")
    export.add_argument("--config", type=Path, required=True)
    export.add_argument("--out", type=Path, help="file to write (default: standard output)")
    export.set_defaults(run=_export)
    check = actions.add_parser("check", help="follow the chain from its first row; exit 1 if it is broken")
    which = check.add_mutually_exclusive_group(required=True)
    which.add_argument("file", type=Path, nargs="?", help="an export")
    which.add_argument("--config", type=Path, help="check the database itself")
    check.add_argument(
        "--head", metavar="SEQ:SHA256", help="the last row as an earlier check printed it: it must be there still"
    )
    check.set_defaults(run=_check)


@contextmanager
def _rows(path: Path) -> Iterator[Iterator[AccessRow]]:
    from service.store.access_log import rows
    from service.store.engine import open_store
    from service.store.migrations import check_revision

    url = config.load(path).database_url
    check_revision(url)
    store = open_store(url)
    try:
        yield rows(store)
    finally:
        store.close()


def _export(options: argparse.Namespace) -> int:
    with _rows(options.config) as found, _written(options.out) if options.out else nullcontext(sys.stdout) as out:
        for row in found:
            out.write(row.line() + "\n")
    return 0


@contextmanager
def _written(path: Path) -> Iterator[TextIO]:
    """Write a file that its owner alone may read, also where another one of that name was open to others."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise config.ConfigError(f"--out {path}: {error.strerror}") from error
    with open(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)
        yield file


def _check(options: argparse.Namespace) -> int:
    head = _head(options.head)
    if options.config is not None:
        with _rows(options.config) as found:
            return check(found, head)
    try:
        return check(_lines(options.file), head)
    except OSError as error:
        raise config.ConfigError(f"{error.filename}: {error.strerror}") from error


def _lines(path: Path) -> Iterator[AccessRow]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LINE_MAX + 2):
            number += 1
            try:
                yield read_line(line)
            except AccessLogMalformed as error:
                text = f"{path}: line {number}: {error}; export it again with `assay-server access-log export`"
                raise config.ConfigError(text) from None


def _head(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    found = _HEAD.fullmatch(text)
    if found is None:
        raise config.ConfigError(f"--head {text}: not SEQ:SHA256, as `access-log check` prints it")
    return int(found[1]), found[2]


def check(found: Iterable[AccessRow], head: tuple[int, str] | None) -> int:
    """Print each break as a line of JSON, and one line with the chain's head to standard error; return the exit status.

    Args:
        found: the rows, first to last; read once.
        head: a row that must be among them.
    """
    checker = ChainChecker(head)
    broken = count = 0
    for row in found:
        count += 1
        for one in checker.feed(row):
            broken += 1
            print(one.line())
    for one in checker.close():
        broken += 1
        print(one.line())
    told = {"rows": count, "breaks": broken, "head": f"{checker.seq}:{checker.sha256}"}
    print(json.dumps(told), file=sys.stderr)
    return int(bool(broken))
