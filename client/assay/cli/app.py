"""The table of commands. Only what a command line asks for is loaded: the others would take longer than most runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Annotated

import typer

COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "submit": "submit.submit",
        "watch": "audits.watch",
        "audits": "audits.audits",
        "show": "audits.show",
        "cancel": "audits.cancel",
        "report": "reports.report",
        "findings": "reports.findings",
        "verify": "reports.verify",
        "gate": "gate.gate",
        "compare": "compare.compare",
        "replicate": "replicate.replicate",
        "render": "render.render",
        "checks": "catalogue.checks",
        "capabilities": "catalogue.capabilities",
        "approvals": "approvals.approvals",
        "log": "log.log",
        "schedules": "schedules.schedules",
        "webhooks": "webhooks.webhooks",
        "version": "catalogue.version",
    }
)
"""Each command, and its module below `assay.cli` with the function or the group of commands in it."""


def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an unexpected error came from.")] = False,
) -> None:
    """Submit audits of model weights to an Assay service; read and verify its signed reports."""


def build(arguments: Sequence[str]) -> typer.Typer:
    """Return the application for a command line: with the command that it names, or with all where it names none.

    Args:
        arguments: the command line without the program's name.
    """
    app = typer.Typer(
        name="assay",
        help="Submit audits of model weights to an Assay service; read, verify, gate on and compare its signed "
        "reports.",
        epilog="Exit codes: 0 yes · 1 no (wrong, failed) · 2 could not tell · 3 usage or bad input · "
        "4 unreachable, retry.",
        no_args_is_help=True,
        add_completion=False,
        # Plain help and plain errors: rich would interpret text of others as markup.
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(options)
    word = next((one for one in arguments if not one.startswith("-")), "")
    for name in (word,) if word in COMMANDS else COMMANDS:
        module, _, member = COMMANDS[name].partition(".")
        found = getattr(import_module(f"assay.cli.{module}"), member)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    return app
