"""The Webhooks service: who is told of audits, and how telling went."""

# ruff: noqa: N802 (method names are those of the protos)
from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from assay.api.v1 import webhooks_pb2, webhooks_pb2_grpc

from service.api.backing import Backing
from service.api.guard import current_call
from service.api.render import timestamp
from service.rules import names, pages
from service.rules.addresses import Forbidden, Resolver, require_all, target
from service.rules.callbacks import check_webhook
from service.rules.errors import Violation, not_permitted, refuse_fields
from service.rules.pages import Position
from service.rules.standard_webhooks import Key, Signing, new_key
from service.store import deliveries, webhooks
from service.store.deliveries import DeliveryView, Lane
from service.store.webhooks import WebhookView

T = TypeVar("T")

RESOLVE_S = 5.0
"""A name that takes longer to resolve is refused at creation; a try has ten seconds for everything."""

LOOKUPS_MAX = 32
"""Tenants whose names are looked up at once, each on a thread; other tenants' calls wait for none of them."""

_SIGNING = {
    webhooks_pb2.Webhook.SIGNING_UNSPECIFIED: Signing.HMAC,
    webhooks_pb2.Webhook.SIGNING_HMAC: Signing.HMAC,
    webhooks_pb2.Webhook.SIGNING_ED25519: Signing.ED25519,
}


class Webhooks(webhooks_pb2_grpc.WebhooksServicer):
    """See `protos/assay/api/v1/webhooks.proto` for every method's contract."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing
        self._lookups = _Lookups(backing.settings.resolve)

    async def CreateWebhook(self, request: webhooks_pb2.CreateWebhookRequest, context: Any) -> webhooks_pb2.Webhook:
        """Make a webhook, if its receiver may be called; the one answer that tells its secret besides a rotation's."""
        wanted = request.webhook
        wrong = check_webhook(request.webhook_id, wanted.types)
        if wanted.signing not in _SIGNING:
            wrong.append(Violation("webhook.signing", "is no way to sign", "BAD_WEBHOOK"))
        if wrong:
            raise refuse_fields(wrong)
        caller = current_call().caller
        lane = Lane(caller.tenant, request.webhook_id)
        # Before any name is looked up: whoever may make no more of them costs no lookup.
        await self._read(lambda connection: webhooks.require_place(connection, lane.tenant, adding=1))
        await self._require_callable(wanted.url, lane.tenant)
        key = new_key(_SIGNING[wanted.signing])

        def create(connection: Any) -> WebhookView:
            webhooks.create_webhook(connection, lane, wanted.url, tuple(wanted.types), key, caller.role)
            return _known(webhooks.find_webhook(connection, lane))

        return _webhook(await self._write(create), key)

    async def _require_callable(self, url: str, tenant: str) -> None:
        """Do nothing if the service may call this now; each try looks again.

        Raises:
            Refusal: FORBIDDEN_ADDRESS.
        """
        allowed = self._backing.settings.receivers
        try:
            found = target(url, allowed)
            if found.address is None:
                require_all(await self._lookups.addresses(found.host, tenant), allowed)
        except Forbidden as forbidden:
            raise refuse_fields([Violation("webhook.url", forbidden.why, "FORBIDDEN_ADDRESS")]) from None

    async def GetWebhook(self, request: webhooks_pb2.GetWebhookRequest, context: Any) -> webhooks_pb2.Webhook:
        """Read one webhook."""
        lane = _lane(request.name)
        return _webhook(await self._read(lambda connection: _known(webhooks.find_webhook(connection, lane))))

    async def ListWebhooks(
        self, request: webhooks_pb2.ListWebhooksRequest, context: Any
    ) -> webhooks_pb2.ListWebhooksResponse:
        """List the tenant's webhooks, newest first."""
        caller = current_call().caller
        size = pages.page_size(request.page_size)
        question = (caller.principal, "ListWebhooks")
        after = self._unseal(question, request.page_token)
        found = await self._read(lambda connection: webhooks.webhook_page(connection, caller.tenant, after, size + 1))
        reply = webhooks_pb2.ListWebhooksResponse(webhooks=[_webhook(one) for one in found[:size]])
        if len(found) > size:
            reply.next_page_token = self._seal(question, found[size - 1])
        return reply

    async def DeleteWebhook(
        self, request: webhooks_pb2.DeleteWebhookRequest, context: Any
    ) -> webhooks_pb2.DeleteWebhookResponse:
        """Delete a webhook, and drop what is owed to it."""
        lane = _lane(request.name)
        if not await self._write(lambda connection: webhooks.delete_webhook(connection, lane)):
            raise not_permitted()
        return webhooks_pb2.DeleteWebhookResponse()

    async def RotateSecret(self, request: webhooks_pb2.RotateSecretRequest, context: Any) -> webhooks_pb2.Webhook:
        """Make a new secret and tell it."""
        lane = _lane(request.name)

        def rotate(connection: Any) -> tuple[WebhookView, Key]:
            key = webhooks.rotate_secret(connection, lane)
            if key is None:
                raise not_permitted()
            return _known(webhooks.find_webhook(connection, lane)), key

        return _webhook(*await self._write(rotate))

    async def ListDeliveries(
        self, request: webhooks_pb2.ListDeliveriesRequest, context: Any
    ) -> webhooks_pb2.ListDeliveriesResponse:
        """List a webhook's deliveries, newest first."""
        lane = _lane(request.parent)
        size = pages.page_size(request.page_size)
        call = current_call()
        question = (call.caller.principal, "ListDeliveries", request.parent)
        after = self._unseal(question, request.page_token)

        def read(connection: Any) -> tuple[DeliveryView, ...]:
            _known(webhooks.find_webhook(connection, lane))
            return deliveries.delivery_page(connection, lane, call.scope, after, size + 1)

        found = await self._read(read)
        reply = webhooks_pb2.ListDeliveriesResponse(deliveries=[_delivery(one) for one in found[:size]])
        if len(found) > size:
            reply.next_page_token = self._seal(question, found[size - 1])
        return reply

    async def Redeliver(self, request: webhooks_pb2.RedeliverRequest, context: Any) -> webhooks_pb2.Delivery:
        """Owe a delivery again."""
        webhook_id, delivery_id = names.delivery(request.name)
        call = current_call()
        lane = Lane(call.caller.tenant, webhook_id)

        def again(connection: Any) -> DeliveryView:
            _known(deliveries.find_delivery(connection, lane, call.scope, delivery_id))
            deliveries.redeliver(connection, lane, delivery_id)
            return _known(deliveries.find_delivery(connection, lane, call.scope, delivery_id))

        return _delivery(await self._write(again))

    async def _read(self, ask: Callable[[Any], T]) -> T:
        def read() -> T:
            with self._backing.store.read() as connection:
                return ask(connection)

        return await asyncio.to_thread(read)

    async def _write(self, change: Callable[[Any], T]) -> T:
        def write() -> T:
            with self._backing.store.begin() as connection:
                return change(connection)

        return await asyncio.to_thread(write)

    def _unseal(self, question: tuple[str, ...], token: str) -> Position | None:
        return pages.unseal(self._backing.settings.page_key, question, token)

    def _seal(self, question: tuple[str, ...], last: WebhookView | DeliveryView) -> str:
        return pages.seal(self._backing.settings.page_key, question, Position(last.created_at, last.id))


