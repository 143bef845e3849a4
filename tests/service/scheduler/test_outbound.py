"""One call to a receiver that lies: nothing but a checked address is ever contacted, and time and bytes are bounded."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from service.main import resolver as system
from service.rules.addresses import Allowed
from service.rules.retries import Reply
from service.scheduler.outbound import REPLY_MAX, Outbound, OutboundSettings, connect
from tests.service.plants.receivers import NAME, PUBLIC, Receiver, Resolver, Switchboard, answer, receiving

URL = f"https://{NAME}/hook?x=1"
Start = Callable[..., Receiver]


def wait_for(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda script=None, where="r", **more: stack.enter_context(receiving(tmp_path / where, script, **more))


def caller(receiver: Receiver, **more: object) -> tuple[Outbound, Switchboard, Resolver]:
    board, names = Switchboard({PUBLIC: receiver.port}), Resolver({NAME: [[PUBLIC]]})
    settings = OutboundSettings(ca=receiver.ca)
    return Outbound(settings, names, connect=board, **more), board, names  # type: ignore[arg-type]


def test_a_call_names_the_host_in_sni_and_host_and_reaches_the_checked_address(start: Start) -> None:
    receiver = start()
    outbound, board, _ = caller(receiver)
    assert outbound.post(URL, {"webhook-id": "e"}, b'{"a":1}', "t") == Reply(status=204)
    heard = receiver.heard[0]
    assert (heard.name, heard.headers["host"], heard.line) == (NAME, NAME, "POST /hook?x=1 HTTP/1.1")
    assert (heard.body, heard.headers["webhook-id"]) == (b'{"a":1}', "e")
    assert heard.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert board.dialled == [(PUBLIC, 443)]


@pytest.mark.parametrize(
    "addresses",
    [
        *(["127.0.0.1"], [PUBLIC, "127.0.0.1"], ["169.254.169.254", PUBLIC], ["::1"], ["::ffff:10.0.0.1"]),
        *(["64:ff9b::7f00:1"], ["224.0.0.1"], ["192.88.99.1"], ["2002:7f00:1::"], ["fe80::1%eth0"], ["nonsense"], []),
    ],
)
def test_one_address_that_may_not_be_called_forbids_them_all(start: Start, addresses: list[str]) -> None:
    receiver = start()
    outbound, board, names = caller(receiver)
    names.answers[NAME] = [addresses]
    board.lines |= dict.fromkeys([*addresses, PUBLIC], receiver.port)
    assert outbound.post(URL, {}, b"", "t") == Reply(error="FORBIDDEN_ADDRESS")
    assert (board.dialled, receiver.accepted) == ([], 0)


def test_a_name_that_changes_between_check_and_connect_moves_nothing(start: Start) -> None:
    receiver, inside = start(), start(where="inside")
    outbound, board, names = caller(receiver)
    names.answers[NAME] = [[PUBLIC], ["127.0.0.1"]]
    board.lines["127.0.0.1"] = inside.port
    assert outbound.post(URL, {}, b"", "t").status == 204
    assert names.asked == [NAME]  # looked up once: what was checked is what is connected to
    assert outbound.post(URL, {}, b"", "t").error == "FORBIDDEN_ADDRESS"
    assert (board.dialled, inside.accepted) == ([(PUBLIC, 443)], 0)


def test_redirect_to_loopback_is_never_contacted(start: Start) -> None:
    inside = start(where="inside")
    place = f"https://127.0.0.1:{inside.port}/"
    receiver = start(lambda _heard: answer(307, Location=place))
    outbound, board, _ = caller(receiver)
    board.lines["127.0.0.1"] = inside.port
    assert outbound.post(URL, {}, b"", "t").status == 307
    assert (len(board.dialled), inside.accepted) == (1, 0)


@pytest.mark.parametrize("name", ["http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"])
def test_no_proxy_of_the_environment_sees_a_call(start: Start, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    receiver = start()
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        assert caller(receiver)[0].post(URL, {}, b"", "t").status == 204
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()


def test_a_certificate_for_another_name_or_of_a_stranger_is_not_believed(start: Start, tmp_path: Path) -> None:
    wrong, strange = start(hosts=("other.example",)), start(where="strange")
    assert caller(wrong)[0].post(URL, {}, b"secret", "t") == Reply(error="BAD_CERTIFICATE")
    board, names = Switchboard({PUBLIC: strange.port}), Resolver({NAME: [[PUBLIC]]})
    outbound = Outbound(OutboundSettings(ca=wrong.ca), names, connect=board)
    assert outbound.post(URL, {}, b"secret", "t") == Reply(error="BAD_CERTIFICATE")
    assert wrong.heard + strange.heard == []


@pytest.mark.parametrize("mood", ["hang", "drip"])
def test_a_call_ends_in_time_however_slowly_it_is_answered(start: Start, mood: str) -> None:
    receiver = start(lambda _heard: mood)
    began = time.monotonic()
    assert caller(receiver, call_s=0.5)[0].post(URL, {}, b"", "t") == Reply(error="TIMED_OUT")
    assert time.monotonic() - began < 3


def test_a_receiver_that_never_says_hello_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts by its backlog, and never speaks TLS
        board, names = Switchboard({PUBLIC: silent.getsockname()[1]}), Resolver({NAME: [[PUBLIC]]})
        outbound = Outbound(OutboundSettings(), names, connect=board, call_s=0.3)
        assert outbound.post(URL, {}, b"", "t") == Reply(error="TIMED_OUT")


def test_of_a_reply_without_end_only_4_kib_are_read(start: Start) -> None:
    receiver = start(lambda _heard: "flood")
    assert caller(receiver)[0].post(URL, {}, b"", "t").status == 200
    big = start(lambda _heard: answer(200, X=("y" * 10_000), Retry_After="7"), where="big")
    assert caller(big)[0].post(URL, {}, b"", "t") == Reply(status=200)  # what stands behind them is not seen


def test_interim_replies_without_end_are_read_no_further_than_others(start: Start) -> None:
    """All bytes count, also those of replies that are not the last: what comes after 4 KiB is never seen."""
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    few = start(lambda _heard: [interim] * (REPLY_MAX // len(interim) - 10) + [answer(200)], where="few")
    assert caller(few)[0].post(URL, {}, b"", "t") == Reply(status=200)
    many = start(lambda _heard: [interim] * (REPLY_MAX // len(interim) + 1) + [answer(200)])
    assert caller(many)[0].post(URL, {}, b"", "t") == Reply(error="BAD_REPLY")


def test_a_line_that_the_limit_cuts_is_not_read(start: Start) -> None:
    filler = b"HTTP/1.1 503 No\r\nX: "
    rest = b"\r\nRetry-After: 12"
    head = filler + b"y" * (REPLY_MAX - len(filler) - len(rest)) + rest
    receiver = start(lambda _heard: head + b"00\r\n\r\n")
    assert caller(receiver)[0].post(URL, {}, b"", "t") == Reply(status=503)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b"", Reply(error="BAD_REPLY")),
        (b"SSH-2.0-x\r\n\r\n", Reply(error="BAD_REPLY")),
        (b"HTTP/1.1 999 X\r\n\r\n", Reply(error="BAD_REPLY")),
        (b"HTTP/1.1 0200 X\r\n\r\n", Reply(error="BAD_REPLY")),
        (b"HTTP/2 200\r\n\r\n", Reply(error="BAD_REPLY")),
        (b"HTTP/1.1 100 Continue\r\n\r\n", Reply(error="BAD_REPLY")),
        (b"HTTP/1.1 103 Hints\r\nX: y\r\n\r\nHTTP/1.1 201 Made\r\n\r\n", Reply(status=201)),
        (b"HTTP/1.0 200\r\n\r\n<html>", Reply(status=200)),
        *((reply, Reply(error="BAD_REPLY")) for reply in (b"HTTP/1.1 200", b"HTTP/1.1 410", b"HTTP/1.1 200 OK\r\n")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", Reply(error="BAD_REPLY")),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 2", Reply(error="BAD_REPLY")),
        (b"HTTP/1.1 503 No\r\nRetry-After:  120 \r\n\r\n", Reply(status=503, retry_after="120")),
        (b"HTTP/1.1 503 No\r\nretry-after: 1\r\nRetry-After: 2\r\n\r\n", Reply(status=503, retry_after="1")),
        (b"HTTP/1.1 503 No\r\nRetry-After: \xff\r\n\r\n", Reply(status=503)),
    ],
)
def test_a_reply_is_read_strictly(start: Start, reply: bytes, expected: Reply) -> None:
    def script(_heard: object) -> bytes:
        return reply

    assert caller(start(script))[0].post(URL, {}, b"", "t") == expected


def test_a_dead_address_of_two_leaves_the_other(start: Start) -> None:
    receiver = start()
    outbound, board, names = caller(receiver)
    names.answers[NAME] = [["2606:4700::1111", PUBLIC]]
    assert outbound.post(URL, {}, b"", "t").status == 204
    assert board.dialled == [("2606:4700::1111", 443), (PUBLIC, 443)]
    names.answers[NAME] = [[f"1.1.1.{n}" for n in range(50)]]
    board.dialled.clear()
    assert outbound.post(URL, {}, b"", "t") == Reply(error="NOT_REACHED")
    assert len(board.dialled) == 3


@pytest.mark.parametrize(
    "url", [f"http://{NAME}/", f"https://{NAME}:8443/", "https://127.0.0.1/", f"https://u@{NAME}/"]
)
def test_a_url_that_is_no_longer_allowed_is_not_called(start: Start, url: str) -> None:
    receiver = start()
    outbound, board, names = caller(receiver)
    assert outbound.post(url, {}, b"", "t") == Reply(error="FORBIDDEN_ADDRESS")
    assert (names.asked, board.dialled) == ([], [])


def test_loopback_is_reached_only_where_it_is_allowed(start: Start) -> None:
    receiver = start()
    url = f"https://127.0.0.1:{receiver.port}/hook"
    ports = frozenset({receiver.port})
    for loopback, expected in ((True, Reply(status=204)), (False, Reply(error="FORBIDDEN_ADDRESS"))):
        settings = OutboundSettings(allowed=Allowed(ports=ports, loopback=loopback), ca=receiver.ca)
        assert Outbound(settings, Resolver()).post(url, {}, b"", "t") == expected
    assert receiver.accepted == 1
    assert receiver.heard[0].headers["host"] == f"127.0.0.1:{receiver.port}"


def test_a_connection_goes_to_an_address_and_never_to_a_name() -> None:
    for name in ("localhost", "127.1", ""):
        with pytest.raises(ValueError, match="address"):
            connect(name, 443, 1.0)


def test_a_lookup_that_hangs_ends_in_time_and_one_that_fails_is_an_oserror(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: os.read(read, 1) and [])
    with pytest.raises(TimeoutError):
        system.resolve("hang.example", 0.05, "t")
    os.write(write, b"x")

    def fail(*_a: object, **_k: object) -> None:
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(OSError, match="no such name"):
        system.resolve("absent.example", 5.0, "t")


def test_one_tenant_s_lookups_that_hang_leave_places_for_others_and_none_more_for_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What nobody waits for any more still holds its place, so no tenant may have more than two of them."""
    over, asked, lock = threading.Event(), [], threading.Lock()

    def look(host: bytes, *_a: object, **_k: object) -> list[object]:
        with lock:
            asked.append(host)
        if host.startswith(b"hang"):
            over.wait(10)
        return [(2, 1, 6, "", (PUBLIC, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look)
    try:
        for n in range(4):
            with pytest.raises(TimeoutError):
                system.resolve(f"hang{n}.example", 0.05, "evil")
        assert asked == [b"hang0.example.", b"hang1.example."]
        assert system.resolve("quick.example", 5.0, "acme") == [PUBLIC]
    finally:
        over.set()
    assert system.resolve("quick.example", 5.0, "evil") == [PUBLIC]
    wait_for(lambda: not system._RUNNING)


def test_a_name_is_looked_up_whole_so_no_search_list_makes_another_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def look(host: bytes, *_a: object, **_k: object) -> list[object]:
        asked.append(host)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look)
    for name in ("hooks.example.com", "localhost"):
        system.resolve(name, 5.0, "t")
    assert asked == [b"hooks.example.com.", b"localhost"]


def test_a_lookup_is_made_in_the_name_of_the_webhook_s_tenant(start: Start) -> None:
    outbound, _, names = caller(start())
    outbound.post(URL, {}, b"", "acme")
    assert names.askers == {"acme"}


def test_a_script_of_a_seed_is_the_same_again() -> None:
    from tests.service.plants.receivers import Heard, seeded

    heard = Heard(None, "", {}, b"")
    moods: list[bytes | str] = [answer(200), answer(500), "hang"]
    one, two = seeded(3, moods), seeded(3, moods)
    assert [one(heard) for _ in range(20)] == [two(heard) for _ in range(20)]
