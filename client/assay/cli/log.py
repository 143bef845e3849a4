"""`assay log watch`: remember a log's newest checkpoint, and see that it never takes anything back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli import trust
from assay.cli.options import Config, Json
from assay.cli.screen import SCREEN, clean

if TYPE_CHECKING:
    from assay.tlog.leaves import LogKey
    from assay.tlog.watch import Remembered

log = typer.Typer(help="Look after a transparency log.", no_args_is_help=True, rich_markup_mode=None)

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@log.command("watch")
def watch(
    prefix: Annotated[
        str, typer.Option("--prefix", metavar="DIR_or_URL", help="The log, checkpoint and tile/, or a copy of it.")
    ],
    state: Annotated[Path, typer.Option("--state", metavar="F", help="What is remembered; made by the first watch.")],
    trust_root: trust.TrustRoot = None,
    log_vkey: trust.LogVkeys = None,
    now: trust.Now = None,
    config: Config = None,
    as_json: Json = False,
) -> int:
    """See that a log extends what was seen of it before, and count requests without an end. Exit 1 if it forked."""
    from assay.tlog import tiles
    from assay.tlog import watch as rules
    from assay.tlog.site import site

    keys = _log_keys(trust_root, log_vkey, config, now)
    before = _remembered(state)
    fetch = site(prefix) if _URL.match(prefix) else tiles.folder(Path(prefix))
    try:
        seen = rules.watch(fetch, keys, before)
    except rules.Forked as forked:
        kept = _keep(state, forked.evidence)
        SCREEN.note(f"both signed checkpoints are kept: {clean(', '.join(map(str, kept)), 400)}")
        raise
    _write(state, rules.dump_state(seen))
    told = _told(seen, before)
    if as_json:
        SCREEN.json(told)
    else:
        SCREEN.out(f"Log {clean(told['origin'])}: {told['size']} entries, the newest of {told['at'] or 'never'}")
        SCREEN.out(f"Extends the {told['size_before']} entries remembered." if before else "Seen for the first time.")
        SCREEN.out(f"Requests: {told['requests']}, ended by {told['reports']} reports and {told['voids']} voids")
        SCREEN.out(f"Without an end: {told['open']} open")
        SCREEN.out(f"Withdrawn afterwards: {told['withdrawals']}")
    return 0


def _told(seen: Remembered, before: Remembered | None) -> dict[str, Any]:
    return {
        "schema": "assay-log-watch/v1",
        "origin": seen.head.origin,
        "size": seen.head.size,
        "size_before": before.head.size if before else None,
        "root_sha256": seen.head.root.hex(),
        "at": seen.at,
        **vars(seen.counts),
        "open": len(seen.open),
    }


def _log_keys(
    trust_root: Path | None, log_vkey: list[str] | None, config: Path | None, now: str | None
) -> tuple[LogKey, ...]:
    """Return the log keys that are trusted.

    Raises:
        Misused: none is named.
        Wrong, CouldNotTell: the trust root's.
    """
    import os
    from datetime import UTC, datetime

    from assay.errors import Misused
    from assay.remote.memory import state_folder
    from assay.tlog.leaves import LogKey
    from assay.trust import chain
    from assay.trust.memory import Memory
    from assay.verify import given

    if log_vkey:
        if trust_root is not None:
            raise Misused("--trust-root names logs; give it without --log-vkey")
        return tuple(LogKey(vkey=given.log_vkey(text)) for text in log_vkey)
    chosen = trust.chosen(trust_root, None, None, config)
    if chosen.trust_root is None:
        raise Misused("no log key is trusted: give --trust-root F or --log-vkey V")
    return chain.trusted(
        given.later_roots(chosen.trust_root),
        given.pinned_root(chosen.trust_root),
        Memory(state_folder(os.environ)),
        trust.moment(now) or datetime.now(UTC),
    ).logs


def _remembered(state: Path) -> Remembered | None:
    from assay.errors import CouldNotTell
    from assay.tlog import watch as rules

    try:
        with state.open("rb") as file:
            return rules.load_state(file.read(rules.STATE_MAX + 1))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CouldNotTell(f"cannot read {clean(str(state), 200)}: {error.strerror}") from None


def _keep(state: Path, evidence: tuple[bytes, bytes]) -> list[Path]:
    """Write the two notes that contradict each other beside the state."""
    kept = [state.with_name(f"{state.name}.fork-{number}") for number in (1, 2)]
    for path, note in zip(kept, evidence, strict=True):
        _write(path, note)
    return kept


def _write(path: Path, data: bytes) -> None:
    import os

    from assay.errors import CouldNotTell

    aside = path.with_name(f"{path.name}.new")
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise CouldNotTell(f"cannot write {clean(str(path), 200)}: {error.strerror}") from None
