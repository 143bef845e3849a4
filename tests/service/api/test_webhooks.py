"""Webhooks over the wire: what may be called is decided before anything is stored, and a secret is told once."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from assay import webhooks as receiving_end
from assay.api.v1 import audits_pb2, audits_pb2_grpc, webhooks_pb2, webhooks_pb2_grpc
from sqlalchemy import func, select

from service.api import webhooks as webhooks_api
from service.rules.addresses import Allowed
from service.rules.callbacks import TYPES, WEBHOOKS_MAX
from service.store.deliveries import DeliveryState, Lane, bury, lock_owed
from service.store.owing import owe_deliveries
from service.store.tables import audit
from service.store.tables_around import delivery, webhook
from tests.service.api.conftest import House, told
from tests.service.plants.receivers import NAME, PUBLIC, Resolver

URL = f"https://{NAME}/hook"
HMAC, ED25519 = webhooks_pb2.Webhook.SIGNING_HMAC, webhooks_pb2.Webhook.SIGNING_ED25519


@pytest.fixture
async def hooked(house: House) -> House:
    """A server whose resolver knows one public name, one private one and one that is both."""
    await house.stop()
    names = {NAME: [[PUBLIC]], "inside.example.com": [["10.0.0.7"]], "both.example.com": [[PUBLIC, "::1"]]}
    await house.start(resolve=Resolver({name: list(answers) for name, answers in names.items()}))
    return house


def stub(house: House, principal: str = "ada") -> Any:
    return house.stub(webhooks_pb2_grpc.WebhooksStub, principal)


def create(house: House, identifier: str = "told", principal: str = "ada", **fields: Any) -> Any:
    body = webhooks_pb2.Webhook(**{"url": URL, **fields})
    return stub(house, principal).CreateWebhook(webhooks_pb2.CreateWebhookRequest(webhook_id=identifier, webhook=body))


def count(house: House, table: Any = webhook) -> int:
    with house.store.read() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


async def cancelled(house: House, principal: str = "ada", **fields: Any) -> str:
    """Submit an audit and cancel it; return its name."""
    made = await house.submit(principal, **fields)
    await house.stub(audits_pb2_grpc.AuditsStub, principal).CancelAudit(audits_pb2.CancelAuditRequest(name=made.name))
    return str(made.name)


@pytest.mark.parametrize(
    "url",
    [
        *("", f"http://{NAME}/", f"https://{NAME}:8443/", f"https://u:p@{NAME}/", f"https://{NAME}/#f"),
        *(
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://169.254.169.254/latest",
            "https://0x7f.1/",
            "https://localhost/",
        ),
        *("https://inside.example.com/", "https://both.example.com/", "https://absent.example.com/"),
    ],
)
async def test_a_receiver_that_may_not_be_called_is_refused_and_nothing_is_stored(hooked: House, url: str) -> None:
    answer = await told(create(hooked, url=url))
    assert (answer.code, answer.reason, answer.metadata["field"]) == (
        "INVALID_ARGUMENT",
        "FORBIDDEN_ADDRESS",
        "webhook.url",
    )
    assert count(hooked) == 0


async def test_whether_a_name_of_the_service_s_own_network_exists_cannot_be_found_out(hooked: House) -> None:
    inside, absent = [await told(create(hooked, url=f"https://{n}.example.com/")) for n in ("inside", "absent")]
    assert inside.raw == absent.raw


async def test_a_server_without_a_resolver_calls_no_name(house: House) -> None:
    assert (await told(create(house))).reason == "FORBIDDEN_ADDRESS"


@pytest.mark.parametrize(
    ("identifier", "fields", "field"),
    [
        ("abc", {}, "webhook_id"),
        ("Told", {}, "webhook_id"),
        ("told", {"types": ["assay.audit.exploded.v1"]}, "webhook.types[0]"),
        ("told", {"types": [TYPES["FAILED"]] * 2}, "webhook.types[1]"),
        ("told", {"signing": 7}, "webhook.signing"),
    ],
)
async def test_what_is_wrong_with_a_webhook_is_named(
    hooked: House, identifier: str, fields: dict[str, Any], field: str
) -> None:
    answer = await told(create(hooked, identifier, **fields))
    assert (answer.reason, [one.field for one in answer.details["BadRequest"].field_violations]) == (
        "BAD_WEBHOOK",
        [field],
    )
    assert count(hooked) == 0


@pytest.mark.parametrize(("signing", "prefix"), [(0, "whsec_"), (HMAC, "whsec_"), (ED25519, "whpk_")])
async def test_a_secret_is_told_at_creation_and_rotation_and_never_again(
    hooked: House, signing: Any, prefix: str
) -> None:
    made = await create(hooked, signing=signing)
    assert made.secret.startswith(prefix)
    assert len(base64.b64decode(made.secret.removeprefix(prefix))) == 32
    rotated = await stub(hooked).RotateSecret(webhooks_pb2.RotateSecretRequest(name=made.name))
    assert rotated.secret.startswith(prefix)
    assert rotated.secret != made.secret
    assert rotated.old_secret_until.ToMilliseconds() - rotated.created_at.ToMilliseconds() >= 24 * 3600 * 1000
    found = await stub(hooked).GetWebhook(webhooks_pb2.GetWebhookRequest(name=made.name))
    listed = (await stub(hooked).ListWebhooks(webhooks_pb2.ListWebhooksRequest())).webhooks
    assert [found.secret, *(one.secret for one in listed)] == ["", ""]
    with hooked.store.read() as connection:
        private = connection.execute(select(webhook.c.secret)).scalar_one()
    assert (base64.b64encode(private).decode() in rotated.secret) is (prefix == "whsec_")


async def test_a_webhook_is_made_once_listed_and_deleted(hooked: House) -> None:
    made = await create(hooked, types=[TYPES["FAILED"]])
    assert (made.name, made.url, list(made.types), made.signing) == ("webhooks/told", URL, [TYPES["FAILED"]], HMAC)
    assert (await told(create(hooked))).reason == "WEBHOOK_EXISTS"
    await create(hooked, "told-too")
    page = await stub(hooked).ListWebhooks(webhooks_pb2.ListWebhooksRequest(page_size=1))
    rest = await stub(hooked).ListWebhooks(
        webhooks_pb2.ListWebhooksRequest(page_size=1, page_token=page.next_page_token)
    )
    assert [one.name for one in (*page.webhooks, *rest.webhooks)] == ["webhooks/told-too", "webhooks/told"]
    assert rest.next_page_token == ""
    await stub(hooked).DeleteWebhook(webhooks_pb2.DeleteWebhookRequest(name=made.name))
    assert (
        await told(stub(hooked).GetWebhook(webhooks_pb2.GetWebhookRequest(name=made.name)))
    ).reason == "NOT_PERMITTED"
    await create(hooked)  # the id is free again


async def test_names_that_never_resolve_stop_no_other_call_and_hold_one_thread(house: House) -> None:
    """A tenant's own name server need not answer: others are served, and it looks up one name at a time."""
    looking, over = [], threading.Event()

    def hang(host: str, timeout_s: float, asker: str) -> list[str]:
        looking.append((host, asker))
        over.wait(10)
        return [PUBLIC]

    await house.stop()
    await house.start(resolve=hang)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))  # as if all others were taken
    try:
        hanging = [asyncio.ensure_future(create(house, f"told-{n}")) for n in range(8)]
        while not looking:
            await asyncio.sleep(0.01)
        await asyncio.wait_for(stub(house, "ben").ListWebhooks(webhooks_pb2.ListWebhooksRequest()), 4)
        assert looking == [(NAME, "acme")]
    finally:
        over.set()
    await asyncio.gather(*hanging)
    assert count(house) == 8


