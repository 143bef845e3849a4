"""`assay log watch`: a log is remembered, and one that takes something back is told, with the evidence kept."""

from __future__ import annotations

import json
from pathlib import Path

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
    url = assay("log", "watch", "--prefix", "https://log.assay.example/", *state, *vkey)
    assert url.code == 3
    assert "not built yet" in url.out + url.err
    assert assay("log", "watch", "--prefix", forge.log_dir, *state).code == 3
    assert assay("log", "watch", "--prefix", tmp_path / "gone", *state, *vkey).code == 2
    assert assay("log", "watch", "--prefix", forge.log_dir, *state, *vkey).code == 0
    other = Forge(tmp_path / "other", seed=9)
    stranger = ("--log-vkey", other.logged.log.vkey.text)
    assert assay("log", "watch", "--prefix", forge.log_dir, *state, *stranger).code == 1
    (tmp_path / "state.json").write_text(json.dumps({"schema": "other"}))
    assert assay("log", "watch", "--prefix", forge.log_dir, *state, *vkey).code == 2
