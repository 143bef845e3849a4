"""How a corpus is cut into shards before any of it is read (contamination, 5)."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from assay import canonical

from checks.role_rows import safe
from checks.sharding import ShardFailed

Format = Literal["jsonl", "jsonl.gz", "jsonl.zst", "parquet", "arrow"]

SUFFIXES: tuple[tuple[str, Format], ...] = (
    (".jsonl", "jsonl"),
    (".jsonl.gz", "jsonl.gz"),
    (".json.gz", "jsonl.gz"),
    (".jsonl.zst", "jsonl.zst"),
    (".json.zst", "jsonl.zst"),
    (".parquet", "parquet"),
    (".arrow", "arrow"),
)
"""What a file's name says it is (section 4); nothing sniffs."""

TABLES = frozenset({"parquet", "arrow"})
"""Formats that are cut by row groups or record batches."""

READER = "r2"
"""Version of the readers in every shard's digest: two readers of a file make two shards. r2 reads parts of messages."""

SHARD_BYTES = 256 * 2**20
"""Stored bytes of a shard (section 5)."""

BLOCK = 2**20
"""Bytes hashed at a time."""


@dataclass(frozen=True)
class Stored:
    """One file of the role `corpus`."""

    path: Path
    name: str
    """As errors tell it."""
    format: Format
    size: int
    sha256: str


@dataclass(frozen=True)
class Shard:
    """A stretch of one file."""

    file: Stored
    ordinal: int
    """Place in the plan: equal files stay two shards."""
    begin: int
    """First byte of uncompressed JSONL, first row group of Parquet, first record batch of Arrow; else 0."""
    end: int
    """The one behind the last; of compressed JSONL the file's size."""
    units: int = 0
    """Row groups or record batches of the whole file; 0 of a file that has none."""

    @property
    def stored(self) -> int:
        """Return its stored bytes; of a table a share by row groups or batches: shards of a file add up to its size."""
        if self.file.format == "jsonl":
            return self.end - self.begin
        size, units = self.file.size, self.units
        return size * self.end // units - size * self.begin // units if units else size

    @property
    def digest(self) -> str:
        """Return the SHA-256 of what the shard is (section 5)."""
        told = {
            "ordinal": self.ordinal,
            "range": [self.begin, self.end],
            "sha256": self.file.sha256,
            "reader": READER,
        }
        return hashlib.sha256(canonical.dumps(told)).hexdigest()


def stored(path: Path, name: str | None = None, form: Format | None = None, sha256: str | None = None) -> Stored:
    """Return a file as it lies, hashed where its digest is not known.

    Raises:
        ShardFailed: `format` where neither `form` nor the name's ending is known; `unreadable`.
    """
    told = safe(name or path.name)
    form = form or next((known for suffix, known in SUFFIXES if (name or path.name).endswith(suffix)), None)
    if form is None:
        raise ShardFailed("format", told)
    try:
        return Stored(path, told, form, path.stat().st_size, sha256 or _sha256(path))
    except OSError:
        raise ShardFailed("unreadable", told) from None


def shards(files: Sequence[Stored], size: int = SHARD_BYTES) -> tuple[Shard, ...]:
    """Return the shards of a corpus, in the order of its files.

    Args:
        files: the corpus.
        size: most stored bytes of a shard, where its format can be cut.

    Raises:
        ShardFailed: a Parquet or Arrow file has no readable table of contents.
    """
    cut: list[Shard] = []
    for file in files:
        ranges = tuple(_ranges(file, size))
        units = ranges[-1][1] if file.format in TABLES else 0
        cut += [Shard(file, len(cut) + place, begin, end, units) for place, (begin, end) in enumerate(ranges)]
    return tuple(cut)


def _ranges(file: Stored, size: int) -> Iterator[tuple[int, int]]:
    if file.format == "jsonl":
        edges = [*range(0, file.size, size), file.size] if file.size else [0, 0]
        yield from itertools.pairwise(edges)
    elif file.format == "parquet":
        yield from _packed(_row_groups(file), size)
    elif file.format == "arrow":
        batches = record_batches(file)
        yield from _packed([file.size // max(batches, 1)] * batches, size)
    else:
        yield 0, file.size


def _packed(sizes: Sequence[int], limit: int) -> Iterator[tuple[int, int]]:
    begin, held = 0, 0
    for place, size in enumerate(sizes):
        if place > begin and held + size > limit:
            yield begin, place
            begin, held = place, 0
        held += size
    yield begin, len(sizes)


def _row_groups(file: Stored) -> list[int]:
    try:
        with pq.ParquetFile(file.path) as opened:
            told = opened.metadata
            groups = (told.row_group(group) for group in range(told.num_row_groups))
            return [sum(g.column(c).total_compressed_size for c in range(g.num_columns)) for g in groups]
    except (pa.ArrowException, OSError, ValueError):
        raise ShardFailed("truncated", file.name) from None


def record_batches(file: Stored) -> int:
    """Return the record batches of an Arrow file; a stream, which has no table of contents, counts as one.

    Raises:
        ShardFailed: it is neither.
    """
    try:
        with pa.OSFile(str(file.path)) as opened:
            try:
                return int(pa.ipc.open_file(opened).num_record_batches)
            except pa.ArrowInvalid:
                opened.seek(0)
                pa.ipc.open_stream(opened)
                return 1
    except (pa.ArrowException, OSError, ValueError):
        raise ShardFailed("truncated", file.name) from None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


__all__ = ["READER", "SHARD_BYTES", "Shard", "ShardFailed", "Stored", "record_batches", "shards", "stored"]
