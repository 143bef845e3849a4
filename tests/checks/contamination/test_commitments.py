"""Commitments bind a place and its bytes, and tell nothing without the key."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest

from checks.check import Refusal
from checks.contamination.commitments import commit, key_digest, read_key, revealed, spans
from checks.contamination.shards import shards, stored
from checks.contamination.sketch import Entry
from tests.checks.contamination.audited import corpus_file

KEY = bytes(range(32))


def _entry(shard: str, doc: int, start: int, end: int) -> Entry:
    return Entry(50_000, "exact", "0" * 32, 1, shard, doc, start, end, "no")


def test_commitment_is_the_hmac_of_the_specification() -> None:
    entry = _entry("ab" * 32, 3, 10, 14)
    message = b"assay-span/v1\n" + b"ab" * 32 + b"\n3\n10\n14\n" + b"text"
    assert commit(KEY, entry, b"text") == hmac.new(KEY, message, hashlib.sha256).hexdigest()


def test_every_part_changes_the_commitment() -> None:
    entries = [_entry("ab" * 32, 3, 10, 14), _entry("ab" * 32, 31, 0, 14), _entry("ab" * 32, 3, 10, 15)]
    told = [commit(KEY, one, b"text") for one in entries]
    told += [commit(KEY, entries[0], b"texts"), commit(KEY[::-1], entries[0], b"text"),
             commit(KEY, _entry("ac" * 32, 3, 10, 14), b"text")]  # fmt: skip
    assert len(set(told)) == 6


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_length_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"x" * size)
    with pytest.raises(Refusal, match=f"commitment_key:bytes:{size}"):
        read_key(path)
    with pytest.raises(Refusal, match="unreadable"):
        read_key(tmp_path / "none")


def test_key_is_told_by_digest_only(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(KEY)
    assert read_key(path) == KEY
    assert key_digest(KEY) == hashlib.sha256(KEY).hexdigest()


def test_spans_are_read_back_by_record_and_byte(tmp_path: Path) -> None:
    path = corpus_file(tmp_path, ["first record", "über and über again", "third"])
    (shard,) = shards([stored(path)])
    wanted = [_entry(shard.digest, 1, 0, 5), _entry(shard.digest, 1, 10, 15), _entry("00" * 32, 0, 0, 3)]
    found = spans(wanted, [shard])
    assert found == {(shard.digest, 1, 0, 5): "über".encode(), (shard.digest, 1, 10, 15): "über".encode()}


def test_revealed_text_is_cut_and_masked() -> None:
    text = "Write to jo.doe+x@mail.example.org or call +44 20 7946 0958; in 1998 it cost 1200. Id 123456789 ends."
    told = revealed(text.encode(), 300)
    assert told == "Write to [e-mail] or call [number]; in 1998 it cost 1200. Id [number] ends."
    assert revealed(text.encode(), 10) == "Write to ["
    assert revealed(b"x" * 5000, 5000) == "x" * 2000
    # A number that the limit cuts is masked before it is cut.
    assert "12345" not in revealed(b"Id 1234567890123", 9)
    assert revealed(b"a\nb\x00c", 10) == "a b c"
