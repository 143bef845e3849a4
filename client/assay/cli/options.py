"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli.screen import SCREEN, clean
from assay.client_errors import refuse

if TYPE_CHECKING:
    from assay.client import AuditClient

Config = Annotated[
    Path | None,
    typer.Option("--config", help="Client configuration; default: ASSAY_CONFIG, .assay/, ~/.config/assay/."),
]
TimeoutS = Annotated[float, typer.Option("--timeout-s", min=0.0, help="Deadline of each call, in seconds.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on one line.")]
AuditName = Annotated[str, typer.Argument(metavar="AUDIT", help="audits/{32 hex}, or the 32 digits alone.")]
ReportPath = Annotated[Path, typer.Argument(metavar="REPORT", help="A report directory, or its bundle.")]

TIMEOUT_S = 30.0
PATIENCE_S = 120.0
"""How long a submission or a watch goes on while a service restarts. Short commands fail at once."""


def connect(config: Path | None, timeout_s: float, *, patient: bool = False) -> AuditClient:
    """Return a client of the service that the configuration names."""
    from assay.client import AuditClient

    return AuditClient.from_config(config, timeout_s=timeout_s, patience_s=PATIENCE_S if patient else 0.0)


def greet(client: AuditClient) -> None:
    """Make first contact, without patience: a service that is not there is told at once.

    Raises:
        Unreachable, TimedOut, ServerRefused.
    """
    able = client.capabilities()
    if able.isolation == "none":
        SCREEN.note(f"Warning: no audit will start on this service now: {clean(able.isolation_detail, 400)}")


def pair(option: str, text: str) -> tuple[str, str]:
    """Split KEY=VALUE.

    Raises:
        LocalInputRefused: there is no `=`, or nothing before or after it.
    """
    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise refuse(f"{option} {text}", "has not the form KEY=VALUE")
    return key, value


def value(text: str) -> Any:
    """Read a parameter's value: JSON where it is JSON (numbers, true, lists, "quoted"), else the text itself."""
    from assay import strict_json
    from assay.errors import Malformed

    try:
        return strict_json.loads(text.encode(), 64 * 1024, fractions=True)
    except (Malformed, UnicodeEncodeError):
        return text
