"""What may be told of a match to somebody who does not own the corpus (contamination, 9.3).

A commitment lets the corpus's owner show later that a span is the one that was found, and tells nobody else what it
says. Reading spans back needs the corpus; without it, or without a key, there are counts only.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from checks.check import Refusal
from checks.contamination.reading import batches
from checks.contamination.shards import Shard
from checks.contamination.sketch import Entry

LABEL = b"assay-span/v1\n"
"""What the HMAC's message begins with: a key that is used elsewhere gives no commitment by accident."""

SOURCE_LABEL = b"assay-source/v1\n"
"""The same of a source's name."""

SOURCE_HEX = 32
"""Hexadecimal digits of a source's keyed hash: 16 bytes, as of a window in a sketch (6.8)."""

KEY_BYTES = 32
"""Bytes of the role `commitment_key` (section 4)."""

REVEAL_MAX = 2000
"""Characters of a match that may be revealed at most (section 3)."""

Evidence = Literal["none", "commit", "reveal"]
Place = tuple[str, int, int, int]
"""Shard digest, record, first byte, end byte."""

_MAIL = re.compile(r"[^\s@<>()\"',;:]{1,255}@[^\s@<>()\"',;:]{1,255}")
_DIGITS = re.compile(r"\+?\d[\d ()./-]{5,2000}\d")


def read_key(path: Path) -> bytes:
    """Return the commitment key of a file.

    Raises:
        Refusal: `key_invalid`: it cannot be read or has not 32 bytes.
    """
    try:
        key = path.read_bytes()
    except OSError:
        raise Refusal("key_invalid", ("commitment_key:unreadable",)) from None
    if len(key) != KEY_BYTES:
        raise Refusal("key_invalid", (f"commitment_key:bytes:{len(key)}",))
    return key


def key_digest(key: bytes) -> str:
    """Return what is told of a key."""
    return hashlib.sha256(key).hexdigest()


def commit(key: bytes, entry: Entry, span: bytes) -> str:
    """Return the commitment to a span: HMAC-SHA256 over shard, record, place and bytes.

    Args:
        key: of the corpus's owner.
        entry: the match.
        span: its bytes, as `spans` reads them.
    """
    place = f"{entry.shard}\n{entry.doc}\n{entry.start}\n{entry.end}\n".encode()
    return hmac.digest(key, LABEL + place + span, "sha256").hex()


def commit_source(key: bytes, source: str) -> str:
    """Return what is told of a source that the auditor has not named: names of a corpus are its owner's.

    Args:
        key: of the commitments.
        source: as the record says it.
    """
    named = source.encode("utf-8", "surrogatepass")
    return f"source:{hmac.digest(key, SOURCE_LABEL + named, 'sha256').hex()[:SOURCE_HEX]}"


@dataclass(frozen=True)
class Held:
    """What stands at a place of the corpus; read where the corpus lies, and told only as section 9.3 allows."""

    span: bytes
    source: str
    """The record's `source`, as it says it; empty without one."""


def held(entries: Iterable[Entry], shards: Sequence[Shard], field: str = "text") -> Mapping[Place, Held]:
    """Return what stands at matches, read from their shards; those of shards that are not at hand are left out.

    Args:
        entries: matches.
        shards: of the corpus, with readable files.
        field: dotted path of the text.

    Raises:
        ShardFailed: a shard cannot be read.
    """
    wanted: dict[str, dict[int, set[Place]]] = {}
    for one in entries:
        place = (one.shard, one.doc, one.start, one.end)
        wanted.setdefault(one.shard, {}).setdefault(one.doc, set()).add(place)
    found: dict[Place, Held] = {}
    for shard in shards:
        left = wanted.get(shard.digest, {})
        for batch in batches(shard, field) if left else ():
            for told in batch:
                data = (told.text or "").encode() if told.number in left else b""
                found.update(
                    (place, Held(data[place[2] : place[3]], told.source)) for place in left.get(told.number, ())
                )
            if batch and batch[-1].number >= max(left):
                break
    return found


def spans(entries: Iterable[Entry], shards: Sequence[Shard], field: str = "text") -> Mapping[Place, bytes]:
    """Return the bytes of matches, as `held` reads them."""
    return {place: one.span for place, one in held(entries, shards, field).items()}


def revealed(span: bytes, limit: int) -> str:
    """Return the beginning of a match with addresses and long numbers masked; only where the grant says `reveal`.

    Args:
        span: its bytes.
        limit: most characters that are told, `REVEAL_MAX` at most.
    """
    # Masked before it is cut: a number whose end is cut away would pass as a short one.
    text = span.decode("utf-8", "replace")
    text = _DIGITS.sub(_long_only, _MAIL.sub("[e-mail]", text))
    return "".join(letter if letter.isprintable() else " " for letter in text[: min(limit, REVEAL_MAX)])


def _long_only(found: re.Match[str]) -> str:
    """Mask what may be a phone number, seven digits or more; keep years and sums."""
    return "[number]" if sum(letter.isdigit() for letter in found.group()) >= _PHONE_DIGITS else found.group()


_PHONE_DIGITS = 7
"""Digits of the shortest telephone number that is masked: a subscriber's number without prefix."""