async def test_a_caller_who_goes_away_frees_no_thread_that_still_looks_up(house: House) -> None:
    looking, over = [], threading.Event()

    def hang(host: str, timeout_s: float, asker: str) -> list[str]:
        looking.append(host)
        over.wait(10)
        return [PUBLIC]

    lookups = webhooks_api._Lookups(hang)
    tasks = [asyncio.ensure_future(lookups.addresses(f"{n}.example", "acme")) for n in range(3)]
    while not looking:
        await asyncio.sleep(0.01)
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    await asyncio.sleep(0)
    assert looking == ["0.example"]
    over.set()
    assert await asyncio.gather(*tasks[1:]) == [[PUBLIC], [PUBLIC]]


async def test_who_may_make_no_more_webhooks_costs_no_lookup(hooked: House) -> None:
    for number in range(WEBHOOKS_MAX):
        await create(hooked, f"told-{number}")
    await hooked.stop()
    names = Resolver({NAME: [[PUBLIC]]})
    await hooked.start(resolve=names)
    assert (await told(create(hooked, "one-more"))).reason == "TOO_MANY_WEBHOOKS"
    assert names.asked == []


async def test_a_tenant_has_so_many_webhooks_and_no_more(hooked: House) -> None:
    for number in range(WEBHOOKS_MAX):
        await create(hooked, f"told-{number}")
    answer = await told(create(hooked, "one-more"))
    assert (answer.code, answer.reason, answer.metadata["limit"]) == ("RESOURCE_EXHAUSTED", "TOO_MANY_WEBHOOKS", "20")
    assert count(hooked) == WEBHOOKS_MAX
    await create(hooked, "told", "ben")


