"""The socket: one line in, one line out, for one user, at a bounded rate; nothing that signs a caller's bytes."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from assay import catalogue

from service.signer import process, server
from service.signer.process import SignerSettings, answer
from service.signer.refusal import CannotServe, Refused
from service.signer.server import LINE_MAX, Allowance, Server
from tests.service.signer.planting import World


def ask(path: Path, line: bytes, *, end: bool = True) -> Any:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        connection.sendall(line)
        if end:
            connection.shutdown(socket.SHUT_WR)
        data = b""
        try:
            while piece := connection.recv(65536):
                data += piece
        except ConnectionResetError:
            pass  # closed with our line unread: not answered
    return json.loads(data) if data else None


def line(**asked: Any) -> bytes:
    return json.dumps(asked).encode() + b"\n"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def place(world: World) -> Iterator[Path]:
    path = world.root / "s"
    serving = Server(path, os.getuid(), Allowance(1000), lambda asked: answer(world.desk, asked))
    thread = threading.Thread(target=serving.serve)
    thread.start()
    yield path
    serving.close()
    thread.join(10)
    assert not thread.is_alive()


def test_register_and_seal_over_the_socket(world: World, place: Path) -> None:
    told = ask(place, line(op="register", audit=world.id), end=False)
    assert told["ok"] is True
    world.set(registration_json=json.dumps(told["registration"]), registered_at=0)
    world.finish()
    sealed = ask(place, line(op="seal", audit=world.id, token=2))
    assert sealed["ok"] is True
    assert set(sealed) == {"ok", "directory", "files", "key_id", "composed_at"}
    late = ask(place, line(op="void", audit=world.id, reason="cancelled"))
    assert (late["ok"], late["code"], late["retryable"]) == (False, "ALREADY_SEALED", False)


A = "0" * 32


@pytest.mark.parametrize(
    "request_line",
    [
        b"",
        b"\n",
        b"null\n",
        b"[]\n",
        b"not json\n",
        b"\xff\xfe\n",
        line(op="sign", audit=A, payload="aGVsbG8="),
        line(op="seal", audit=A, token=1, payload="aGVsbG8="),
        line(op="register", audit=A, statement={}),
        line(op="register"),
        line(op="register", audit="../../etc/passwd"),
        line(op="register", audit=A.upper() + "F"),
        line(op=["register"], audit=A),
        line(op="seal", audit=A, token="1"),
        line(op="seal", audit=A, token=True),
        line(op="seal", audit=A, token=-1),
        line(op="void", audit=A, reason="a reason\n"),
        line(op="withdraw", audit=A, reason="Wrong model"),
        line(op="withdraw", audit=A, reason="a" * 33),
        b'{"op":"register","op":"seal","audit":"' + A.encode() + b'","token":1}\n',
        line(op="register", audit=A).rstrip(b"\n"),
        line(op="register", audit=A)[:-2] + b" " * LINE_MAX + b"}\n",
        b"x" * (LINE_MAX * 4),
    ],
)
def test_a_line_that_is_no_request(place: Path, request_line: bytes) -> None:
    try:
        told = ask(place, request_line)
    except BrokenPipeError:
        return  # an oversized line may be cut off while it is still being sent
    if told is None and len(request_line) > LINE_MAX:
        return
    assert (told["ok"], told["code"], told["retryable"]) == (False, "BAD_REQUEST", False)
    assert told["message"].isprintable()


def test_no_operation_takes_bytes_to_sign() -> None:
    assert {op: set(words) for op, words in server._WORDS.items()} == {
        "register": {"audit"},
        "seal": {"audit", "token"},
        "void": {"audit", "reason"},
        "withdraw": {"audit", "reason"},
    }


def test_the_socket_is_for_its_owner_and_replaces_a_stale_one(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_bytes(b"stale")
    serving = Server(path, os.getuid(), Allowance(1), lambda asked: {})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    serving.close()
    assert not path.exists()
    with pytest.raises(CannotServe):
        Server(tmp_path / ("x" * 200), os.getuid(), Allowance(1), lambda asked: {})


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to open a socket for another user")
def test_another_user_is_not_answered_root_neither(tmp_path: Path) -> None:
    asked: list[Any] = []

    def note(request: Any) -> dict[str, Any]:
        asked.append(request)
        return {}

    serving = Server(tmp_path / "s", 65534, Allowance(10), note)
    thread = threading.Thread(target=serving.serve)
    thread.start()
    try:
        assert os.stat(tmp_path / "s").st_uid == 65534
        assert ask(tmp_path / "s", line(op="register", audit=A)) is None
        assert asked == []
    finally:
        serving.close()
        thread.join(10)


def test_operations_beyond_the_rate_are_refused_and_retryable() -> None:
    now = 0.0
    allowance = Allowance(2, clock=lambda: now)
    allowance.take()
    allowance.take()
    with pytest.raises(Refused) as caught:
        allowance.take()
    assert (caught.value.code, caught.value.retryable) == ("RATE_LIMITED", True)
    now = 30.0
    allowance.take()
    with pytest.raises(Refused):
        allowance.take()


def test_a_defect_is_told_as_internal_without_its_text(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(process, "register", broken)
    with pytest.raises(Refused) as caught:
        world.ask(op="register")
    assert (caught.value.code, caught.value.retryable) == ("INTERNAL", True)
    assert "secret" not in str(caught.value)


def test_a_silent_connection_does_not_stop_others(world: World, place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(place))
        assert ask(place, line(op="register", audit=world.id))["ok"] is True


def test_the_process_serves_until_it_is_told_to_stop(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "load", lambda: world.desk.catalogue)
    ready, told = os.pipe()
    path = world.root / "p"
    settings = SignerSettings(
        database_url=world.url,
        blob_dir=world.root / "blobs",
        home=world.root / "signer",
        socket=path,
        allowed_uid=os.getuid(),
        key_file=world.key_file,
        log_key_file=world.log_key_file,
        log_origin="log.assay.example",
        profile="development",
        ready=lambda: os.close(told),
    )
    world.close()  # the child is the log's writer now
    child = os.fork()
    if child == 0:
        try:
            process.run(settings)
        finally:
            os._exit(7 if path.exists() else 0)
    try:
        os.close(told)
        assert os.read(ready, 1) == b""  # the child closed its end: it is ready
        first = ask(path, line(op="register", audit=world.id))
        assert first["ok"] is True
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        child = 0
        assert world.ask(op="register") == {"registration": first["registration"]}
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        os.close(ready)


def test_many_askers_of_one_audit_hear_one_seed(world: World, place: Path) -> None:
    heard: list[Any] = []
    threads = [
        threading.Thread(target=lambda: heard.append(ask(place, line(op="register", audit=world.id))))
        for _ in range(12)
    ]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({json.dumps(told, sort_keys=True) for told in heard}) == 1
    assert heard[0]["ok"] is True
    assert time.monotonic() - started < 20
