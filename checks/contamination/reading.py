"""Readers of shards: records in batches, never more than a batch in memory (contamination, 4, 5, 6.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from checks.contamination.documents import Bad, Record, parsed, record
from checks.contamination.shards import Shard, ShardFailed

BATCH = 8 * 2**20
"""Decoded bytes of a batch (6.3)."""

RECORD_MAX = 64 * 2**20
"""Decoded bytes of a record (section 4)."""

RATIO_MAX = 1000
"""Decoded bytes to stored ones (section 4): above, the file is a bomb."""

ROWS_MAX = 4096
"""Rows of a table's batch, where they are short."""

ROWS_PACKED = 64
"""Rows of a table's batch where a column is stored as a dictionary: how long they decode is not known beforehand, and
so many of the longest text that one piece is (10 million letters) still fit into a cell (our choice)."""


class _Stream(Protocol):
    def read(self, size: int) -> bytes: ...


def batches(shard: Shard, field: str = "text") -> Iterator[list[Record]]:
    """Yield the records of a shard in order, in batches of about 8 MB.

    Args:
        shard: what to read.
        field: dotted path of the text.

    Raises:
        ShardFailed: `truncated`, `unreadable`, `record_too_large` or `ratio`, with file and record. Records already
            yielded do not count then.
    """
    held: list[Record] = []
    size = 0
    for told in _records(shard, field):
        held.append(told)
        size += len(told.text or "")
        if size >= BATCH or len(held) >= ROWS_MAX:
            batch, held, size = held, [], 0
            yield batch
            del batch, told
    if held:
        yield held


def _records(shard: Shard, field: str) -> Iterator[Record]:
    try:
        if shard.file.format == "parquet":
            yield from _parquet(shard, field)
        elif shard.file.format == "arrow":
            yield from _arrow(shard, field)
        elif shard.file.format == "jsonl":
            with shard.file.path.open("rb") as stream:
                yield from _numbered(_ranged(stream, shard), field)
        else:
            compression = "gzip" if shard.file.format == "jsonl.gz" else "zstd"
            with pa.OSFile(str(shard.file.path)) as opened, pa.CompressedInputStream(opened, compression) as unpacked:
                yield from _numbered(_lines(_Checked(unpacked, shard), shard), field)
    except pa.ArrowException:
        raise ShardFailed("truncated", shard.file.name) from None
    except OSError as error:
        # What pyarrow says of a broken compressed stream is an OSError without a number of the system.
        raise ShardFailed("unreadable" if error.errno else "truncated", shard.file.name) from None


class _Checked:
    """A decompressed stream that fails where it grows beyond the ratio."""

    def __init__(self, stream: _Stream, shard: Shard) -> None:
        self._stream = stream
        self._shard = shard
        self._left = RATIO_MAX * shard.file.size

    def read(self, size: int) -> bytes:
        block = self._stream.read(size)
        self._left -= len(block)
        if self._left < 0:
            raise ShardFailed("ratio", self._shard.file.name)
        return block


def _numbered(lines: Iterator[bytes], field: str) -> Iterator[Record]:
    number = 0
    for line in lines:
        if line.strip():
            yield parsed(line, number, field)
            number += 1


def _ranged(stream: Any, shard: Shard) -> Iterator[bytes]:
    """Yield the lines whose first byte lies in the shard."""
    at = shard.begin
    if at:
        # A line begins at `begin` exactly where the byte before it ends one.
        stream.seek(at - 1)
        while True:
            piece = stream.readline(BATCH)
            at += len(piece)
            if not piece or piece.endswith(b"\n"):
                break
        at -= 1
    for line in _lines(stream, shard):
        if at >= shard.end:
            return
        at += len(line) + 1
        yield line


def _lines(stream: _Stream, shard: Shard) -> Iterator[bytes]:
    """Yield the lines of a stream without their ends, the last also where no newline ends it."""
    parts: list[bytes] = []
    held, number = 0, 0
    while block := stream.read(BATCH):
        first, *others = block.split(b"\n")
        parts.append(first)
        held += len(first)
        for other in others:
            _check_size(held, shard, number)
            yield b"".join(parts)
            parts, held, number = [other], len(other), number + 1
        _check_size(held, shard, number)
    if held:
        yield b"".join(parts)


def _check_size(size: int, shard: Shard, number: int) -> None:
    if size > RECORD_MAX:
        raise ShardFailed("record_too_large", f"{shard.file.name}:record:{number}")


def _parquet(shard: Shard, field: str) -> Iterator[Record]:
    with pq.ParquetFile(shard.file.path, pre_buffer=False) as opened:
        names = opened.schema_arrow.names
        columns = [
            name for name in dict.fromkeys((field.split(".", maxsplit=1)[0], "messages", "source")) if name in names
        ]
        table = _Table(shard, field)
        for group in range(shard.begin, shard.end):
            told = opened.metadata.row_group(group)
            packed = any("DICTIONARY" in e for c in range(told.num_columns) for e in told.column(c).encodings)
            most = ROWS_PACKED if packed else ROWS_MAX
            rows = max(1, min(most, told.num_rows * BATCH // max(told.total_byte_size, 1)))
            for batch in opened.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False):
                yield from table.rows(batch)


def _arrow(shard: Shard, field: str) -> Iterator[Record]:
    table = _Table(shard, field)
    with pa.OSFile(str(shard.file.path)) as opened:
        for batch in _record_batches(opened, shard):
            yield from table.rows(batch)


def _record_batches(opened: Any, shard: Shard) -> Iterator[Any]:
    try:
        table = pa.ipc.open_file(opened)
    except pa.ArrowInvalid:
        opened.seek(0)
        yield from pa.ipc.open_stream(opened)
        return
    for place in range(shard.begin, shard.end):
        yield table.get_batch(place)


class _Table:
    """Records of a table's batches; text is decoded here, since Parquet promises no valid UTF-8."""

    def __init__(self, shard: Shard, field: str) -> None:
        self._shard = shard
        self._field = field
        self._names = tuple(dict.fromkeys((field.split(".", maxsplit=1)[0], "messages", "source")))
        self._number = 0
        self._left = RATIO_MAX * shard.file.size

    def rows(self, batch: Any) -> Iterator[Record]:
        """Yield the records of the next batch."""
        names = batch.schema.names
        columns = {name: batch.column(names.index(name)) for name in self._names if name in names}
        for place in range(batch.num_rows):
            told = self._row(columns, place)
            size = len(told.text or "")
            _check_size(size, self._shard, self._number)
            # Counted as decoded: a dictionary of one text is small however often it is named.
            self._left -= size
            if self._left < 0:
                raise ShardFailed("ratio", f"{self._shard.file.name}:record:{self._number}")
            yield told
            self._number += 1

    def _row(self, columns: Mapping[str, Any], place: int) -> Record:
        bad: Bad | None = None
        row: dict[str, Any] = {}
        for name, column in columns.items():
            try:
                row[name] = _value(column[place])
            except UnicodeDecodeError:  # inside a nested value
                bad = "bad_utf8"
        for name, value in row.items():
            if isinstance(value, bytes):
                row[name] = value.decode("utf-8", "replace")
                if name == self._field and "\ufffd" in row[name] and row[name].encode() != value:
                    bad = "bad_utf8"
        return record(row, self._number, self._field, bad)


def _value(scalar: Any) -> Any:
    if pa.types.is_dictionary(scalar.type):
        scalar = scalar.value
    if pa.types.is_string(scalar.type) or pa.types.is_large_string(scalar.type):
        buffer = scalar.as_buffer()
        return None if buffer is None else buffer.to_pybytes()
    return scalar.as_py()
