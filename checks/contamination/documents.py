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

Bad = Literal["no_text", "bad_utf8", "bad_json", "content_form"]
"""`content_form`: something of the record is in a form that is not read (a picture, a tool call, a list of lists); what
is text in it is scanned all the same."""

TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
"""Types of the parts of a message's content that hold nothing but their `text` (chat formats of the common APIs)."""

WHO = frozenset({"role", "name", "id", "content", "type"})
"""Fields of a message that hold no text of their own: one without content and with others says something else."""

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
        field: dotted path of the text; `messages` are read too, each as a paragraph behind it.
        bad: what is known to be wrong with it.
    """
    text, whole = _text(row, field)
    if text is None:
        return Record(number, None, "", "no_text" if whole else "content_form")
    if not text.isascii():
        decoded = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        if decoded != text:  # half of a surrogate pair, which only an escape can have brought in
            text, bad = decoded, "bad_utf8"
    source = row.get("source")
    return Record(number, text, source if isinstance(source, str) else "", bad if whole else "content_form")


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


def _text(row: Any, field: str) -> tuple[str | None, bool]:
    """Return what a row says, the text first and then its messages, and whether all of it is in a form that is read."""
    if not isinstance(row, Mapping):
        return None, True
    found: Any = row
    for name in field.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    # Each message is its own paragraph: no sentence runs from one speaker to the next.
    told = [found] if isinstance(found, str) else []
    whole = True
    messages = row.get("messages")
    if isinstance(messages, list):
        for one in messages:
            told_here, read = _message(one)
            told += told_here
            whole = whole and read
    elif messages is not None:
        whole = False
    texts = [text for text in told if text.strip()]
    if not texts:
        return None, whole
    return "\n\n".join(texts), whole and (found is None or isinstance(found, str) or field == "messages")


def _message(told: Any) -> tuple[list[str], bool]:
    """Return the texts of a message, and whether it holds nothing but texts."""
    if not isinstance(told, Mapping):
        return ([told], False) if isinstance(told, str) else ([], told is None)
    content = told.get("content")
    if isinstance(content, str) and content.strip():
        return [content], True
    if isinstance(content, list) and content:
        parts = [_part(one) for one in content]
        return [text for text, _ in parts if text is not None], all(read for _, read in parts)
    # Nothing was said, or it stands elsewhere: in a tool call, or under another name.
    elsewhere = any(value for name, value in told.items() if name not in WHO)
    return [], not elsewhere and (content is None or isinstance(content, (str, list)))


def _part(told: Any) -> tuple[str | None, bool]:
    if not isinstance(told, Mapping):
        return (told, False) if isinstance(told, str) else (None, False)
    text = told.get("text")
    if not isinstance(text, str):
        return None, False
    return text, told.get("type", "text") in TEXT_PARTS
