"""Which tensors of a safetensors file the service has already, in files that were sent to it before.

A fine-tune with frozen layers has most of its bytes in its base. What this module remembers saves sending and decides
nothing: the service looks at its own grants and hashes the whole of what it composes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay import strict_json
from assay.errors import Malformed
from assay.preflight.weights import HEADER_MAX

TENSOR_MIN = 64 * 2**10
"""Smaller tensors travel with their neighbours: naming a piece costs about as much as sending a few kilobytes."""

TENSORS_MAX = 20_000
"""Tensors of one file that are remembered: more than any public architecture has in one file."""

FILES_MAX = 64
"""Files that are remembered for one service; the oldest notes are dropped."""

NOTE_MAX = 4 * 2**20
"""Bytes of one note: 20,000 tensors have about 2 MB."""

RANGE_MAX = 64 * 2**20
"""Bytes that one message may name; the service's limit."""

STEP = 2**20
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Span:
    """The bytes of one tensor in a file."""

    sha256: str
    offset: int
    length: int


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file that was sent before."""

    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Bytes of a new file that lie in an old one."""

    offset: int
    length: int
    source: Source
    source_offset: int


def spans(path: Path) -> tuple[Span, ...]:
    """Hash the larger tensors of a safetensors file; nothing for a file that is none, which others will refuse.

    Raises:
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(HEADER_MAX, size - 8):
            return ()
        try:
            table = strict_json.loads(file.read(length).rstrip(b" "), HEADER_MAX, depth=4)
        except Malformed:
            return ()
        places = _places(table, 8 + length, size)
        found = []
        for begin, end in places[:TENSORS_MAX]:
            digest = hashlib.sha256()
            file.seek(begin)
            for at in range(begin, end, STEP):
                digest.update(file.read(min(STEP, end - at)))
            found.append(Span(sha256=digest.hexdigest(), offset=begin, length=end - begin))
    return tuple(found)


def _places(table: Any, start: int, size: int) -> list[tuple[int, int]]:
    places = []
    for entry in table.values() if isinstance(table, dict) else ():
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if not (isinstance(offsets, list) and len(offsets) == 2 and all(type(one) is int for one in offsets)):
            continue
        begin, end = offsets
        if begin >= 0 and begin + TENSOR_MIN <= end <= size - start:
            places.append((start + begin, start + end))
    return sorted(places)


def plan(wanted: Sequence[Span], known: Mapping[Source, Sequence[Span]]) -> tuple[Piece, ...]:
    """Say which pieces of a new file lie in which old one, neighbours joined, in order, never overlapping."""
    places = {(span.sha256, span.length): (source, span.offset) for source, has in known.items() for span in has}
    pieces: list[Piece] = []
    end = 0
    for span in wanted:
        found = places.get((span.sha256, span.length))
        if found is None or span.offset < end:
            continue
        source, at = found
        end = span.offset + span.length
        if pieces and _goes_on(pieces[-1], span, source, at):
            last = pieces.pop()
            joined = last.length + span.length
            pieces.append(Piece(offset=last.offset, length=joined, source=source, source_offset=last.source_offset))
            continue
        pieces.append(Piece(offset=span.offset, length=span.length, source=source, source_offset=at))
    return tuple(pieces)


def _goes_on(last: Piece, span: Span, source: Source, at: int) -> bool:
    """Tell whether a tensor follows the piece before it, in both files."""
    ends = last.offset + last.length, last.source_offset + last.length
    return last.source == source and ends == (span.offset, at)


class KnownTensors:
    """Notes about files that were sent to one service, one small file each.

    Args:
        folder: the client's state folder.
        server: address of the service.
    """

    def __init__(self, folder: Path, server: str) -> None:
        self._folder = folder / "tensors" / hashlib.sha256(server.encode()).hexdigest()[:32]

    def read(self) -> dict[Source, tuple[Span, ...]]:
        """Return what is remembered; a damaged note is no note."""
        found: dict[Source, tuple[Span, ...]] = {}
        for file in self._files():
            try:
                if file.stat().st_size > NOTE_MAX:
                    continue
                note = json.loads(file.read_bytes())
                source = Source(sha256=_digest(note["sha256"]), size=int(note["size"]))
                found[source] = tuple(_span(row, source.size) for row in note["tensors"])
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return found

    def has(self, sha256: str) -> bool:
        """Tell whether a file is remembered."""
        return (self._folder / f"{sha256}.json").is_file()

    def note(self, source: Source, tensors: Iterable[Span]) -> None:
        """Remember a file that has arrived; where nothing can be written, nothing is remembered."""
        rows = [[one.sha256, one.offset, one.length] for one in tensors]
        if not rows:
            return
        text = json.dumps({"sha256": source.sha256, "size": source.size, "tensors": rows})
        file = self._folder / f"{source.sha256}.json"
        part = file.with_name(f"{file.name}.{os.getpid()}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            part.write_text(text)
            part.replace(file)
            for old in self._files()[FILES_MAX:]:
                old.unlink(missing_ok=True)
        except OSError:
            return

    def forget(self, source: Source) -> None:
        """Remove a note: the service no longer has the file."""
        try:
            (self._folder / f"{source.sha256}.json").unlink(missing_ok=True)
        except OSError:
            return

    def _files(self) -> list[Path]:
        """Return the notes, newest first."""
        try:
            dated = [(file.stat().st_mtime_ns, file) for file in self._folder.glob("*.json")]
        except OSError:
            return []
        return [file for _, file in sorted(dated, reverse=True)]


def _digest(text: Any) -> str:
    if not (isinstance(text, str) and _DIGEST.fullmatch(text)):
        raise ValueError("no digest")
    return text


def _span(row: Any, size: int) -> Span:
    sha256, offset, length = row
    if not (type(offset) is int and type(length) is int and offset >= 0 and 0 < length <= size - offset):
        raise ValueError("no span")
    return Span(sha256=_digest(sha256), offset=offset, length=length)
