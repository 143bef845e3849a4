"""Inputs are verified once and never again resolved by a path that somebody else could change."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox import CellRefused, CodeMount, Input, Order, inputs


def test_held_inputs_are_hashed_once_and_mounted_by_several_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "weights"
    source.write_bytes(b"w" * 1000)
    one = Input(name="weights", source=source, sha256=hashlib.sha256(b"w" * 1000).hexdigest(), size=1000)
    order = Order(
        kind="check",
        module="program",
        code=(CodeMount(name="program.py", source=source),),
        inputs=(one,),
        request=b"{}",
        nonce="0" * 64,
    )
    with inputs.held([one], tmp_path, None) as kept:
        source.unlink()  # whoever has the name no longer matters
        monkeypatch.setattr(inputs, "_place", None)
        for _ in range(2):
            with inputs.prepared(order, tmp_path, None, kept) as ready:
                placed = ready.root / "in" / "weights"
                assert placed.read_bytes() == b"w" * 1000
                assert placed.stat().st_ino == (kept.root / "weights").stat().st_ino
                assert placed.stat().st_mode & 0o777 == 0o444
        other = replace(one, sha256="1" * 64)
        assert kept.path(other) is None
    assert [path.name for path in tmp_path.iterdir()] == []


def test_held_inputs_are_copied_where_no_link_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held on one file system, used on another: hashed once more, never refused."""
    source = tmp_path / "weights"
    source.write_bytes(b"w" * 1000)
    one = Input(name="weights", source=source, sha256=hashlib.sha256(b"w" * 1000).hexdigest(), size=1000)
    order = Order(
        kind="check", module="program", code=(), inputs=(one,), request=b"{}", nonce="0" * 64,
    )  # fmt: skip

    def elsewhere(*_paths: object, **_options: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    with inputs.held([one], tmp_path, None) as kept:
        monkeypatch.setattr(os, "link", elsewhere)
        with inputs.prepared(order, tmp_path, None, kept) as ready:
            assert (ready.root / "in" / "weights").read_bytes() == b"w" * 1000


def test_held_inputs_that_differ_from_their_digest_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(b"w")
    wrong = Input(name="weights", source=source, sha256="0" * 64, size=1)
    with pytest.raises(CellRefused, match="input_digest"), inputs.held([wrong], tmp_path, None):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]
