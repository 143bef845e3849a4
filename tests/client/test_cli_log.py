"""`assay log watch`: a log is remembered, and one that takes something back is told, with the evidence kept."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from assay.testing import Forge
from assay.tlog.entries import Entry, parse

from tests.client.conftest import Assay


def test_a_log_is_followed_and_a_fork_is_kept(assay: Assay, forge: Forge, tmp_path: Path) -> None:
    forge.report()
    root, state = ("--trust-root", forge.trust_root, "--now", "2026-03-01T00:00:00Z"), tmp_path / "s" / "log.json"
    ask = ("log", "watch", "--state", state, *root)
    first = assay(*ask, "--prefix", forge.log_dir, "--json")
    assert first.code == 0, first.err
    told = first.json()
    assert (told["size"], told["size_before"], told["requests"], told["reports"], told["open"]) == (2, None, 1, 1, 0)
    log, asked = forge.logged.log, parse(forge.logged.log.entries[0])
    log.append(Entry(kind="request", at="2026-01-02T03:05:00Z", commit="1" * 64, tag=asked.tag))
    later = assay(*ask, "--prefix", forge.log_dir)
    assert (later.code, "Without an end: 1 open" in later.out, "Extends the 2" in later.out) == (0, True, True)
    log.cut(1)
    before = state.read_bytes()
    gone = assay(*ask, "--prefix", forge.log_dir)
    assert gone.code == 1
    assert "went back" in gone.out + gone.err
    assert state.read_bytes() == before
    assert (tmp_path / "s" / "log.json.fork-1").read_bytes() != (tmp_path / "s" / "log.json.fork-2").read_bytes()


def test_what_cannot_be_watched(assay: Assay, forge: Forge, tmp_path: Path) -> None:
    forge.report()
    vkey, state = ("--log-vkey", forge.logged.log.vkey.text), ("--state", tmp_path / "state.json")
    assert assay("log", "watch", "--prefix", forge.log_dir, *state).code == 3
    assert assay("log", "watch", "--prefix", tmp_path / "gone", *state, *vkey).code == 2
    assert assay("log", "watch", "--prefix", forge.log_dir, *state, *vkey).code == 0
    other = Forge(tmp_path / "other", seed=9)
    stranger = ("--log-vkey", other.logged.log.vkey.text)
    assert assay("log", "watch", "--prefix", forge.log_dir, *state, *stranger).code == 1
    (tmp_path / "state.json").write_text(json.dumps({"schema": "other"}))
    assert assay("log", "watch", "--prefix", forge.log_dir, *state, *vkey).code == 2


class Site(BaseHTTPRequestHandler):
    """Serves a folder, and some answers that no log gives."""

    folder: Path

    def do_GET(self) -> None:
        kind, _, name = self.path[1:].partition("/")
        if kind == "moved":
            self.send_response(302)
            self.send_header("Location", f"/log/{name}")
            self.end_headers()
        elif kind == "long":
            self._send(b"x" * 100_000, 100_000)
        elif kind == "short":
            self._send(b"log.assay.example\n", 1_000)
        elif kind == "busy":
            self.send_error(503)
        elif kind == "log" and (self.folder / name).is_file():
            data = (self.folder / name).read_bytes()
            self._send(data, len(data))
        else:
            self.send_error(404)

    def _send(self, data: bytes, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def published(forge: Forge) -> Iterator[str]:
    forge.report()
    served = ThreadingHTTPServer(("127.0.0.1", 0), type("Served", (Site,), {"folder": forge.log_dir}))
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    served.server_close()


def test_a_log_is_followed_where_it_is_published(assay: Assay, forge: Forge, published: str, tmp_path: Path) -> None:
    ask = ("log", "watch", "--log-vkey", forge.logged.log.vkey.text, "--state", tmp_path / "state.json")
    first = assay(*ask, "--prefix", f"{published}/log/", "--json")
    assert first.code == 0, first.err
    assert (first.json()["size"], first.json()["size_before"]) == (2, None)
    forge.logged.log.append(
        Entry(kind="request", at="2026-01-02T03:05:00Z", commit="1" * 64, tag=parse(forge.logged.log.entries[0]).tag)
    )
    assert forge.log_dir.is_dir()  # writes what there is now
    grown = assay(*ask, "--prefix", f"{published}/log", "--json").json()
    assert (grown["size"], grown["size_before"], grown["open"]) == (3, 2, 1)
    forge.logged.log.cut(1)
    assert forge.log_dir.is_dir()
    gone = assay(*ask, "--prefix", f"{published}/log")
    assert gone.code == 1
    assert "went back" in gone.out + gone.err


@pytest.mark.parametrize(
    ("place", "code", "says"),
    [
        ("none", 2, "no file checkpoint"),
        ("moved", 2, "answered 302"),
        ("busy", 2, "answered 503"),
        ("long", 1, "more than"),
        ("short", 4, "broke off"),
    ],
)
def test_what_a_site_may_not_answer(
    assay: Assay, forge: Forge, published: str, tmp_path: Path, place: str, code: int, says: str
) -> None:
    ask = ("log", "watch", "--log-vkey", forge.logged.log.vkey.text, "--state", tmp_path / "state.json")
    ran = assay(*ask, "--prefix", f"{published}/{place}")
    assert ran.code == code, ran.err
    assert says in ran.out + ran.err


@pytest.mark.parametrize(
    ("prefix", "code", "says"),
    [
        ("http://log.assay.example/", 3, "by https"),
        ("ftp://127.0.0.1/", 3, "by https"),
        ("https://user:word@log.assay.example/", 3, "no user"),
        ("https://log.assay.example/?a=1", 3, "no user, query"),
        ("https://log.assay.example:99999/", 3, "no address"),
        ("https://[::1/", 3, "no address"),
        ("https:///log", 3, "no address"),
        ("http://127.0.0.1:1/log", 4, "nothing whole came"),
    ],
)
def test_addresses_that_are_not_read(
    assay: Assay, forge: Forge, tmp_path: Path, prefix: str, code: int, says: str
) -> None:
    ask = ("log", "watch", "--log-vkey", forge.logged.log.vkey.text, "--state", tmp_path / "state.json")
    ran = assay(*ask, "--prefix", prefix)
    assert ran.code == code, ran.err
    assert says in ran.out + ran.err
