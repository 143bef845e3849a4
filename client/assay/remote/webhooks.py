"""Webhooks of a service: who is told of audits, and how telling went. How to believe a call: `assay.webhooks`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from assay.api.v1 import webhooks_pb2
from assay.remote.calls import Calls
from assay.remote.wire import moment

PAGE = 100

TYPES = ("completed", "failed", "cancelled", "approval_needed")
"""Ends of an audit that a service tells, in short."""


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """One receiver."""

    name: str
    """webhooks/{id}"""
    url: str
    signing: str
    """HMAC or ED25519."""
    types: tuple[str, ...]
    """CloudEvents types that are told; none means all."""
    secret: str = field(repr=False)
    """`whsec_…` or `whpk_…`; empty but in the answers of create and rotate: the service tells it once."""
    created_at: datetime | None
    disabled_at: datetime | None
    """When the receiver answered 410; None while it is called."""
    old_secret_until: datetime | None
    """Until then the secret before the last rotation signs too."""


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One event on its way to one receiver."""

    name: str
    """webhooks/{id}/deliveries/{32 hex}"""
    event_id: str
    type: str
    audit: str
    state: str
    """PENDING, DELIVERED or DEAD."""
    tries: int
    last_status: int
    """HTTP status of the last try; 0 where no answer came."""
    last_error: str
    created_at: datetime | None
    ended_at: datetime | None


class Webhooks:
    """The webhooks of the caller's tenant.

    Args:
        calls: the service.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def create(self, identifier: str, url: str, *, types: Sequence[str] = (), ed25519: bool = False) -> Webhook:
        """Make a webhook; keep its `secret`, which is not told again.

        Args:
            identifier: 4 to 63 of a-z, 0-9 and -.
            url: https, on a public address.
            types: what to tell, in short (`TYPES`) or as CloudEvents types; none means all.
            ed25519: sign so that the receiver holds a public key and no secret.

        Raises:
            ServerRefused: FORBIDDEN_ADDRESS, BAD_WEBHOOK, WEBHOOK_EXISTS, TOO_MANY_WEBHOOKS.
        """
        kinds = webhooks_pb2.Webhook
        wanted = webhooks_pb2.Webhook(
            url=url,
            types=[f"assay.audit.{one}.v1" if one in TYPES else one for one in types],
            signing=kinds.SIGNING_ED25519 if ed25519 else kinds.SIGNING_HMAC,
        )
        request = webhooks_pb2.CreateWebhookRequest(webhook_id=identifier, webhook=wanted)
        return _webhook(self._calls.unary(self._calls.webhooks.CreateWebhook, request))

    def get(self, name: str) -> Webhook:
        """Return one webhook."""
        request = webhooks_pb2.GetWebhookRequest(name=webhook_name(name))
        return _webhook(self._calls.unary(self._calls.webhooks.GetWebhook, request, patient=True))

    def all(self) -> Iterator[Webhook]:
        """Yield every webhook, newest first, asking for pages as they are needed."""
        token = ""
        while True:
            request = webhooks_pb2.ListWebhooksRequest(page_size=PAGE, page_token=token)
            page = self._calls.unary(self._calls.webhooks.ListWebhooks, request, patient=True)
            yield from (_webhook(one) for one in page.webhooks)
            token = page.next_page_token
            if not token:
                return

    def delete(self, name: str) -> None:
        """Delete a webhook; what is owed to it is dropped."""
        request = webhooks_pb2.DeleteWebhookRequest(name=webhook_name(name))
        self._calls.unary(self._calls.webhooks.DeleteWebhook, request)

    def rotate(self, name: str) -> Webhook:
        """Make a new secret, told in the answer; the one before signs too for 24 hours."""
        request = webhooks_pb2.RotateSecretRequest(name=webhook_name(name))
        return _webhook(self._calls.unary(self._calls.webhooks.RotateSecret, request))

    def deliveries(self, name: str) -> Iterator[Delivery]:
        """Yield a webhook's deliveries, newest first, asking for pages as they are needed."""
        token = ""
        while True:
            request = webhooks_pb2.ListDeliveriesRequest(parent=webhook_name(name), page_size=PAGE, page_token=token)
            page = self._calls.unary(self._calls.webhooks.ListDeliveries, request, patient=True)
            yield from (_delivery(one) for one in page.deliveries)
            token = page.next_page_token
            if not token:
                return

    def redeliver(self, name: str) -> Delivery:
        """Send a delivery again, with the same id and body; switches its webhook on.

        Args:
            name: `webhooks/{id}/deliveries/{32 hex}`.
        """
        request = webhooks_pb2.RedeliverRequest(name=name)
        return _delivery(self._calls.unary(self._calls.webhooks.Redeliver, request))


def webhook_name(text: str) -> str:
    """Return `webhooks/{id}` of a name or of an id alone."""
    return text if "/" in text else f"webhooks/{text}"


def _webhook(message: webhooks_pb2.Webhook) -> Webhook:
    return Webhook(
        name=message.name,
        url=message.url,
        signing=_word(message, "signing", "SIGNING_"),
        types=tuple(message.types),
        secret=message.secret,
        created_at=moment(message, "created_at"),
        disabled_at=moment(message, "disabled_at"),
        old_secret_until=moment(message, "old_secret_until"),
    )


def _delivery(message: webhooks_pb2.Delivery) -> Delivery:
    return Delivery(
        name=message.name,
        event_id=message.event_id,
        type=message.type,
        audit=message.audit,
        state=_word(message, "state", "STATE_"),
        tries=message.tries,
        last_status=message.last_status,
        last_error=message.last_error,
        created_at=moment(message, "created_at"),
        ended_at=moment(message, "ended_at"),
    )


def _word(message: Any, name: str, prefix: str) -> str:
    """Return an enumeration's word; a number that is newer than this client reads UNKNOWN."""
    number = getattr(message, name)
    value = message.DESCRIPTOR.fields_by_name[name].enum_type.values_by_number.get(number)
    return value.name.removeprefix(prefix) if value is not None and number else "UNKNOWN"
