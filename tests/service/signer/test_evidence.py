"""What the signer reads from a bucket is believed as little as what it reads from a disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from assay.manifest import FileEntry

from service.blobs.bucket import TRIES, S3Settings
from service.blobs.s3 import S3Blobs
from service.signer.evidence import Evidence
from service.signer.refusal import Refused
from tests.service.plants.s3 import WHO, Bucket, served

DATA = b'{"a":1}\n{"b":2}\n'
DIGEST = hashlib.sha256(DATA).hexdigest()
FILE = FileEntry(path="model.safetensors", sha256=DIGEST, size=len(DATA))


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with served() as made:
        made.objects[f"sha256/{DIGEST[:2]}/{DIGEST[2:4]}/{DIGEST}"] = DATA
        yield made


@pytest.fixture
def evidence(bucket: Bucket, tmp_path: Path) -> Evidence:
    settings = S3Settings(endpoint=bucket.address, bucket="bucket", credentials=WHO)
    return Evidence(S3Blobs(settings, tmp_path / "cache", sleep=lambda _seconds: None).open)


def readings(evidence: Evidence) -> Iterator[Refused]:
    """Read in each way; yield the refusals."""
    for read in (
        lambda: evidence.read(DIGEST, 100, "the record"),
        lambda: evidence.rows_of(DIGEST, "data"),
        lambda: evidence.weigh([FILE], {}),
    ):
        with pytest.raises(Refused) as refused:
            read()
        yield refused.value


def test_each_way_of_reading_reads_the_bucket(evidence: Evidence, bucket: Bucket) -> None:
    assert evidence.read(DIGEST, 100, "the record") == DATA
    assert evidence.rows_of(DIGEST, "data") == 2
    (weight,) = evidence.weigh([FILE], {}).values()
    assert weight[1] == len(DATA)
    assert not any(line.startswith(("PUT", "POST", "DELETE")) for line in bucket.log)


def test_a_bucket_that_is_away_is_asked_again_later(evidence: Evidence, bucket: Bucket) -> None:
    bucket.faults = [("GET", "drop")] * (3 * TRIES)
    for refused in readings(evidence):
        assert (refused.code, refused.retryable) == ("BLOB_MISSING", True)
        assert "cannot be read" in str(refused)


def test_other_bytes_in_the_bucket_are_signed_by_nobody(evidence: Evidence, bucket: Bucket) -> None:
    for key in bucket.objects:
        bucket.objects[key] = bytes(len(DATA))
    assert [refused.code for refused in readings(evidence)] == ["BLOB_CORRUPT"] * 3


def test_a_name_that_is_no_digest_is_asked_of_nobody(evidence: Evidence, bucket: Bucket) -> None:
    with pytest.raises(Refused, match="64 lower-case"):
        evidence.read("../" * 10, 100, "the record")
    assert bucket.log == []
