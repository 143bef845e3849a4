"""Every bad input of section 4 is counted or named, and no way of storing a corpus changes what is read."""

from __future__ import annotations

import gzip
import itertools
import json
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from checks.contamination import documents as reading_documents
from checks.contamination import reading
from checks.contamination.documents import Record, documents, parsed
from checks.contamination.reading import batches
from checks.contamination.shards import Shard, ShardFailed, shards, stored

CANARY = "zqcanary"
ROWS: list[dict[str, Any]] = [
    {"text": f"{CANARY} caf\u00e9 number {n} " + "word " * (n % 7), "source": "web" if n % 2 else "books"}
    for n in range(200)
]


def _jsonl(rows: Sequence[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue().to_pybytes())


def _parquet(rows: Sequence[Any], path: Path, group: int = 60) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=group)
    return path


def _arrow(rows: Sequence[Any], path: Path, stream: bool = False) -> Path:
    table = pa.Table.from_pylist(list(rows))
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with make(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=60)
    return path


def _file(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def _read(path: Path, size: int = 2**28, field: str = "text") -> list[Record]:
    return [told for shard in shards([stored(path)], size) for batch in batches(shard, field) for told in batch]


def _one(path: Path) -> Shard:
    (shard,) = shards([stored(path)])
    return shard


def _failure(path: Path) -> ShardFailed:
    with pytest.raises(ShardFailed) as told:
        _read(path)
    assert CANARY not in str(told.value)
    return told.value


@pytest.mark.parametrize(
    ("line", "bad", "text"),
    [
        (b'{"text": 5}', "no_text", None),
        (b'{"text": null}', "no_text", None),
        (b'{"text": " \\n"}', "no_text", None),
        (b'{"body": "x"}', "no_text", None),
        (b'["text"]', "no_text", None),
        (b'{"messages": [{"role": "user"}]}', "no_text", None),
        (b'{"text": "a"', "bad_json", None),
        (b"nonsense", "bad_json", None),
        (b"[" * 100_000, "bad_json", None),
        (b'{"n": ' + b"9" * 5000 + b', "text": "a"}', "bad_json", None),
        (b'{"text": "a\xffb"}', "bad_utf8", "a\ufffdb"),
        (b'{"text": "a\\ud800b"}', "bad_utf8", "a\ufffd\ufffd\ufffdb"),
        (b'{"text": "\\ud83d\\ude00"}', None, "\U0001f600"),
        (b'{"text": "a", "more": {"x": 1}}', None, "a"),
        (b'{"messages": [{"role": "user", "content": "a"}, {"content": "b"}]}', None, "a\n\nb"),
    ],
)
def test_bad_record_is_counted_and_bad_bytes_are_scanned(line: bytes, bad: str | None, text: str | None) -> None:
    told = parsed(line, 3, "text")
    assert (told.number, told.bad, told.text) == (3, bad, text)


@pytest.mark.parametrize(
    ("row", "bad", "text"),
    [
        ({"messages": [{"content": "s"}, {"content": [{"type": "text", "text": "LEAKED"}]}]}, None, "s\n\nLEAKED"),
        ({"text": "chat 17", "messages": [{"content": "LEAKED"}]}, None, "chat 17\n\nLEAKED"),
        ({"messages": [{"content": [{"type": "text", "text": "a"}, {"type": "image"}]}]}, "content_form", "a"),
        ({"messages": [{"content": [["a"], "b"]}, {"content": {"text": "c"}}]}, "content_form", "b"),
        ({"messages": [{"from": "human", "value": "LEAKED ITEM"}]}, "content_form", None),
        ({"messages": [{"content": "", "tool_calls": ["LEAKED"]}, {"content": "b"}]}, "content_form", "b"),
        ({"messages": [{"content": None, "tool_calls": None}, {"content": "b"}]}, None, "b"),
        ({"text": "a", "messages": "LEAKED ITEM"}, "content_form", "a"),
        ({"text": ["a"], "messages": [{"content": "b"}]}, "content_form", "b"),
    ],
)  # fmt: skip
def test_no_content_of_a_message_is_skipped_in_silence(row: dict[str, Any], bad: str | None, text: str | None) -> None:
    told = parsed(json.dumps(row).encode(), 0, "text")
    assert (told.bad, told.text) == (bad, text)


def test_parts_of_messages_are_read_from_tables_too(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": [{"type": "text", "text": f"item {n}"}]}]} for n in range(3)]
    for path in (_parquet(rows, tmp_path / "c.parquet"), _arrow(rows, tmp_path / "c.arrow")):
        assert [(one.text, one.bad) for one in _read(path)] == [(f"item {n}", None) for n in range(3)]


def test_bytes_of_a_table_are_counted_once_over_its_shards(tmp_path: Path) -> None:
    for path in (_parquet(ROWS, tmp_path / "c.parquet", group=30), _arrow(ROWS, tmp_path / "c.arrow")):
        cut = shards([stored(path)], 1)
        assert len(cut) > 3
        assert sum(one.stored for one in cut) == path.stat().st_size
        assert max(one.stored for one in cut) < path.stat().st_size / 2
    lines = _file(tmp_path, "c.jsonl", _jsonl(ROWS))
    assert sum(one.stored for one in shards([stored(lines)], 1000)) == lines.stat().st_size


def test_dotted_path_finds_the_text() -> None:
    assert parsed(b'{"a": {"b": "x"}, "text": "y"}', 0, "a.b").text == "x"
    assert parsed(b'{"a": "x"}', 0, "a.b").text is None


@pytest.mark.parametrize(
    ("name", "pack"), [("c.jsonl.gz", gzip.compress), ("c.json.gz", gzip.compress), ("c.jsonl.zst", _zstd)]
)
def test_truncated_stream_fails_by_name(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(_jsonl(ROWS))
    for cut in (1, len(packed) // 2, len(packed) - 3):
        told = _failure(_file(tmp_path, name, packed[:cut]))
        assert (told.reason, told.at) == ("truncated", name)


def test_truncated_tables_fail_by_name(tmp_path: Path) -> None:
    for made, name in ((_parquet, "c.parquet"), (_arrow, "c.arrow")):
        whole = made(ROWS, tmp_path / name).read_bytes()
        for cut in (10, len(whole) // 2, len(whole) - 5):
            told = _failure(_file(tmp_path, name, whole[:cut]))
            assert (told.reason, told.at) == ("truncated", name)


def test_broken_page_of_a_table_fails_by_name(tmp_path: Path) -> None:
    whole = bytearray(_parquet(ROWS, tmp_path / "c.parquet").read_bytes())
    whole[4:200] = b"\x00" * 196
    assert _failure(_file(tmp_path, "d.parquet", bytes(whole))).at.startswith("d.parquet")


def test_record_over_the_limit_fails_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "RECORD_MAX", 5000)
    rows = [*ROWS[:5], {"text": CANARY * 1000}, *ROWS[5:]]
    for path in (
        _file(tmp_path, "c.jsonl", _jsonl(rows)),
        _file(tmp_path, "c.jsonl.zst", _zstd(_jsonl(rows))),
        _parquet(rows, tmp_path / "c.parquet"),
        _arrow(rows, tmp_path / "c.arrow"),
    ):
        told = _failure(path)
        assert (told.reason, told.at) == ("record_too_large", f"{path.name}:record:5")


def test_bomb_fails_by_name(tmp_path: Path) -> None:
    bomb = _file(tmp_path, "c.jsonl.zst", _zstd(b'{"text": "' + b" " * 40_000_000 + b'a"}\n'))
    assert (_failure(bomb).reason, _failure(bomb).at) == ("ratio", "c.jsonl.zst")
    table = pa.table({"text": pa.array(["a" * 40_000] * 4000).dictionary_encode()})
    pq.write_table(table, tmp_path / "c.parquet", compression="zstd")
    told = _failure(tmp_path / "c.parquet")
    assert told.reason == "ratio"
    assert told.at.startswith("c.parquet:record:")


def test_unknown_format_and_missing_file_are_refused(tmp_path: Path) -> None:
    for name, reason in (("c.txt", "format"), ("c.jsonl", "unreadable"), ("a b\u00e9.csv", "format")):
        with pytest.raises(ShardFailed) as told:
            stored(tmp_path / name)
        assert told.value.reason == reason
        assert set(told.value.at) <= set("abcdefghijklmnopqrstuvwxyz._")


def test_bad_text_in_a_table_is_counted(tmp_path: Path) -> None:
    text = pa.array([b"good", b"b\xffd"]).view(pa.string())
    pq.write_table(pa.table({"text": text}), tmp_path / "c.parquet", store_schema=True)
    assert [(told.bad, told.text) for told in _read(tmp_path / "c.parquet")] == [
        (None, "good"),
        ("bad_utf8", "b\ufffdd"),
    ]


def test_every_format_reads_the_same_records(tmp_path: Path) -> None:
    plain = _jsonl(ROWS)
    halves = _jsonl(ROWS[:90]), _jsonl(ROWS[90:])
    whole = _read(_file(tmp_path, "a.jsonl", plain))
    assert [told.text for told in whole] == [row["text"] for row in ROWS]
    assert [told.number for told in whole] == list(range(200))
    for path in (
        _file(tmp_path, "b.jsonl", plain.removesuffix(b"\n").replace(b"\n", b"\r\n")),
        _file(tmp_path, "c.jsonl.gz", gzip.compress(plain)),
        _file(tmp_path, "d.jsonl.gz", b"".join(map(gzip.compress, halves))),  # concatenated frames
        _file(tmp_path, "e.jsonl.zst", b"".join(map(_zstd, halves))),
        _parquet(ROWS, tmp_path / "f.parquet"),
        _arrow(ROWS, tmp_path / "g.arrow"),
        _arrow(ROWS, tmp_path / "h.arrow", stream=True),
    ):
        assert _read(path) == whole, path.name


@pytest.mark.parametrize("size", [1, 13, 100, 1000, 5000])
def test_every_record_belongs_to_one_shard(tmp_path: Path, size: int) -> None:
    rows = ROWS[:40]
    for path in (_file(tmp_path, "a.jsonl", _jsonl(rows)), _parquet(rows, tmp_path / "b.parquet", group=7)):
        assert [told.text for told in _read(path, size)] == [row["text"] for row in rows]
    cut = _arrow(ROWS, tmp_path / "c.arrow")
    assert [told.text for told in _read(cut, size)] == [row["text"] for row in ROWS]


def test_equal_files_stay_two_shards(tmp_path: Path) -> None:
    path = _file(tmp_path, "a.jsonl", _jsonl(ROWS))
    one, two = shards([stored(path), stored(path)])
    assert one.digest != two.digest
    assert shards([stored(path)])[0].digest == one.digest


def test_empty_file_is_a_shard_without_records(tmp_path: Path) -> None:
    path = _file(tmp_path, "a.jsonl", b"")
    assert _read(path) == []
    assert len(shards([stored(path)])) == 1


def test_nested_text_of_a_table_is_read(tmp_path: Path) -> None:
    rows = [{"a": {"b": "x"}, "messages": [{"role": "u", "content": "y"}]}]
    path = _parquet(rows, tmp_path / "a.parquet")
    assert [told.text for told in _read(path, field="a.b")] == ["x\n\ny"]
    assert [told.text for told in _read(path)] == ["y"]


def test_long_text_is_split_and_never_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_documents, "LONGEST", 6000)
    for text in (" ".join(f"w\u00e9{n}" for n in range(4000)), "x" * 5999 + " y", "\u4f60" * 100_000):
        monkeypatch.setattr(reading_documents, "OVERLAP_CAP", 5000)
        pieces = list(documents(Record(0, text, "", None)))
        whole, rebuilt = text.encode(), b""
        for piece in pieces:
            assert whole[piece.offset : piece.offset + len(piece.text.encode())] == piece.text.encode()
            rebuilt = rebuilt[: piece.offset] + piece.text.encode()
        assert rebuilt == whole
        for before, after in itertools.pairwise(pieces):
            shared = whole[after.offset : before.offset + len(before.text.encode())].decode()
            assert len(shared.split()) == 400 or len(shared) == 5000


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch and the block that it is cut from, whatever the file: peak of Python's own memory, not the clock."""
    monkeypatch.setattr(reading, "BATCH", 2**16)
    peaks = []
    monkeypatch.setattr(reading, "ROWS_MAX", 100)
    for copies in (16, 64):
        shard = _one(_file(tmp_path, f"m{copies}.jsonl.gz", gzip.compress(_jsonl(ROWS * copies))))
        tracemalloc.start()
        for _ in batches(shard):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
