"""Blobs in a bucket: signatures that others would accept, and no half blob under a final name whatever fails."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.blobs import BlobDamaged, BlobFault, BlobMismatch, BlobMissing, BlobsAway, LocalBlobs, NoSpace
from service.blobs.bucket import TRIES, S3Settings
from service.blobs.s3 import S3Blobs
from service.blobs.signing import Credentials, authorization
from tests.service.plants.s3 import WHO, Bucket, served

SMALL = b"weights" * 100
LARGE = bytes(range(256)) * 100
"""Four parts of the store below, the last of them short."""
PART = 8000


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _key(data: bytes) -> str:
    name = _digest(data)
    return f"sha256/{name[:2]}/{name[2:4]}/{name}"


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with served() as made:
        yield made


@pytest.fixture
def store(bucket: Bucket, tmp_path: Path) -> S3Blobs:
    settings = S3Settings(endpoint=bucket.address, bucket="bucket", credentials=WHO, timeout_s=5)
    return S3Blobs(settings, tmp_path / "spool", part_bytes=PART, sleep=lambda _seconds: None)


EXAMPLE = Credentials(
    access_key="AKIAIOSFODNN7EXAMPLE", secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", region="us-east-1"
)
EMPTY = _digest(b"")


@pytest.mark.parametrize(
    ("method", "path", "query", "more", "payload", "signature"),
    [
        (
            "GET", "/test.txt", {}, {"range": "bytes=0-9"}, EMPTY,
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT", "/test$file.text", {},
            {"date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET", "/", {"lifecycle": ""}, {}, EMPTY,
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
    ],
)  # fmt: skip
def test_signatures_are_those_of_the_published_examples(
    method: str, path: str, query: dict[str, str], more: dict[str, str], payload: str, signature: str
) -> None:
    """The examples of Amazon's page about the Authorization header: the look-alike below cannot vouch for itself."""
    headers = {
        "host": "examplebucket.s3.amazonaws.com",
        "x-amz-date": "20130524T000000Z",
        "x-amz-content-sha256": payload,
        **more,
    }
    assert authorization(EXAMPLE, method, path, query, headers).endswith(f"Signature={signature}")


@pytest.mark.parametrize(
    "endpoint", ["http://store.example", "ftp://x", "https://", "https://u:p@store.example", "https://x/path", ""]
)
def test_endpoint_that_would_send_in_the_clear_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="https"):
        S3Settings(endpoint=endpoint, bucket="b", credentials=WHO)


def test_foreign_key_is_refused_and_stores_nothing(bucket: Bucket, tmp_path: Path) -> None:
    wrong = Credentials(access_key=WHO.access_key, secret_key="guessed", region=WHO.region)
    settings = S3Settings(endpoint=bucket.address, bucket="bucket", credentials=wrong)
    with pytest.raises(BlobFault, match="403"):
        S3Blobs(settings, tmp_path / "spool").put(SMALL, _digest(SMALL))
    assert bucket.objects == {}
    assert "guessed" not in repr(settings)


@pytest.mark.parametrize("data", [SMALL, LARGE])
def test_wrong_bytes_never_leave_the_spool(store: S3Blobs, bucket: Bucket, data: bytes) -> None:
    with pytest.raises(BlobMismatch, match="nothing was stored"):
        store.put(data, "0" * 64)
    assert (bucket.objects, bucket.uploads, bucket.log) == ({}, {}, [])


