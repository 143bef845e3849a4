"""Uploads resume, never send what is there, and end with a clear error when nothing moves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from assay.client import AuditClient
from assay.client_errors import LocalInputRefused, ServerRefused, Unreachable
from assay.remote import upload
from assay.remote.calls import Patience
from assay.remote.memory import UploadMemory, state_folder
from assay.remote.upload import Blob, Uploader

from tests.client.fakes import Fake
from tests.client.planted import write_model

MIB = 2**20


@pytest.fixture
def client(fake: Fake, tmp_path: Path) -> Iterator[AuditClient]:
    with AuditClient(fake.client_config(), state=tmp_path / "state", patience_s=5.0, timeout_s=10.0) as made:
        yield made


def test_every_file_arrives_and_nothing_is_sent_twice(fake: Fake, client: AuditClient, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", weights=2 * MIB + 17)
    told: list[tuple[int, int]] = []
    first = client.upload_model(model, progress=lambda done, total: told.append((done, total)))
    for file in first.files:
        assert fake.blobs.whole[file.sha256] == (model / file.path).read_bytes()
    assert first.manifest_sha256 in fake.blobs.whole
    assert first.bytes_sent == first.bytes_total
    assert told[-1] == (first.bytes_total, first.bytes_total)
    again = client.upload_model(model)
    assert (again.bytes_sent, again.manifest_sha256) == (0, first.manifest_sha256)


def test_a_broken_write_goes_on_at_the_committed_offset(fake: Fake, client: AuditClient, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", weights=6 * MIB)
    fake.blobs.breaks = [2 * MIB, MIB]
    sent = client.upload_model(model)
    assert fake.blobs.writes == [0, 2 * MIB, 3 * MIB]
    assert sent.bytes_sent >= sent.bytes_total
    weights = (model / "model.safetensors").read_bytes()
    assert fake.blobs.whole[hashlib.sha256(weights).hexdigest()] == weights


def test_a_killed_client_resumes_what_the_next_one_starts(fake: Fake, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", weights=6 * MIB)
    fake.blobs.breaks = [2 * MIB]
    state = tmp_path / "state"
    with AuditClient(fake.client_config(), state=state, patience_s=0) as first, pytest.raises(Unreachable):
        first.upload_model(model)
    with AuditClient(fake.client_config(), state=state) as second:
        second.upload_model(model)
    assert fake.blobs.writes == [0, 2 * MIB]
    assert not list((state / "uploads").iterdir())


def test_without_a_state_folder_the_upload_still_works(fake: Fake, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    model = write_model(tmp_path / "model", weights=2 * MIB)
    with AuditClient(fake.client_config(), state=blocked) as client:
        assert client.upload_model(model).bytes_sent > 2 * MIB


@pytest.mark.parametrize(("code", "reason"), [("ABORTED", "UPLOAD_BUSY"), ("FAILED_PRECONDITION", "OFFSET_MISMATCH")])
def test_what_the_service_asks_to_repeat_is_repeated(
    fake: Fake, client: AuditClient, tmp_path: Path, code: str, reason: str
) -> None:
    fake.blobs.refusals = [(code, reason)]
    client.upload_model(write_model(tmp_path / "model", weights=2 * MIB))
    assert len(fake.blobs.writes) == 2


def test_a_final_refusal_is_not_repeated(fake: Fake, client: AuditClient, tmp_path: Path) -> None:
    fake.blobs.refusals = [("RESOURCE_EXHAUSTED", "BLOB_TOO_LARGE")]
    with pytest.raises(ServerRefused, match="BLOB_TOO_LARGE"):
        client.upload_model(write_model(tmp_path / "model", weights=2 * MIB))
    assert len(fake.blobs.writes) == 1


def test_a_file_that_changes_between_hash_and_upload_is_named(client: AuditClient, tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"x" * 2 * MIB)
    blob = Blob(sha256=hashlib.sha256(b"y").hexdigest(), size=2 * MIB, source=file)
    memory = UploadMemory(tmp_path / "state", client.address)
    with pytest.raises(LocalInputRefused, match="weights"):
        Uploader(client._calls, memory).send([blob])


def test_a_file_that_becomes_shorter_is_named_and_not_retried(fake: Fake, client: AuditClient, tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"x" * MIB)
    blob = Blob(sha256=hashlib.sha256(b"y").hexdigest(), size=3 * MIB, source=file)
    with pytest.raises(LocalInputRefused, match="shorter"):
        Uploader(client._calls, UploadMemory(tmp_path / "state", client.address)).send([blob])


def test_many_small_blobs_are_asked_and_sent_in_parts(fake: Fake, client: AuditClient, tmp_path: Path) -> None:
    contents = [b"%d" % i for i in range(2100)] + [bytes([i]) * (MIB - 1) for i in range(4)]
    blobs = [Blob(sha256=hashlib.sha256(c).hexdigest(), size=len(c), source=c) for c in contents]
    uploader = Uploader(client._calls, UploadMemory(tmp_path / "state", client.address))
    uploader.send(blobs)
    assert fake.blobs.asked == [1000, 1000, 104]
    assert len(fake.blobs.whole) == len(blobs)
    assert not fake.blobs.writes


def test_backoff_resets_after_progress_and_patience_starts_at_the_first_break() -> None:
    now = 0.0
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        slept.append(seconds)

    patience = Patience(10.0, clock=lambda: now, sleep=sleep)
    now = 1000.0  # a long healthy transfer uses up nothing
    while patience.wait():
        pass
    assert 10.0 <= sum(slept) < 10.0 + 5.0
    assert slept[0] <= 0.1
    assert max(slept) <= 5.0
    patience.renew()
    assert patience.wait()
    assert slept[-1] <= 0.1


def test_a_note_of_another_kind_is_ignored(tmp_path: Path) -> None:
    memory = UploadMemory(tmp_path, "host:1")
    upload_id = memory.recall("0" * 64)
    assert memory.recall("0" * 64) == upload_id
    assert UploadMemory(tmp_path, "host:2").recall("0" * 64) != upload_id
    [file, _] = sorted((tmp_path / "uploads").iterdir())
    for damaged in (b"", b"[]", b'{"upload":7}', b'{"upload":"../../x"}', b"\xff"):
        for one in (tmp_path / "uploads").iterdir():
            one.write_bytes(damaged)
        assert memory.recall("0" * 64) != "../../x"
    assert file.parent.stat().st_mode & 0o077 == 0


def test_the_state_folder_follows_the_users_environment() -> None:
    assert state_folder({"XDG_STATE_HOME": "/s"}) == Path("/s/assay")
    assert state_folder({"HOME": "/h"}) == Path("/h/.local/state/assay")


def test_chunks_fit_the_services_message_limit() -> None:
    assert upload.CHUNK < 4 * MIB
    assert upload.BATCH_BYTES + 100 * upload.BATCH_BLOBS < 4 * MIB