async def test_a_foreign_webhook_reads_as_an_absent_one_and_its_id_is_not_taken(hooked: House) -> None:
    await create(hooked, "told", "ben")
    await create(hooked, "told", "ada")
    await create(hooked, "mine", "ben")
    key = await cancelled(hooked, "ben")
    assert key
    with hooked.store.read() as connection:
        owed = connection.execute(select(delivery.c.id).where(delivery.c.webhook == "mine")).scalar_one()
    theirs = stub(hooked, "ada")
    calls: tuple[Callable[[str], Any], ...] = (
        lambda name: theirs.GetWebhook(webhooks_pb2.GetWebhookRequest(name=name)),
        lambda name: theirs.DeleteWebhook(webhooks_pb2.DeleteWebhookRequest(name=name)),
        lambda name: theirs.RotateSecret(webhooks_pb2.RotateSecretRequest(name=name)),
        lambda name: theirs.ListDeliveries(webhooks_pb2.ListDeliveriesRequest(parent=name)),
        lambda name: theirs.Redeliver(webhooks_pb2.RedeliverRequest(name=f"{name}/deliveries/{owed}")),
    )
    for call in calls:
        foreign, absent = await told(call("webhooks/mine")), await told(call("webhooks/nobodys"))
        assert (foreign.code, foreign.raw) == ("PERMISSION_DENIED", absent.raw)
    assert count(hooked) == 3


@pytest.mark.parametrize(
    "name", ["told", "webhooks/", "webhooks/abc", "webhooks/told/x", "webhooks/Told", "schedules/told"]
)
async def test_a_name_that_is_none_is_refused(hooked: House, name: str) -> None:
    for call in (
        stub(hooked).GetWebhook(webhooks_pb2.GetWebhookRequest(name=name)),
        stub(hooked).ListDeliveries(webhooks_pb2.ListDeliveriesRequest(parent=name)),
        stub(hooked).Redeliver(webhooks_pb2.RedeliverRequest(name=f"{name}/deliveries/{'0' * 32}")),
        stub(hooked).Redeliver(webhooks_pb2.RedeliverRequest(name="webhooks/told/deliveries/1")),
    ):
        assert (await told(call)).reason == "BAD_RESOURCE_NAME"


async def test_an_operator_has_no_business_with_webhooks(hooked: House) -> None:
    assert (await told(create(hooked, "told", "ops"))).code == "PERMISSION_DENIED"


