"""A fine-tune sends what changed; whatever is wrong with what is remembered costs bytes and never the upload."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from assay.client import AuditClient
from assay.remote import reuse
from assay.remote.reuse import RANGE_MAX, KnownTensors, Piece, Source, Span, plan, spans

from tests.client.fakes import Fake

MIB = 2**20


@pytest.fixture
def client(fake: Fake, tmp_path: Path) -> Iterator[AuditClient]:
    with AuditClient(fake.client_config(), state=tmp_path / "state", patience_s=5.0, timeout_s=10.0) as made:
        yield made


def _model(folder: Path, seeds: list[int], *, size: int = MIB, extra: bytes = b"") -> Path:
    """Write a model of random tensors, one a seed."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    header = {
        f"w{number}": {"dtype": "U8", "shape": [size], "data_offsets": [number * size, (number + 1) * size]}
        for number in range(len(seeds))
    }
    text = json.dumps(header).encode() + extra
    body = b"".join(random.Random(seed).randbytes(size) for seed in seeds)
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + body)
    return folder


def _stored(fake: Fake, model: Path) -> bool:
    data = (model / "model.safetensors").read_bytes()
    return fake.blobs.whole.get(hashlib.sha256(data).hexdigest()) == data


def test_fine_tune_with_one_changed_layer_sends_that_layer(fake: Fake, client: AuditClient, tmp_path: Path) -> None:
    client.upload_model(_model(tmp_path / "base", [1, 2, 3, 4]))
    tuned = _model(tmp_path / "tuned", [1, 2, 9, 4], extra=b"   ")
    sent = client.upload_model(tuned)
    assert _stored(fake, tuned)
    assert fake.blobs.copied == 3 * MIB
    assert MIB < sent.bytes_sent < MIB + 4096


def test_base_that_another_run_sent_is_remembered_when_it_is_found_there(fake: Fake, tmp_path: Path) -> None:
    base, tuned = _model(tmp_path / "base", [1, 2]), _model(tmp_path / "tuned", [1, 3])
    with AuditClient(fake.client_config(), state=tmp_path / "elsewhere") as first:
        first.upload_model(base)
    with AuditClient(fake.client_config(), state=tmp_path / "state") as second:
        second.upload_model(base)
        assert second.upload_model(tuned).bytes_sent < MIB + 4096
    assert _stored(fake, tuned)


@pytest.mark.parametrize("breaks", [[1000], [MIB + 4096]])
def test_broken_fine_tune_goes_on_inside_a_copied_piece(
    fake: Fake, client: AuditClient, tmp_path: Path, breaks: list[int]
) -> None:
    client.upload_model(_model(tmp_path / "base", [1, 2, 3, 4]))
    tuned = _model(tmp_path / "tuned", [9, 2, 8, 4])
    fake.blobs.breaks = breaks
    client.upload_model(tuned)
    assert _stored(fake, tuned)


def test_base_that_the_service_no_longer_has_is_forgotten_and_everything_sent(
    fake: Fake, client: AuditClient, tmp_path: Path
) -> None:
    base = client.upload_model(_model(tmp_path / "base", [1, 2]))
    fake.blobs.whole.pop(next(one.sha256 for one in base.files if one.path == "model.safetensors"))
    tuned = _model(tmp_path / "tuned", [1, 3])
    assert client.upload_model(tuned).bytes_sent > 2 * MIB
    assert _stored(fake, tuned)
    assert fake.blobs.copied == 0


def test_damaged_base_at_the_service_costs_a_second_sending(fake: Fake, client: AuditClient, tmp_path: Path) -> None:
    """The service hashes the whole, so that a wrong copy is a mismatch; the client then sends every byte."""
    base = client.upload_model(_model(tmp_path / "base", [1, 2]))
    sha256 = next(one.sha256 for one in base.files if one.path == "model.safetensors")
    fake.blobs.whole[sha256] = bytes(len(fake.blobs.whole[sha256]))
    tuned = _model(tmp_path / "tuned", [1, 3])
    client.upload_model(tuned)
    assert _stored(fake, tuned)


def test_lying_note_costs_bytes_and_never_the_upload(fake: Fake, client: AuditClient, tmp_path: Path) -> None:
    client.upload_model(_model(tmp_path / "base", [1, 2]))
    note = next((tmp_path / "state" / "tensors").rglob("*.json"))
    told = json.loads(note.read_text())
    told["tensors"] = [[one[0], 5, one[2]] for one in told["tensors"]]
    note.write_text(json.dumps(told))
    tuned = _model(tmp_path / "tuned", [1, 3])
    client.upload_model(tuned)
    assert _stored(fake, tuned)
    assert not note.exists()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"sha256":"..","size":1,"tensors":[]}', "null", '{"sha256":1,"size":"x","tensors":3}']
    + [json.dumps({"sha256": "a" * 64, "size": 10, "tensors": [row]}) for row in ([], ["a" * 64, 0, 11], ["b", 0, 1])],
)
def test_damaged_note_is_no_note(tmp_path: Path, text: str) -> None:
    known = KnownTensors(tmp_path, "host:1")
    source = Source(sha256="a" * 64, size=100)
    known.note(source, [Span(sha256="b" * 64, offset=0, length=100)])
    assert list(known.read()) == [source]
    next(tmp_path.rglob("*.json")).write_text(text)
    assert known.read() == {}


def test_notes_of_other_services_are_not_read_and_old_ones_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reuse, "FILES_MAX", 2)
    for number in range(4):
        source = Source(sha256=f"{number:064x}", size=10)
        KnownTensors(tmp_path, "host:1").note(source, [Span(sha256="b" * 64, offset=0, length=10)])
    assert len(KnownTensors(tmp_path, "host:1").read()) == 2
    assert KnownTensors(tmp_path, "host:2").read() == {}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        (2**63).to_bytes(8, "little") + b"x" * 100,
        (4).to_bytes(8, "little") + b"nope" + b"x" * 100,
        (2).to_bytes(8, "little") + b"[]" + b"x" * 100,
        (37).to_bytes(8, "little") + b'{"w":{"data_offsets":[0,99999999999]}}',
        (31).to_bytes(8, "little") + b'{"w":{"data_offsets":["0",[]]}}' + b"x" * 100,
    ],
)
def test_file_that_is_no_safetensors_has_no_tensors(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(data)
    assert spans(tmp_path / "x.safetensors") == ()


def test_neighbours_are_joined_and_overlaps_are_left_out() -> None:
    base = Source(sha256="f" * 64, size=1000)
    has = [Span(sha256=letter * 64, offset=at, length=100) for letter, at in (("a", 0), ("b", 100), ("c", 500))]
    wanted = [
        Span(sha256="a" * 64, offset=10, length=100),
        Span(sha256="a" * 64, offset=60, length=100),
        Span(sha256="b" * 64, offset=110, length=100),
        Span(sha256="c" * 64, offset=210, length=100),
    ]
    assert plan(wanted, {base: has}) == (
        Piece(offset=10, length=200, source=base, source_offset=0),
        Piece(offset=210, length=100, source=base, source_offset=500),
    )


def test_pieces_fit_the_services_limit() -> None:
    from service.api.copying import RANGE_MAX as SERVED

    assert RANGE_MAX <= SERVED
