"""One suite for every blob store: whoever implements the contract runs it."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.blobs import (
    EMPTY_SHA256,
    BlobFault,
    BlobMismatch,
    BlobMissing,
    BlobStore,
    LocalBlobs,
    MemoryBlobs,
    NoSpace,
)
from service.blobs.bucket import S3Settings
from service.blobs.s3 import PART, S3Blobs
from tests.service.plants.s3 import WHO, served

DATA = b"weights" * 1000
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(params=["local", "memory", "s3", "s3 in parts"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobStore]:
    if request.param == "memory":
        yield MemoryBlobs()
    elif request.param == "local":
        yield LocalBlobs(tmp_path / "blobs")
    else:
        with served() as bucket:
            settings = S3Settings(endpoint=bucket.address, bucket="bucket", credentials=WHO)
            yield S3Blobs(settings, tmp_path / "spool", part_bytes=PART if request.param == "s3" else 1000)


def test_bytes_and_file_come_back_as_they_went_in(store: BlobStore, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"x" * 3_000_000)
    other_digest = hashlib.sha256(other.read_bytes()).hexdigest()
    store.put(DATA, DIGEST)
    store.put(other, other_digest)
    with store.open(DIGEST) as file:
        assert file.read() == DATA
    assert store.path(other_digest).read_bytes() == other.read_bytes()
    assert store.size(DIGEST) == len(DATA)
    assert set(store.digests()) == {EMPTY_SHA256, DIGEST, other_digest}
    assert other.exists()


def test_putting_twice_changes_nothing(store: BlobStore) -> None:
    store.put(DATA, DIGEST)
    store.put(DATA, DIGEST)
    assert store.path(DIGEST).read_bytes() == DATA


@pytest.mark.parametrize("as_file", [False, True])
def test_wrong_bytes_are_refused_even_when_the_blob_is_there(store: BlobStore, tmp_path: Path, as_file: bool) -> None:
    store.put(DATA, DIGEST)
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"other")
    with pytest.raises(BlobMismatch, match="nothing was stored"):
        store.put(wrong if as_file else b"other", DIGEST)
    assert store.path(DIGEST).read_bytes() == DATA


def test_adopted_part_is_moved(store: BlobStore, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.write_bytes(DATA)
    store.adopt(part, DIGEST)
    assert not part.exists()
    assert store.path(DIGEST).read_bytes() == DATA


def test_absent_blob_is_missing_and_deleting_it_is_harmless(store: BlobStore) -> None:
    store.delete(DIGEST)
    assert store.size(DIGEST) is None
    with pytest.raises(BlobMissing):
        store.open(DIGEST)
    with pytest.raises(BlobMissing):
        store.path(DIGEST)


def test_deleted_blob_is_gone(store: BlobStore) -> None:
    store.put(DATA, DIGEST)
    store.path(DIGEST)
    store.delete(DIGEST)
    assert store.size(DIGEST) is None


def test_empty_blob_is_always_there(store: BlobStore) -> None:
    assert store.path(EMPTY_SHA256).read_bytes() == b""


@pytest.mark.parametrize("digest", ["", "..", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_no_other_text_becomes_a_path(store: BlobStore, digest: str) -> None:
    for act in (store.path, store.open, store.size, store.delete):
        with pytest.raises(ValueError, match="64 lower-case hex"):
            act(digest)
    with pytest.raises(ValueError, match="64 lower-case hex"):
        store.put(b"", digest)


def test_probe_of_a_working_store_is_silent(store: BlobStore) -> None:
    before = set(store.digests())
    store.probe()
    assert set(store.digests()) == before


def test_local_blob_is_read_only_and_lies_where_the_spec_says(tmp_path: Path) -> None:
    LocalBlobs(tmp_path).put(DATA, DIGEST)
    file = tmp_path / "sha256" / DIGEST[:2] / DIGEST[2:4] / DIGEST
    assert stat.S_IMODE(file.stat().st_mode) == 0o400


def test_refused_bytes_leave_nothing_behind(tmp_path: Path) -> None:
    store = LocalBlobs(tmp_path)
    with pytest.raises(BlobMismatch):
        store.put(b"other", DIGEST)
    assert not list((tmp_path / "incoming").iterdir())


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.ENOSPC, NoSpace), (errno.EDQUOT, NoSpace), (errno.EIO, BlobFault)]
)
def test_disk_errors_do_not_leak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Exception]
) -> None:
    store = LocalBlobs(tmp_path)

    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(expected):
        store.put(DATA, DIGEST)
    with pytest.raises(expected):
        store.probe()
    assert store.size(DIGEST) is None
    assert not list((tmp_path / "incoming").iterdir())


def test_part_from_another_file_system_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalBlobs(tmp_path / "blobs")
    part = tmp_path / "part"
    part.write_bytes(DATA)
    rename = Path.rename

    def across(self: Path, target: Path) -> Path:
        if self == part:
            raise OSError(errno.EXDEV, "cross-device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", across)
    store.adopt(part, DIGEST)
    assert store.path(DIGEST).read_bytes() == DATA
    assert not part.exists()