def test_part_that_changed_while_it_was_sent_is_aborted(store: S3Blobs, bucket: Bucket, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.write_bytes(LARGE)
    with pytest.raises(BlobMismatch):
        store.adopt(part, _digest(SMALL))
    assert (bucket.objects, bucket.uploads) == ({}, {})
    assert part.exists()


@pytest.mark.parametrize("fault", ["500", "drop"])
@pytest.mark.parametrize(("data", "where"), [(SMALL, "PUT"), (LARGE, "partNumber=2"), (LARGE, "POST")])
def test_passing_failure_is_tried_again(store: S3Blobs, bucket: Bucket, data: bytes, where: str, fault: str) -> None:
    bucket.faults = [(where, fault)] * (TRIES - 1)
    store.put(data, _digest(data))
    assert bucket.objects == {_key(data): data}
    assert bucket.uploads == {}


@pytest.mark.parametrize("fault", ["500", "drop"])
@pytest.mark.parametrize(("data", "where"), [(SMALL, "PUT"), (LARGE, "partNumber=2"), (LARGE, "POST")])
def test_lasting_failure_leaves_nothing(store: S3Blobs, bucket: Bucket, data: bytes, where: str, fault: str) -> None:
    bucket.faults = [(where, fault)] * TRIES
    with pytest.raises(BlobFault):
        store.put(data, _digest(data))
    assert (bucket.objects, bucket.uploads) == ({}, {})


@pytest.mark.parametrize(("where", "fault"), [("partNumber=1", "etag"), ("?uploadId", "late-error")])
def test_upload_that_cannot_be_completed_is_aborted(store: S3Blobs, bucket: Bucket, where: str, fault: str) -> None:
    """Also one whose completion answers 200 and tells of a failure in its body."""
    bucket.faults = [(where, fault)]
    with pytest.raises(BlobFault):
        store.put(LARGE, _digest(LARGE))
    assert (bucket.objects, bucket.uploads) == ({}, {})


def test_store_that_keeps_less_than_was_sent_is_a_fault(store: S3Blobs, bucket: Bucket) -> None:
    bucket.faults = [("PUT", "short")]
    with pytest.raises(BlobFault, match="699 bytes under a name of 700"):
        store.put(SMALL, _digest(SMALL))


def test_full_store_is_told_as_such(store: S3Blobs, bucket: Bucket) -> None:
    bucket.faults = [("PUT", "507")]
    with pytest.raises(NoSpace):
        store.put(SMALL, _digest(SMALL))


def test_right_bytes_replace_rotten_ones_in_the_bucket(store: S3Blobs, bucket: Bucket) -> None:
    """Also such of the same length, which nothing but their digest tells apart."""
    for data in (SMALL, LARGE):
        for stands in (data, bytes(len(data)), b"short"):
            bucket.objects[_key(data)] = stands
            store.put(data, _digest(data))
            assert bucket.objects[_key(data)] == data
    assert bucket.uploads == {}


def test_what_another_host_deleted_or_replaced_is_not_served_from_this_ones_cache(
    store: S3Blobs, bucket: Bucket, tmp_path: Path
) -> None:
    """A good copy must not vouch for a bucket that has none: a sweep would absolve what no other host can read."""
    store.put(SMALL, _digest(SMALL))
    cached = store.path(_digest(SMALL))
    bucket.objects[_key(SMALL)] = bytes(len(SMALL))
    with pytest.raises(BlobDamaged):
        store.open(_digest(SMALL))
    bucket.objects[_key(SMALL)] = SMALL
    assert store.path(_digest(SMALL)).read_bytes() == SMALL
    settings = S3Settings(endpoint=bucket.address, bucket="bucket", credentials=WHO)
    S3Blobs(settings, tmp_path / "other host").delete(_digest(SMALL))
    with pytest.raises(BlobMissing):
        store.path(_digest(SMALL))
    assert not cached.exists()


def test_cached_blob_is_fetched_once(store: S3Blobs, bucket: Bucket) -> None:
    store.put(SMALL, _digest(SMALL))
    for _ in range(3):
        store.open(_digest(SMALL)).close()
    assert sum(line.startswith("GET") for line in bucket.log) == 1


def test_uploads_that_a_killed_process_left_in_the_bucket_are_aborted(store: S3Blobs, bucket: Bucket) -> None:
    """They are charged for, for ever; younger ones may be another host's."""
    for name, key, year in (("old", _key(LARGE), 2026), ("other", "foreign/key", 2026), ("new", _key(LARGE), 2999)):
        bucket.uploads[name] = {1: b"x"}
        bucket.begun[name] = (key, f"{year}-01-01T00:00:00.000Z")
    store.put(LARGE, _digest(LARGE))
    assert set(bucket.uploads) == {"other", "new"}
    assert bucket.objects == {_key(LARGE): LARGE}


def test_body_that_is_cut_is_fetched_again_whole(store: S3Blobs, bucket: Bucket) -> None:
    store.put(LARGE, _digest(LARGE))
    bucket.faults = [("GET", "cut")]
    with store.open(_digest(LARGE)) as file:
        assert file.read() == LARGE


def test_other_bytes_under_a_name_are_never_served(store: S3Blobs, bucket: Bucket, tmp_path: Path) -> None:
    store.put(LARGE, _digest(LARGE))
    bucket.faults = [("GET", "flip")]
    with pytest.raises(BlobFault, match="other bytes"):
        store.open(_digest(LARGE))
    assert not list((tmp_path / "spool" / "outgoing").iterdir())
    assert store.path(_digest(LARGE)).read_bytes() == LARGE


def test_lists_have_pages_and_foreign_keys_are_no_blobs(store: S3Blobs, bucket: Bucket) -> None:
    blobs = [b"%d" % number for number in range(8)]
    for data in blobs:
        store.put(data, _digest(data))
    bucket.objects["sha256/zz/not-a-blob"] = b"x"
    assert set(store.digests()) == {EMPTY, *map(_digest, blobs)}


def test_cache_stays_within_its_size(bucket: Bucket, tmp_path: Path) -> None:
    settings = S3Settings(endpoint=bucket.address, bucket="bucket", credentials=WHO)
    store = S3Blobs(settings, tmp_path / "spool", cache_bytes=2500)
    blobs = [bytes([number]) * 1000 for number in range(6)]
    for data in blobs:
        store.put(data, _digest(data))
        assert store.path(_digest(data)).read_bytes() == data
    kept = sum(file.stat().st_size for file in (tmp_path / "spool" / "cache").rglob("*") if file.is_file())
    assert kept <= 2500
    assert store.path(_digest(blobs[0])).read_bytes() == blobs[0]


def test_full_spool_is_told_and_sends_nothing(store: S3Blobs, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(NoSpace):
            store.put(SMALL, _digest(SMALL))
    assert bucket.log == []


def test_store_that_cannot_be_reached_is_a_fault(tmp_path: Path) -> None:
    settings = S3Settings(endpoint="http://127.0.0.1:1", bucket="bucket", credentials=WHO)
    store = S3Blobs(settings, tmp_path / "spool", sleep=lambda _seconds: None)
    with pytest.raises(BlobFault):
        store.probe()
    with pytest.raises(BlobFault):
        store.open(_digest(SMALL))


def test_deleted_blob_is_gone_from_the_cache_too(store: S3Blobs) -> None:
    store.put(SMALL, _digest(SMALL))
    store.path(_digest(SMALL))
    store.delete(_digest(SMALL))
    with pytest.raises(BlobMissing):
        store.open(_digest(SMALL))


def test_a_rotten_copy_in_the_cache_is_fetched_anew(store: S3Blobs) -> None:
    """Else a worker would call good bytes of the bucket corrupt, and whoever sends them again would not heal it."""
    store.put(SMALL, _digest(SMALL))
    cached = store.path(_digest(SMALL))
    cached.chmod(0o600)
    cached.write_bytes(b"rotten!" * 100)
    with store.open(_digest(SMALL)) as file:
        assert file.read() == SMALL


def test_wrong_bytes_in_the_bucket_and_a_bucket_that_is_away_are_two_failures(store: S3Blobs, bucket: Bucket) -> None:
    bucket.objects[_key(SMALL)] = b"other"
    with pytest.raises(BlobDamaged):
        store.open(_digest(SMALL))
    for fault in ("drop", "500"):
        bucket.faults = [("GET", fault)] * TRIES
        with pytest.raises(BlobsAway):
            store.open(_digest(SMALL))


def test_a_bucket_that_refuses_is_not_away(bucket: Bucket, tmp_path: Path) -> None:
    stranger = Credentials(access_key="STRANGER", secret_key="x", region="nowhere-1")
    settings = S3Settings(endpoint=bucket.address, bucket="bucket", credentials=stranger)
    with pytest.raises(BlobFault) as refused:
        S3Blobs(settings, tmp_path / "spool").put(SMALL, _digest(SMALL))
    assert not isinstance(refused.value, BlobsAway)
    assert len(bucket.log) == 1, "asking again changes no refusal"


def test_what_a_killed_process_left_in_the_spool_goes_and_what_is_on_its_way_stays(
    bucket: Bucket, tmp_path: Path
) -> None:
    settings = S3Settings(endpoint=bucket.address, bucket="bucket", credentials=WHO)
    outgoing = tmp_path / "spool" / "outgoing"
    outgoing.mkdir(parents=True)
    for name, age_s in (("left", 2 * 86_400), ("sending", 60)):
        (outgoing / name).write_bytes(b"x")
        moment = (outgoing / name).stat().st_mtime - age_s
        os.utime(outgoing / name, (moment, moment))
    S3Blobs(settings, tmp_path / "spool")
    assert [path.name for path in outgoing.iterdir()] == ["sending"]


def test_a_blob_that_leaves_a_small_cache_at_once_is_read_all_the_same(
    store: S3Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread's fetch may take it away between any two steps; that it exists stays true."""
    store.put(SMALL, _digest(SMALL))
    real, leaving = LocalBlobs.adopt, [2]

    def evicted(self: LocalBlobs, part: Path, digest: str) -> None:
        real(self, part, digest)
        if leaving[0]:
            leaving[0] -= 1
            self.delete(digest)

    monkeypatch.setattr(LocalBlobs, "adopt", evicted)
    with store.open(_digest(SMALL)) as file:
        assert file.read() == SMALL
    assert store.path(_digest(SMALL)).read_bytes() == SMALL
    leaving[0] = 100
    store._cache.forget(_digest(SMALL))
    with pytest.raises(BlobFault, match="more room") as told:
        store.path(_digest(SMALL))
    assert not isinstance(told.value, BlobMissing)


def test_cache_makes_room_before_a_blob_comes_and_leaves_the_disk_its_floor(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = S3Settings(endpoint=bucket.address, bucket="bucket", credentials=WHO)
    store = S3Blobs(settings, tmp_path / "spool", cache_bytes=10**9, floor=lambda total: total // 10)
    blobs = [bytes([number]) * 1000 for number in range(4)]
    for data in blobs:
        store.put(data, _digest(data))

    def kept() -> int:
        return sum(file.stat().st_size for file in (tmp_path / "spool" / "cache").rglob("*") if file.is_file())

    # A disk of 20,000 bytes, 15,500 of them somebody else's: two blobs fit above its floor.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=20_000, free=20_000 - 15_500 - kept()))
    for data in blobs:
        assert store.path(_digest(data)).read_bytes() == data
        assert kept() <= 2500
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=20_000, free=1000))
    with pytest.raises(NoSpace, match="floor"):
        store.path(_digest(blobs[0]))


def test_two_prefixes_of_one_bucket_are_two_stores(bucket: Bucket, tmp_path: Path) -> None:
    one, two = (
        S3Blobs(S3Settings(endpoint=bucket.address, bucket="bucket", credentials=WHO, prefix=prefix), tmp_path / prefix)
        for prefix in ("a/", "b/")
    )
    one.put(SMALL, _digest(SMALL))
    assert two.size(_digest(SMALL)) is None
    assert [list(store.digests())[1:] for store in (one, two)] == [[_digest(SMALL)], []]
    one.probe()
    assert list(bucket.objects) == ["a/" + _key(SMALL)]
