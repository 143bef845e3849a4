"""`assay webhooks`: what it sends, what it shows, and that a secret is shown where it is told and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from assay.api.v1 import webhooks_pb2, webhooks_pb2_grpc

from tests.client.conftest import Ran
from tests.client.fakes import abort
from tests.client.planted import certificates

SECRET = "whsec_" + "A" * 43 + "="
DELIVERY = "webhooks/told/deliveries/" + "1" * 32


class Fake(webhooks_pb2_grpc.WebhooksServicer):
    """Keeps webhooks by name; pages of one."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.asked: list[Any] = []
        self.url = ""

    def CreateWebhook(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked.append(request)
        if "127.0.0.1" in request.webhook.url:
            abort(
                context,
                "INVALID_ARGUMENT",
                "FORBIDDEN_ADDRESS",
                "Not public. Name an https receiver on a public address.",
                violations={"webhook.url": "the host's addresses are not public"},
            )
        made = webhooks_pb2.Webhook()
        made.CopyFrom(request.webhook)
        made.name, made.created_at.seconds = f"webhooks/{request.webhook_id}", 1_700_000_000
        self.kept[made.name] = made
        return self._with_secret(made.name)

    def _with_secret(self, name: str) -> Any:
        told = webhooks_pb2.Webhook()
        told.CopyFrom(self.kept[name])
        told.secret = SECRET
        return told

    def GetWebhook(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.name not in self.kept:
            abort(context, "PERMISSION_DENIED", "NOT_PERMITTED")
        return self.kept[request.name]

    def ListWebhooks(self, request: Any, context: grpc.ServicerContext) -> Any:
        start, names = int(request.page_token or 0), list(self.kept)
        more = str(start + 1) if start + 1 < len(names) else ""
        listed = [self.kept[name] for name in names[start : start + 1]]
        return webhooks_pb2.ListWebhooksResponse(webhooks=listed, next_page_token=more)

    def DeleteWebhook(self, request: Any, context: grpc.ServicerContext) -> Any:
        del self.kept[request.name]
        return webhooks_pb2.DeleteWebhookResponse()

    def RotateSecret(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.kept[request.name].old_secret_until.seconds = 1_700_086_400
        return self._with_secret(request.name)

    def ListDeliveries(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked.append(request)
        one = webhooks_pb2.Delivery(
            name=DELIVERY,
            event_id="e",
            type="t",
            audit="audits/a",
            state=webhooks_pb2.Delivery.STATE_DEAD,
            tries=12,
            last_status=500,
            last_error="B\x1b",
        )
        newer: Any = 77  # a state that this client does not know
        two = webhooks_pb2.Delivery(name=DELIVERY, state=newer, tries=1)
        if request.page_token:
            return webhooks_pb2.ListDeliveriesResponse(deliveries=[two])
        return webhooks_pb2.ListDeliveriesResponse(deliveries=[one], next_page_token="2")

    def Redeliver(self, request: Any, context: grpc.ServicerContext) -> Any:
        return webhooks_pb2.Delivery(name=request.name, state=webhooks_pb2.Delivery.STATE_PENDING)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Fake, Path]]:
    folder = tmp_path / "fake"
    folder.mkdir()
    tls, servicer = certificates(folder), Fake()
    server = grpc.server(ThreadPoolExecutor(2))
    webhooks_pb2_grpc.add_WebhooksServicer_to_server(servicer, server)
    pair = (tls["key"].read_bytes(), tls["certificate"].read_bytes())
    credentials = grpc.ssl_server_credentials([pair], tls["ca"].read_bytes(), require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    config = folder / "client.json"
    config.write_text(json.dumps({"address": f"127.0.0.1:{port}", **{name: file.name for name, file in tls.items()}}))
    yield servicer, config
    server.stop(0).wait()


@pytest.fixture
def hooks(served: tuple[Fake, Path], capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    from assay.cli.run import run

    def call(*arguments: str) -> Ran:
        capsys.readouterr()
        code = run(["webhooks", *arguments, "--config", str(served[1])])
        seen = capsys.readouterr()
        return Ran(code, seen.out, seen.err)

    return call


def test_a_secret_is_shown_where_it_is_told_and_nowhere_else(hooks: Callable[..., Ran]) -> None:
    made = hooks("create", "told", "https://hooks.example.com/x")
    assert (made.code, SECRET in made.out, "Keep it now" in made.err) == (0, True, True)
    assert hooks("rotate", "webhooks/told", "--json").json()["secret"] == SECRET
    for arguments in (("show", "told"), ("list",), ("show", "told", "--json"), ("list", "--json")):
        ran = hooks(*arguments)
        assert ran.code == 0
        assert "secret" not in ran.out.replace("old_secret_until", "").replace("old secret signs", "")
        assert "whsec_" not in ran.out + ran.err


def test_short_types_and_ed25519_are_spelt_out(hooks: Callable[..., Ran], served: tuple[Fake, Path]) -> None:
    made = hooks(
        "create", "told", "https://x.example.com", "--type", "failed", "--type", "assay.audit.completed.v1", "--ed25519"
    )
    assert made.code == 0
    assert "public key" in made.out
    sent = served[0].asked[0].webhook
    assert list(sent.types) == ["assay.audit.failed.v1", "assay.audit.completed.v1"]
    assert sent.signing == webhooks_pb2.Webhook.SIGNING_ED25519
    assert hooks("show", "told", "--json").json()["signing"] == "ED25519"


def test_every_page_of_webhooks_is_read_and_no_more_than_asked_for(hooks: Callable[..., Ran]) -> None:
    assert "No webhooks." in hooks("list").err
    for name in ("one-", "two-", "three"):
        hooks("create", name, "https://x.example.com")
    assert [one["name"] for one in hooks("list", "--json").json()] == [
        "webhooks/one-",
        "webhooks/two-",
        "webhooks/three",
    ]
    assert len(hooks("list", "--limit", "2", "--json").json()) == 2
    gone = hooks("delete", "two-", "--json").json()
    assert gone == {"name": "webhooks/two-", "deleted": True}
    assert hooks("delete", "one-").out == "Deleted webhooks/one-\n"
    assert len(hooks("list").out.splitlines()) == 1


def test_deliveries_are_told_with_what_went_wrong_and_nothing_unprintable(hooks: Callable[..., Ran]) -> None:
    ran = hooks("deliveries", "told")
    assert (ran.code, "\x1b" in ran.out) == (0, False)
    first, second = ran.out.splitlines()
    assert first.split() == [DELIVERY, "DEAD", "12", "tries", "500", "B\\x1b", "t", "audits/a"]
    assert "UNKNOWN" in second
    assert "1 try" in second
    assert hooks("redeliver", DELIVERY, "--json").json()["state"] == "PENDING"
    assert hooks("redeliver", DELIVERY).out.split()[1] == "PENDING"


def test_a_refused_address_is_3_and_says_what_to_name_instead(hooks: Callable[..., Ran]) -> None:
    ran = hooks("create", "told", "https://127.0.0.1/", "--json")
    assert (ran.code, ran.json()["error"]["reason"]) == (3, "FORBIDDEN_ADDRESS")
    assert "https receiver on a public address" in ran.err
    assert hooks("show", "nobodys").code == 3
