"""`assay-server gc`: collect now what the scheduler would collect within a day."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from service.main import config
from service.main.buckets import open_blobs
from service.main.roles import ages


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `gc` to the command line."""
    collect = commands.add_parser("gc", help="collect blobs that nothing refers to, in two steps an hour apart")
    collect.add_argument("--config", type=Path, required=True)
    collect.add_argument("--dry-run", action="store_true", help="change nothing, tell what would go")
    collect.set_defaults(run=_collect)


def _collect(options: argparse.Namespace) -> int:
    """Sweep once and print the counts as a line of JSON; exit 1 if nothing could be collected."""
    from service.store import gc
    from service.store.engine import open_store
    from service.store.migrations import check_revision
    from service.store.references import ReferencesUnreadable

    server = config.load(options.config)
    check_revision(server.database_url)
    store = open_store(server.database_url)
    try:
        swept = gc.sweep(store, open_blobs(server), ages=ages(server), dry_run=options.dry_run)
    except ReferencesUnreadable as error:
        print(f"assay-server: nothing was collected: {error}; restore it from a backup", file=sys.stderr)
        return 1
    finally:
        store.close()
    print(json.dumps(swept.told()))
    return 0
