"""`assay-server status`: what waits, since when, and whether this server can go on; read only."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.main import config
from service.main.buckets import problem_of
from service.main.config import Server
from service.rules.logs import escaped

if TYPE_CHECKING:
    from service.store.gauges import Gauges, Waiting

PROBLEM = 1
"""Exit status where the database cannot be read, is of another revision, or no cell can be isolated."""

CHECKPOINT_MAX = 4096
"""Bytes of a checkpoint that are read: a name, a size, a root and a few signatures."""


def add_command(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `status` to the command line."""
    status = commands.add_parser("status", help="say what waits, since when, and whether the server can go on")
    status.add_argument("--config", type=Path, required=True)
    status.add_argument("--json", action="store_true", help="one object instead of lines")
    status.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    told = status_of(config.load(options.config))
    print(
        json.dumps(told, indent=2)
        if options.json
        else "\n".join(escaped(line).replace("\n", " ") for line in lines(told))
    )
    return PROBLEM if told["problems"] else 0


def status_of(server: Server) -> dict[str, Any]:
    """Return the state of a server as plain JSON; what cannot be read is null, and said under "problems"."""
    from service.store.migrations import head

    problems: list[str] = []
    at, found = _look(server.database_url, problems)
    away = problem_of(server)
    if away is not None:
        problems.append(f"the bucket of the blobs: {away}")
    isolation = _isolation(server.isolation_file)
    if isolation["isolation"] in (None, "none"):
        problems.append(f"no cell can be isolated: {isolation['detail']}")
    return {
        "profile": server.profile,
        "revision": {"database": at, "release": head()},
        **(dict.fromkeys(_PARTS) if found is None else _told(found)),
        "isolation": isolation,
        "log_entries": log_entries(server.signer_home / "log" / "checkpoint"),
        "disk_free_bytes": _free(server.blobs),
        "problems": problems,
    }


_PARTS = ("queues", "audits", "waiting_because", "signing", "owed", "deliveries")
"""What is read from the database."""


def _look(url: str, problems: list[str]) -> tuple[str | None, Gauges | None]:
    """Return revision and numbers of a database; None for what it cannot tell, and why under `problems`."""
    from sqlalchemy.engine import make_url

    from service.store.engine import StoreError, open_store
    from service.store.gauges import read_gauges
    from service.store.migrations import head, revision

    try:
        store = open_store(url)
    except StoreError as error:
        problems.append(f"the database: {error}")
        return None, None
    try:
        file = make_url(url).database
        if store.dialect == "sqlite" and not Path(file or "").exists():  # looking at it would make it
            problems.append(f"the database: there is no {file}: `assay-server migrate` makes it")
            return None, None
        at = revision(store)
        if at != head():
            problems.append(f"the database is at revision {at}, this release needs {head()}: `assay-server migrate`")
            return at, None
        with store.read() as connection:
            return at, read_gauges(connection)
    except StoreError as error:
        problems.append(f"the database: {error}")
        return None, None
    finally:
        store.close()


def _told(found: Gauges) -> dict[str, Any]:
    return {
        "queues": _queues(found),
        "audits": dict(found.audits),
        "waiting_because": dict(found.reasons),
        "signing": _waiting(found.signing),
        "owed": {kind: _waiting(one) for kind, one in sorted(found.outbox.items())},
        "deliveries": _waiting(found.deliveries),
    }


def _waiting(one: Waiting) -> dict[str, float]:
    return {"count": one.count, "oldest_s": one.oldest_s}


def _queues(found: Gauges) -> dict[str, Any]:
    names = sorted({capability for capability, _ in found.jobs})
    return {
        name: {
            "queued": found.jobs.get((name, "QUEUED"), 0),
            "leased": found.jobs.get((name, "LEASED"), 0),
            "backing_off": found.jobs.get((name, "WAITING"), 0),
            "oldest_s": found.queued[name].oldest_s if name in found.queued else 0.0,
        }
        for name in names
    }


def _isolation(path: Path) -> dict[str, str | None]:
    try:
        said = json.loads(path.read_bytes())
        return {"isolation": str(said["isolation"]), "detail": str(said["detail"])}
    except FileNotFoundError:
        return {"isolation": None, "detail": "no worker has proved its sandbox yet; start a worker"}
    except (OSError, ValueError, KeyError, TypeError):
        return {"isolation": None, "detail": f"{path} cannot be read; run this as the service's user"}


def log_entries(checkpoint: Path) -> int | None:
    """Return the log's size as its newest checkpoint tells it, unverified; None where there is none to be read."""
    try:
        with checkpoint.open("rb") as file:
            size = file.read(CHECKPOINT_MAX).split(b"\n")[1]
    except (OSError, IndexError):
        return None
    return int(size) if size.isdigit() else None


def _free(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def lines(told: dict[str, Any]) -> list[str]:
    """Return the state in words, the problems first."""
    written = [f"PROBLEM   {text}" for text in told["problems"]]
    written.append(
        f"revision  {told['revision']['database'] or 'unknown'} (this release: {told['revision']['release']})"
    )
    for name, one in (told["queues"] or {}).items():
        counts = f"{one['queued']} queued, {one['leased']} leased, {one['backing_off']} backing off"
        written.append(f"queue     {name}: {counts}; the oldest waits {one['oldest_s']:.0f} s")
    for state, count in (told["audits"] or {}).items():
        written.append(f"audits    {state}: {count}")
    for reason, count in (told["waiting_because"] or {}).items():
        written.append(f"reason    {reason}: {count} (docs/operations.md)")
    if told["signing"]:
        written.append(f"signing   {told['signing']['count']}; the oldest waits {told['signing']['oldest_s']:.0f} s")
    for kind, one in (told["owed"] or {}).items():
        written.append(f"owed      {kind}: {one['count']}; the oldest {one['oldest_s']:.0f} s")
    if told["deliveries"] and told["deliveries"]["count"]:
        late = told["deliveries"]
        written.append(f"receivers {late['count']} calls owed; the oldest {late['oldest_s']:.0f} s")
    written.append(f"isolation {told['isolation']['isolation'] or 'unknown'}: {told['isolation']['detail']}")
    written.append(f"log       {'unreadable' if told['log_entries'] is None else told['log_entries']} entries")
    if told["disk_free_bytes"] is not None:
        written.append(f"disk      {told['disk_free_bytes'] / 2**30:.1f} GiB free")
    return written
