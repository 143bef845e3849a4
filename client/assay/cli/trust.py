"""Whom a command trusts: a trust root, single keys, or what the client configuration names.

Whoever wrote that file is trusted, so the output names it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from assay.cli.screen import clean

TrustRoot = Annotated[
    Path | None, typer.Option("--trust-root", help="The operator's trust root, root.1.dsse.json, as you pinned it.")
]
Keys = Annotated[list[Path] | None, typer.Option("--key", help="A public key that you trust, PEM; repeatable.")]
LogVkeys = Annotated[
    list[str] | None, typer.Option("--log-vkey", help="With --key: a log key that you trust, name+id+key; repeatable.")
]
Log = Annotated[Path | None, typer.Option("--log", help="A copy of the log: forks and withdrawals are looked for.")]
Receipt = Annotated[
    Path | None, typer.Option("--receipt", help="Folder of the receipt that `assay submit` stored; must be the same.")
]
OwnCatalogue = Annotated[
    Path | None,
    typer.Option("--catalogue", help="A catalogue of your own: what checks that this client does not ship promise."),
]
First = Annotated[
    Path | None,
    typer.Option("--first", help="The report that this one repeats: its replication is judged again, not believed."),
]
Model = Annotated[Path | None, typer.Option("--model", help="Your own copy of the model, hashed too.")]
Now = Annotated[str | None, typer.Option("--now", help="Judge as of a moment, e.g. 2026-01-02T03:04:05Z.")]


@dataclass(frozen=True, kw_only=True)
class Trust:
    """What a command trusts, in the words of `assay.verify.verify`."""

    keys: tuple[Path, ...]
    log_vkeys: tuple[str, ...]
    trust_root: Path | None
    source: str
    """Where that comes from, printable."""

    def arguments(self) -> dict[str, Any]:
        """Return what `assay.verify.open_case` is told, with where this client remembers roots and checkpoints."""
        from assay.remote.memory import state_folder

        told = {"keys": self.keys, "log_vkeys": self.log_vkeys, "trust_root": self.trust_root}
        return {**told, "state_dir": state_folder(os.environ)}

    @property
    def named(self) -> str:
        """Return the files, for a person."""
        files = [str(one) for one in ((self.trust_root,) if self.trust_root else self.keys)]
        return clean(", ".join(files) or "none", 400)


def unattended(environ: Mapping[str, str]) -> bool:
    """Tell whether a pipeline runs the command: then the working directory is what is under test."""
    return any(environ.get(name) for name in ("CI", "GITHUB_ACTIONS"))


def chosen(
    trust_root: Path | None,
    key: list[Path] | None,
    log_vkey: list[str] | None,
    config: Path | None,
    *,
    walk: bool = True,
) -> Trust:
    """Return what the options name, else what the configured service has.

    Args:
        trust_root: as given.
        key: as given.
        log_vkey: as given.
        config: as given.
        walk: whether a configuration in the working directory may name whom to trust.

    Raises:
        Misused: a trust root together with single keys, or a log key without a report key.
        NoConfig: the configuration that counts cannot be read.
    """
    from assay.config import discover, read
    from assay.errors import Misused

    if trust_root is not None and (key or log_vkey):
        raise Misused("--trust-root names keys and logs; give it without --key and --log-vkey")
    if log_vkey and not key:
        raise Misused("--log-vkey goes with --key; a trust root has its own log keys")
    if trust_root is not None:
        return Trust(keys=(), log_vkeys=(), trust_root=trust_root, source="--trust-root")
    if key:
        return Trust(keys=tuple(key), log_vkeys=tuple(log_vkey or ()), trust_root=None, source="--key")
    place = discover(config, os.environ, walk=walk)
    if place is None:
        none = "no client configuration found" if walk else "a pipeline trusts none that lies in the folder under test"
        said = f"no --trust-root or --key given and {none}; give --trust-root F"
        return Trust(keys=(), log_vkeys=(), trust_root=None, source=said)
    found, where = read(place), clean(str(place), 200)
    if found.trust_root is not None:
        said = f"trust_root of the client configuration {where}"
        return Trust(keys=(), log_vkeys=(), trust_root=found.trust_root, source=said)
    if found.report_key is not None:
        said = f"report_key of the client configuration {where}"
        return Trust(keys=(found.report_key,), log_vkeys=(), trust_root=None, source=said)
    said = f"no --trust-root or --key given and {where} names no trust_root and no report_key; give --trust-root F"
    return Trust(keys=(), log_vkeys=(), trust_root=None, source=said)


def root_files(trust_root: Path | None) -> list[Path]:
    """Return the later versions of a trust root, which are read from beside it."""
    if trust_root is None:
        return []
    return sorted(trust_root.absolute().parent.glob("root.*.dsse.json"))


def catalogue(place: Path | None) -> dict[str, Any]:
    """Return what `assay.verify.open_case` is told of a catalogue of the reader's own; nothing where there is none.

    Raises:
        Misused: it cannot be read, or is none.
    """
    if place is None:
        return {}
    from assay.verify import given

    return {"catalogue": given.catalogue(place)}


def moment(text: str | None) -> datetime | None:
    """Read `--now`; None is this machine's clock.

    Raises:
        Misused: not of the form 2026-01-02T03:04:05Z.
    """
    from assay import moments
    from assay.errors import Malformed, Misused, shown

    try:
        return None if text is None else moments.parse(text)
    except Malformed as error:
        raise Misused(f"--now {shown(text)}: {error.message}") from None


def beside(
    *,
    model: Path | None,
    receipt: Path | None,
    log: Path | None,
    first: Path | None,
    own_catalogue: Path | None,
    now: str | None,
) -> dict[str, Any]:
    """Return what `assay.verify.open_case` is told of everything that a reader holds a report against.

    Raises:
        Misused: the catalogue or the moment cannot be read.
    """
    given = {"model_dir": model, "receipt": receipt, "log_dir": log, "first": first, "now": moment(now)}
    return {**given, **catalogue(own_catalogue)}
