"""A folder of blobs tells nobody, by the time it takes, what others have stored."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from service.blobs import EMPTY_SHA256, LocalBlobs

DATA = b"a small secret"
DIGEST = hashlib.sha256(DATA).hexdigest()


def _put(store: LocalBlobs, folder: Path) -> None:
    store.put(DATA, DIGEST)


def _put_file(store: LocalBlobs, folder: Path) -> None:
    (folder / "source").write_bytes(DATA)
    store.put(folder / "source", DIGEST)


def _adopt(store: LocalBlobs, folder: Path) -> None:
    (folder / "part").write_bytes(DATA)
    store.adopt(folder / "part", DIGEST)


WAYS = pytest.mark.parametrize("store_it", [_put, _put_file, _adopt])


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was synced, in order, by its kind; the one step of storing that takes milliseconds."""
    told: list[str] = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        told.append("folder" if path.is_dir() else "file")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    return told


@WAYS
def test_what_somebody_stored_before_takes_the_same_steps(
    tmp_path: Path, synced: list[str], store_it: Callable[[LocalBlobs, Path], None]
) -> None:
    store = LocalBlobs(tmp_path / "blobs")
    synced.clear()
    store_it(store, tmp_path)
    fresh = tuple(synced)
    synced.clear()
    store_it(store, tmp_path)
    assert tuple(synced) == fresh
    assert fresh.count("folder") == 3


@WAYS
def test_right_bytes_replace_rotten_ones(tmp_path: Path, store_it: Callable[[LocalBlobs, Path], None]) -> None:
    store = LocalBlobs(tmp_path / "blobs")
    store.put(DATA, DIGEST)
    stored = store.path(DIGEST)
    stored.chmod(0o600)
    stored.write_bytes(b"a rotten secret")
    store_it(store, tmp_path)
    assert store.path(DIGEST).read_bytes() == DATA


def test_who_reads_while_the_same_bytes_are_stored_again_reads_on(tmp_path: Path) -> None:
    store = LocalBlobs(tmp_path)
    store.put(DATA, DIGEST)
    with store.open(DIGEST) as file:
        store.put(DATA, DIGEST)
        assert file.read() == DATA


def test_opening_a_folder_that_has_blobs_writes_nothing(tmp_path: Path, synced: list[str]) -> None:
    LocalBlobs(tmp_path)
    synced.clear()
    assert LocalBlobs(tmp_path).size(EMPTY_SHA256) == 0
    assert synced == []