class _Lookups:
    """Looks names up, one at a time for each tenant and on threads of its own.

    A tenant whose name server never answers waits for itself alone: the API's threads are for database and disk.
    """

    def __init__(self, resolve: Resolver) -> None:
        self._resolve = resolve
        self._threads = ThreadPoolExecutor(LOOKUPS_MAX, thread_name_prefix="lookup")
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def addresses(self, host: str, tenant: str) -> Sequence[str]:
        """Return every address of a name; none where it has none, or nobody answers within `RESOLVE_S`."""
        turn = self._turns[tenant]
        try:
            async with asyncio.timeout(RESOLVE_S):
                await turn.acquire()
                loop = asyncio.get_running_loop()
                looking = loop.run_in_executor(self._threads, self._resolve, host, RESOLVE_S, tenant)
                looking.add_done_callback(lambda over: _end(turn, over))
                # A caller who goes away ends no lookup, so the tenant's turn is over when the thread is free again.
                return await asyncio.shield(looking)
        except OSError:  # TimeoutError too
            return ()


def _end(turn: asyncio.Lock, over: asyncio.Future[Any]) -> None:
    turn.release()
    if not over.cancelled():
        over.exception()  # looked at, or asyncio would complain that nobody did


def _lane(name: str) -> Lane:
    """Return a webhook of the caller's tenant; another tenant's of that id is never looked at."""
    return Lane(current_call().caller.tenant, names.webhook(name))


def _known(found: T | None) -> T:
    if found is None:
        raise not_permitted()
    return found


def _webhook(view: WebhookView, key: Key | None = None) -> webhooks_pb2.Webhook:
    message = webhooks_pb2.Webhook(
        name=f"webhooks/{view.id}",
        url=view.url,
        signing=webhooks_pb2.Webhook.Signing.Value(f"SIGNING_{view.signing}"),
        types=view.types,
        secret=key.told if key else "",
        created_at=timestamp(view.created_at),
    )
    if view.disabled_at is not None:
        message.disabled_at.CopyFrom(timestamp(view.disabled_at))
    if view.old_secret_until is not None:
        message.old_secret_until.CopyFrom(timestamp(view.old_secret_until))
    return message


def _delivery(view: DeliveryView) -> webhooks_pb2.Delivery:
    message = webhooks_pb2.Delivery(
        name=f"webhooks/{view.webhook}/deliveries/{view.id}",
        event_id=view.event_id,
        type=view.type,
        audit=f"audits/{view.audit}",
        state=webhooks_pb2.Delivery.State.Value(f"STATE_{view.state}"),
        tries=view.tries,
        last_status=view.last_status,
        last_error=view.last_error,
        created_at=timestamp(view.created_at),
    )
    if view.ended_at is not None:
        message.ended_at.CopyFrom(timestamp(view.ended_at))
    return message
