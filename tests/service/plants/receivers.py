"""A lying receiver and a lying resolver: what the outside world can do to a webhook, on demand and from a seed."""

from __future__ import annotations

import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from service.main import pki

PUBLIC = "93.184.215.14"
"""An address that the guard lets through; nothing in these tests ever reaches it."""

NAME = "hooks.receiver.example"


@dataclass(frozen=True)
class Heard:
    """One request as it came."""

    name: str | None
    """What the caller named in SNI."""
    line: str
    headers: dict[str, str]
    body: bytes


Script = Callable[["Heard"], bytes | str | list[bytes]]
"""What a receiver does with a request: bytes are sent, those of a list each in a TLS record of its own; "hang" never
answers, "drip" sends a byte now and then, "flood" sends headers without end, "reset" closes."""


def answer(status: int, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", "Content-Length: 0", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


@dataclass
class Receiver:
    """A TLS server on loopback that says what its script says."""

    folder: Path
    script: Script = lambda _heard: answer(204)
    heard: list[Heard] = field(default_factory=list)
    accepted: int = 0
    """Connections, whatever came of them."""
    port: int = 0
    _names: dict[int, str | None] = field(default_factory=dict)
    _released: threading.Event = field(default_factory=threading.Event)

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def ids(self) -> list[str]:
        return [one.headers["webhook-id"] for one in self.heard]


@contextmanager
def receiving(folder: Path, script: Script | None = None, *, hosts: tuple[str, ...] = (NAME,)) -> Iterator[Receiver]:
    """Serve until the block ends; `folder` gets a certificate authority and a certificate for `hosts` and loopback."""
    folder.mkdir(parents=True, exist_ok=True)
    pki.ensure(folder, (), hosts)
    made = Receiver(folder)
    if script is not None:
        made.script = script
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    context.sni_callback = lambda wrapped, name, _context: made._names.__setitem__(id(wrapped), name)
    with socket.create_server(("127.0.0.1", 0)) as server:
        made.port = server.getsockname()[1]
        threading.Thread(target=_serve, args=(made, server, context), daemon=True).start()
        yield made
        made._released.set()
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


def _serve(made: Receiver, server: socket.socket, context: ssl.SSLContext) -> None:
    while not made._released.is_set():
        try:
            plain, _ = server.accept()
        except OSError:
            return
        made.accepted += 1
        threading.Thread(target=_talk, args=(made, plain, context), daemon=True).start()


def _talk(made: Receiver, plain: socket.socket, context: ssl.SSLContext) -> None:
    plain.settimeout(20)
    with plain, suppress(OSError), context.wrap_socket(plain, server_side=True) as opened:
        data = b""
        while b"\r\n\r\n" not in data:
            data += _some(opened)
        head, _, body = data.partition(b"\r\n\r\n")
        line, *rest = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in rest)}
        while len(body) < int(headers["content-length"]):
            body += _some(opened)
        heard = Heard(made._names.get(id(opened)), line, headers, body)
        made.heard.append(heard)
        _act(made, opened, made.script(heard))


def _some(opened: ssl.SSLSocket) -> bytes:
    piece = opened.recv(65_536)
    if not piece:
        raise OSError("the caller went away")
    return piece


def _act(made: Receiver, opened: ssl.SSLSocket, what: bytes | str | list[bytes]) -> None:
    if isinstance(what, bytes):
        opened.sendall(what)
    elif isinstance(what, list):
        for piece in what:
            opened.sendall(piece)
    elif what == "hang":
        made._released.wait(20)
    elif what == "drip":
        for letter in b"HTTP/1.1 200 OK" + b" " * 10_000:
            opened.sendall(bytes([letter]))
            if made._released.wait(0.05):
                return
    elif what == "flood":
        opened.sendall(b"HTTP/1.1 200 OK\r\n")
        while not made._released.is_set():
            opened.sendall(b"X-More: " + b"x" * 1000 + b"\r\n")


def seeded(seed: int, moods: Sequence[bytes | str]) -> Script:
    """Return a script that draws what it does from a seed."""
    generator = random.Random(seed)
    return lambda _heard: generator.choice(moods)


@dataclass
class Resolver:
    """Says what it was told to, each answer once, the last one for ever."""

    answers: dict[str, list[Sequence[str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    askers: set[str] = field(default_factory=set)

    def __call__(self, host: str, timeout_s: float, asker: str) -> Sequence[str]:
        assert timeout_s > 0
        self.asked.append(host)
        self.askers.add(asker)
        mine = self.answers.get(host, [])
        if not mine:
            raise OSError("no such name")
        return mine.pop(0) if len(mine) > 1 else mine[0]


@dataclass
class Switchboard:
    """Stands for the internet: each address leads to a receiver, and every call is written down."""

    lines: dict[str, int] = field(default_factory=dict)
    """Address -> port of a receiver on loopback."""
    dialled: list[tuple[str, int]] = field(default_factory=list)

    def __call__(self, address: str, port: int, timeout_s: float) -> socket.socket:
        self.dialled.append((address, port))
        if address not in self.lines:
            raise ConnectionRefusedError(address)
        return socket.create_connection(("127.0.0.1", self.lines[address]), timeout_s)
