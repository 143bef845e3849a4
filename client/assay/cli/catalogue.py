"""`assay checks`, `assay capabilities` and `assay version`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli.options import TIMEOUT_S, Config, Json, TimeoutS, connect
from assay.cli.screen import SCREEN, clean

if TYPE_CHECKING:
    from assay.remote.values import Check, Rate


def checks(
    config: Config = None,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
    offline: Annotated[bool, typer.Option("--offline", help="Read the catalogue shipped with this client.")] = False,
) -> int:
    """List what can be asked: from the configured service, or from the shipped catalogue if there is none."""
    from assay.remote.values import plain

    found, source = _checks(config, timeout_s, offline)
    SCREEN.note(f"Catalogue: {source}")
    if as_json:
        SCREEN.json([plain(check) for check in found])
        return 0
    for check in found:
        _show(check)
    return 0


def capabilities(config: Config = None, timeout_s: TimeoutS = TIMEOUT_S, as_json: Json = False) -> int:
    """Print what the service can do, and every limit of it: sizes in bytes, times in seconds."""
    from assay.remote.values import plain

    with connect(config, timeout_s) as client:
        told = plain(client.capabilities())
    if as_json:
        SCREEN.json(told)
        return 0
    width = max(map(len, told))
    for name, value in told.items():
        shown = f"{value:.10g}" if isinstance(value, float) else clean(value, 400) or "-"
        SCREEN.out(f"{name:<{width}}  {shown}")
    return 0


def version(as_json: Json = False) -> int:
    """Print the version of this client."""
    from assay import __version__

    if as_json:
        SCREEN.json({"name": "assay-client", "version": __version__})
    else:
        SCREEN.out(f"assay-client {__version__}")
    return 0


def _checks(config: Path | None, timeout_s: float, offline: bool) -> tuple[tuple[Check, ...], str]:
    from assay import catalogue
    from assay.config import discover
    from assay.remote.values import from_catalogue

    if not offline and discover(config, os.environ) is not None:
        with connect(config, timeout_s) as client:
            return client.checks(), f"the service at {clean(client.address)}"
    shipped = catalogue.load()
    why = "as asked (--offline)" if offline else "no client configuration was found"
    return tuple(from_catalogue(entry) for entry in shipped.checks), f"shipped with this client; {why}"


def _show(check: Check) -> None:
    SCREEN.out(f"{clean(check.name)} {clean(check.version)}")
    SCREEN.out(f"  {clean(check.summary)}")
    SCREEN.out(f"  source: {clean(check.source)}")
    SCREEN.out(f"  reads: {clean(', '.join(check.access))}")
    SCREEN.out(f"  power: {_rate(check.power)}; false positives: {_rate(check.false_positive_rate)}")
    properties = check.params.get("properties")
    for key, schema in properties.items() if isinstance(properties, dict) else ():
        about = schema if isinstance(schema, dict) else {}
        default = f" (default {clean(about['default'], 80)})" if "default" in about else ""
        SCREEN.out(f"  --param {clean(check.name)}.{clean(key)}=…{default}  {clean(about.get('description', ''), 200)}")
    SCREEN.out()


def _rate(rate: Rate | None) -> str:
    if rate is None:
        return "not measured"
    return f"{rate.estimate:g} [{rate.low:g}, {rate.high:g}] at n {rate.n}, {clean(rate.at, 200)}"
