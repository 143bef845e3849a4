"""The table of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from assay.cli import (
    approvals,
    audits,
    catalogue,
    compare,
    gate,
    log,
    render,
    replicate,
    reports,
    schedules,
    submit,
    webhooks,
)

app = typer.Typer(
    name="assay",
    help="Submit audits of model weights to an Assay service; read, verify, gate on and compare its signed reports.",
    epilog="Exit codes: 0 yes · 1 no (wrong, failed) · 2 could not tell · 3 usage or bad input · 4 unreachable, retry.",
    no_args_is_help=True,
    add_completion=False,
    # Plain help and plain errors: rich would interpret text of others as markup.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an unexpected error came from.")] = False,
) -> None:
    """Submit audits of model weights to an Assay service; read and verify its signed reports."""


app.command("submit")(submit.submit)
app.command("watch")(audits.watch)
app.command("audits")(audits.audits)
app.command("show")(audits.show)
app.command("cancel")(audits.cancel)
app.command("report")(reports.report)
app.command("findings")(reports.findings)
app.command("verify")(reports.verify)
app.command("gate")(gate.gate)
app.command("compare")(compare.compare)
app.command("replicate")(replicate.replicate)
app.command("render")(render.render)
app.command("checks")(catalogue.checks)
app.command("capabilities")(catalogue.capabilities)
app.add_typer(approvals.approvals, name="approvals")
app.add_typer(log.log, name="log")
app.add_typer(schedules.schedules, name="schedules")
app.add_typer(webhooks.webhooks, name="webhooks")
app.command("version")(catalogue.version)
