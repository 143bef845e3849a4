"""What a record of a corpus says: its text, its source, and what was wrong with it (contamination, 4)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

LONGEST = 10_000_000
"""Characters of a text that is scanned in one piece (section 4)."""

OVERLAP = 400
"""Words that two pieces of a longer text share: more than twice the longest window (section 4)."""

OVERLAP_CAP = 20_000
"""Most characters of that overlap: text without spaces has no words. 50 a word is far above any language."""

Bad = Literal["no_text", "bad_utf8", "bad_json"]

_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Record:
    """One record as read."""

    number: int
    """Place in its shard, from 0."""
    text: str | None
    """None where it has none."""
    source: str
    """Of the record's `source`; empty where it has none."""
    bad: Bad | None
    """Why it counts as bad; a text with bad bytes is still scanned."""


@dataclass(frozen=True)
class Document:
    """A stretch of text that is scanned as a whole."""

    number: int
    """The record's place in its shard."""
    offset: int
    """Bytes of the record's text before this stretch."""
    text: str
    source: str


def parsed(line: bytes, number: int, field: str) -> Record:
    """Return the record of one line of JSON."""
    bad: Bad | None = None
    try:
        told = line.decode("utf-8")
    except UnicodeDecodeError:
        told, bad = line.decode("utf-8", "replace"), "bad_utf8"
    try:
        row = json.loads(told)
    except (ValueError, RecursionError):
        return Record(number, None, "", "bad_json")
    return record(row, number, field, bad)


def record(row: Any, number: int, field: str, bad: Bad | None = None) -> Record:
    """Return the record of a parsed row.

    Args:
        row: one value; anything but an object has no text.
        number: its place in the shard.
        field: dotted path of the text; where nothing is there, `messages` are looked for.
        bad: what is known to be wrong with it.
    """
    text = _text(row, field)
    if text is None:
        return Record(number, None, "", "no_text")
    if not text.isascii():
        whole = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        if whole != text:  # half of a surrogate pair, which only an escape can have brought in
            text, bad = whole, "bad_utf8"
    source = row.get("source")
    return Record(number, text, source if isinstance(source, str) else "", bad)


def documents(told: Record) -> Iterator[Document]:
    """Yield the stretches that a record is scanned in; none is lost, and two neighbours share 400 words."""
    text = told.text
    if text is None:
        return
    begin, offset = 0, 0
    while True:
        piece = text[begin : begin + LONGEST]
        yield Document(told.number, offset, piece, told.source)
        if begin + LONGEST >= len(text):
            return
        step = _overlap(piece)
        offset += len(piece[:step].encode())
        begin += step


def _overlap(piece: str) -> int:
    """Return where the last 400 words of a piece begin."""
    words = list(_WORD.finditer(piece, len(piece) - OVERLAP_CAP))
    return words[-OVERLAP].start() if len(words) >= OVERLAP else len(piece) - OVERLAP_CAP


def _text(row: Any, field: str) -> str | None:
    if not isinstance(row, Mapping):
        return None
    found: Any = row
    for name in field.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    if isinstance(found, str):
        return found if found.strip() else None
    messages = row.get("messages")
    if not isinstance(messages, list):
        return None
    contents = [one.get("content") for one in messages if isinstance(one, Mapping)]
    # Each message is its own paragraph: no sentence runs from one speaker to the next.
    joined = "\n\n".join(content for content in contents if isinstance(content, str))
    return joined if joined.strip() else None