async def test_an_audit_s_end_is_owed_with_its_labels_and_sent_again_on_request(hooked: House) -> None:
    await create(hooked)
    await create(hooked, "other", "ben")
    key = await cancelled(hooked, labels={"pipeline": "nightly"})
    listed = (await stub(hooked).ListDeliveries(webhooks_pb2.ListDeliveriesRequest(parent="webhooks/told"))).deliveries
    assert [(one.audit, one.type, one.state) for one in listed] == [
        (key, TYPES["CANCELLED"], webhooks_pb2.Delivery.STATE_PENDING)
    ]
    assert count(hooked, delivery) == 1
    with hooked.store.begin() as connection:
        body = connection.execute(select(delivery.c.body)).scalar_one()
        lane = Lane("acme", "told")
        bury(connection, lane, "GONE", listed[0].created_at.ToMilliseconds(), lock_owed(connection, lane))
        connection.execute(webhook.update().where(webhook.c.tenant == "acme").values(disabled_at=5))
    assert json.loads(body)["data"]["labels"] == {"pipeline": "nightly"}
    dead = (await stub(hooked).ListDeliveries(webhooks_pb2.ListDeliveriesRequest(parent="webhooks/told"))).deliveries[0]
    assert (dead.state, dead.last_error) == (webhooks_pb2.Delivery.STATE_DEAD, "GONE")
    found = await stub(hooked).GetWebhook(webhooks_pb2.GetWebhookRequest(name="webhooks/told"))
    assert found.HasField("disabled_at")
    again = await stub(hooked).Redeliver(webhooks_pb2.RedeliverRequest(name=dead.name))
    assert (again.state, again.event_id, again.tries) == (webhooks_pb2.Delivery.STATE_PENDING, dead.event_id, 0)
    found = await stub(hooked).GetWebhook(webhooks_pb2.GetWebhookRequest(name="webhooks/told"))
    assert not found.HasField("disabled_at")
    with hooked.store.read() as connection:
        row = connection.execute(select(delivery.c.body, delivery.c.state)).one()
    assert (row.body, row.state) == (body, DeliveryState.PENDING)


async def test_a_delivery_is_shown_and_sent_again_only_to_who_may_see_its_audit(hooked: House) -> None:
    """Bolt audits acme's model: acme's owner may see that, acme's auditor may not, by whose webhook ever it is told."""
    await create(hooked, "owners", "ola")
    await create(hooked, "auditors", "ada")
    foreign = await hooked.submit("ben")
    with hooked.store.begin() as connection:
        key = foreign.name.removeprefix("audits/")
        connection.execute(audit.update().where(audit.c.id == key).values(model_tenant="acme"))
        owe_deliveries(connection, key, "COMPLETED")
    ask = webhooks_pb2.ListDeliveriesRequest(parent="webhooks/owners")
    (seen,) = (await stub(hooked, "ola").ListDeliveries(ask)).deliveries
    assert seen.audit == foreign.name
    again = webhooks_pb2.RedeliverRequest(name=seen.name)
    assert (await stub(hooked, "ola").Redeliver(again)).event_id == seen.event_id
    assert not (await stub(hooked, "ada").ListDeliveries(ask)).deliveries
    absent = webhooks_pb2.RedeliverRequest(name=f"webhooks/owners/deliveries/{'0' * 32}")
    answers = [await told(stub(hooked, "ada").Redeliver(one)) for one in (again, absent)]
    assert [one.reason for one in answers] == ["NOT_PERMITTED"] * 2
    assert answers[0].raw == answers[1].raw
    own = webhooks_pb2.ListDeliveriesRequest(parent="webhooks/auditors")
    assert not (await stub(hooked, "ola").ListDeliveries(own)).deliveries
    assert not (await stub(hooked, "ada").ListDeliveries(own)).deliveries


async def test_pages_of_deliveries_belong_to_their_webhook(hooked: House) -> None:
    await create(hooked)
    await create(hooked, "other")
    for _ in range(2):
        await cancelled(hooked)
    ask = webhooks_pb2.ListDeliveriesRequest
    page = await stub(hooked).ListDeliveries(ask(parent="webhooks/told", page_size=1))
    rest = await stub(hooked).ListDeliveries(ask(parent="webhooks/told", page_size=1, page_token=page.next_page_token))
    assert len({one.name for one in (*page.deliveries, *rest.deliveries)}) == 2
    assert rest.next_page_token == ""
    stolen = ask(parent="webhooks/other", page_token=page.next_page_token)
    assert (await told(stub(hooked).ListDeliveries(stolen))).reason == "BAD_PAGE_TOKEN"


async def test_loopback_receivers_are_made_only_where_they_are_allowed(hooked: House) -> None:
    url = "https://127.0.0.1:8443/hook"
    assert (await told(create(hooked, url=url))).reason == "FORBIDDEN_ADDRESS"
    await hooked.stop()
    await hooked.start(receivers=Allowed(ports=frozenset({8443}), loopback=True))
    made = await create(hooked, url=url)
    assert made.url == url
    assert receiving_end.SECRET in made.secret
