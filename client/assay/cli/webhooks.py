"""`assay webhooks …`: who is told of audits, and how telling went."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli.options import TIMEOUT_S, Config, Json, TimeoutS, connect
from assay.cli.screen import SCREEN, clean

if TYPE_CHECKING:
    from datetime import datetime

    from assay.remote.webhooks import Delivery, Webhook

webhooks = typer.Typer(
    help="Have the service call you, signed, when audits end.", no_args_is_help=True, rich_markup_mode=None
)

WebhookName = Annotated[str, typer.Argument(metavar="WEBHOOK", help="webhooks/{id}, or the id alone.")]


@webhooks.command("create")
def create(
    identifier: Annotated[str, typer.Argument(metavar="ID", help="4 to 63 of a-z, 0-9 and -.")],
    url: Annotated[str, typer.Argument(metavar="URL", help="https, on a public address and port 443.")],
    types: Annotated[
        list[str] | None,
        typer.Option("--type", help="completed, failed, cancelled or approval_needed; repeatable. Default: all."),
    ] = None,
    ed25519: Annotated[
        bool, typer.Option("--ed25519", help="Sign with Ed25519: you keep a public key, and no secret.")
    ] = False,
    config: Config = None,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> int:
    """Make a webhook. Its secret is told now and never again."""
    with connect(config, timeout_s) as client:
        made = client.webhooks.create(identifier, url, types=types or (), ed25519=ed25519)
    return _tell(made, as_json)


@webhooks.command("list")
def list_webhooks(
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    config: Config = None,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> int:
    """List webhooks, newest first."""
    with connect(config, timeout_s) as client:
        found = list(islice(client.webhooks.all(), limit))
    if as_json:
        SCREEN.json([_plain(one) for one in found])
        return 0
    for one in found:
        off = f"  off since {_moment(one.disabled_at)}" if one.disabled_at else ""
        SCREEN.out(f"{clean(one.name)}  {clean(one.url)}{off}")
    if not found:
        SCREEN.note("No webhooks.")
    return 0


@webhooks.command("show")
def show(webhook: WebhookName, config: Config = None, timeout_s: TimeoutS = TIMEOUT_S, as_json: Json = False) -> int:
    """Show one webhook, without its secret."""
    with connect(config, timeout_s) as client:
        found = client.webhooks.get(webhook)
    return _tell(found, as_json)


@webhooks.command("delete")
def delete(webhook: WebhookName, config: Config = None, timeout_s: TimeoutS = TIMEOUT_S, as_json: Json = False) -> int:
    """Delete a webhook; what is still to be delivered to it is dropped."""
    from assay.remote.webhooks import webhook_name

    with connect(config, timeout_s) as client:
        client.webhooks.delete(webhook)
    if as_json:
        SCREEN.json({"name": webhook_name(webhook), "deleted": True})
    else:
        SCREEN.out(f"Deleted {clean(webhook_name(webhook))}")
    return 0


@webhooks.command("rotate")
def rotate(webhook: WebhookName, config: Config = None, timeout_s: TimeoutS = TIMEOUT_S, as_json: Json = False) -> int:
    """Make a new secret, told now and never again; the old one signs too for 24 hours."""
    with connect(config, timeout_s) as client:
        made = client.webhooks.rotate(webhook)
    return _tell(made, as_json)


@webhooks.command("deliveries")
def deliveries(
    webhook: WebhookName,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    config: Config = None,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> int:
    """List what was told to a webhook, and what is still to be, newest first."""
    with connect(config, timeout_s) as client:
        found = list(islice(client.webhooks.deliveries(webhook), limit))
    if as_json:
        SCREEN.json([_plain(one) for one in found])
        return 0
    for one in found:
        _tell_delivery(one)
    if not found:
        SCREEN.note("No deliveries.")
    return 0


@webhooks.command("redeliver")
def redeliver(
    delivery: Annotated[str, typer.Argument(metavar="DELIVERY", help="webhooks/{id}/deliveries/{32 hex}.")],
    config: Config = None,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> int:
    """Send a delivery again, with the same id and body; a webhook that its receiver switched off is switched on."""
    with connect(config, timeout_s) as client:
        found = client.webhooks.redeliver(delivery)
    if as_json:
        SCREEN.json(_plain(found))
    else:
        _tell_delivery(found)
    return 0


def _plain(value: Webhook | Delivery) -> dict[str, Any]:
    from assay.remote.values import plain

    told: dict[str, Any] = plain(value)
    if "secret" in told and not told["secret"]:
        del told["secret"]  # not told here, which is not the same as empty
    return told


def _tell(webhook: Webhook, as_json: bool) -> int:
    if as_json:
        SCREEN.json(_plain(webhook))
        return 0
    SCREEN.out(clean(webhook.name))
    SCREEN.out(f"  url        {clean(webhook.url, 2048)}")
    SCREEN.out(f"  types      {clean(', '.join(webhook.types) or 'all')}")
    SCREEN.out(f"  signing    {clean(webhook.signing)}")
    if webhook.secret:
        SCREEN.out(f"  {'public key' if webhook.signing == 'ED25519' else 'secret    '} {clean(webhook.secret)}")
        SCREEN.note("Keep it now: the service does not tell it again. `assay webhooks rotate` makes another one.")
    SCREEN.out(f"  created    {_moment(webhook.created_at)}")
    if webhook.old_secret_until:
        SCREEN.out(f"  old secret signs too until {_moment(webhook.old_secret_until)}")
    if webhook.disabled_at:
        SCREEN.out(f"  off since  {_moment(webhook.disabled_at)}: the receiver answered 410")
    return 0


def _tell_delivery(one: Delivery) -> None:
    status = f" {one.last_status}" if one.last_status else ""
    why = f" {clean(one.last_error)}" if one.last_error else ""
    tries = "1 try" if one.tries == 1 else f"{one.tries} tries"
    SCREEN.out(f"{clean(one.name)}  {one.state:<9}  {tries}{status}{why}  {clean(one.type)}  {clean(one.audit)}")


def _moment(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC") if moment else "-"
