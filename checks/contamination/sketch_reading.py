"""Sketches made elsewhere, read strictly: what is not canonical, or is no sketch, is refused by its place (6.8)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from checks.check import Refusal
from checks.contamination.sketch import HIST_BINS, NEARNESS, SCHEMA, TIERS, Entry, ShardCount, Sketch, kept
from checks.role_rows import safe
from sandbox.reader import strict_json
from sandbox.reader.error import ReaderError

V = TypeVar("V")

SKETCH_CAP = 2**30
"""Bytes of a sketch: 16 entries of 200 bytes for each of 335 000 probes, 67 000 items with 4 siblings each (section 3).
A sketch of a service's cell is a quarter of it at most (`checks.sharding.PART_MAX`)."""

PLACE = re.compile(r"0|[1-9][0-9]{0,9}")
"""Probes, plants and bins are counted from 0."""

HEX64 = re.compile(r"[0-9a-f]{64}")
WINDOW_KEY = re.compile(r"[0-9a-f]{32}")
FIELDS = frozenset({"schema", "plan_sha256", "keep", "shards", "best", "plants", "tiers", "hist", "contexts"})
SHARD_FIELDS = frozenset(
    {"bytes", "docs", "words", "windows", "embedded", "bad", "other_language_words", "origin"},
)
KINDS = frozenset({"prose", "choice", "code"})


def read_sketch(data: bytes) -> Sketch:
    """Return the sketch of canonical bytes.

    Raises:
        Refusal: `sketch_invalid`, naming the field, or the offset at which the JSON is none.
    """
    try:
        told = strict_json.loads(data, cap=SKETCH_CAP)
    except ReaderError as error:
        raise _wrong(f"{error.code}:{error.at}" if error.at.startswith("offset:") else error.code) from None
    if not isinstance(told, dict) or told.keys() != FIELDS or told["schema"] != SCHEMA:
        raise _wrong("fields")
    keep = told["keep"]
    if not (_count(keep) and 4 <= keep <= 64):  # the range of `keep` in section 3
        raise _wrong("keep")
    sketch = Sketch(
        plan_sha256=_matching(told["plan_sha256"], HEX64, "plan_sha256"),
        keep=keep,
        shards=_map(told["shards"], "shards", HEX64, str, _shard),
        best=_map(told["best"], "best", PLACE, int, _entries),
        plants=_map(told["plants"], "plants", PLACE, int, _entries),
        tiers=_map(told["tiers"], "tiers", PLACE, int, _tier_counts),
        hist=_map(told["hist"], "hist", re.compile("|".join(sorted(KINDS))), str, _bins),
        contexts=_map(told["contexts"], "contexts", PLACE, int, _positive),
    )
    _check_entries(sketch)
    if sketch.to_bytes() != data:
        raise _wrong("not_canonical")
    return sketch


def _check_entries(sketch: Sketch) -> None:
    for name, told in (("best", sketch.best), ("plants", sketch.plants)):
        for place, entries in told.items():
            if kept(entries, sketch.keep) != entries:
                raise _wrong(f"{name}:{place}:order")
            if any(entry.shard not in sketch.shards for entry in entries):
                raise _wrong(f"{name}:{place}:shard")


def _wrong(what: str) -> Refusal:
    return Refusal("sketch_invalid", (f"sketch:{what}"[:128],))


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _positive(value: Any, at: str) -> int:
    if not _count(value) or not value:
        raise _wrong(at)
    return int(value)


def _matching(value: Any, pattern: re.Pattern[str], at: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise _wrong(at)
    return value


K = TypeVar("K", int, str)


def _map(
    value: Any, at: str, names: re.Pattern[str], key: Callable[[str], K], made: Callable[[Any, str], V]
) -> dict[K, V]:
    if not isinstance(value, dict):
        raise _wrong(at)
    read: dict[K, V] = {}
    for name, inner in value.items():
        _matching(name, names, f"{at}:{safe(name)}")
        read[key(name)] = made(inner, f"{at}:{name}")
    return read


def _shard(value: Any, at: str) -> ShardCount:
    if not isinstance(value, dict) or value.keys() != SHARD_FIELDS:
        raise _wrong(at)
    counts = {name: value[name] for name in SHARD_FIELDS - {"bad", "origin"}}
    if not all(map(_count, counts.values())) or value["origin"] not in ("observed", "declared"):
        raise _wrong(at)
    bad = _map(value["bad"], f"{at}:bad", re.compile("[a-z][a-z0-9_]{0,39}"), str, _positive)
    return ShardCount(**counts, bad=bad, origin=value["origin"])


def _entries(value: Any, at: str) -> tuple[Entry, ...]:
    if not isinstance(value, list) or not value:
        raise _wrong(at)
    return tuple(_entry(row, f"{at}:{number}") for number, row in enumerate(value))


def _entry(row: Any, at: str) -> Entry:
    if not isinstance(row, list) or len(row) != len(Entry._fields):
        raise _wrong(at)
    score, tier, window_key, copies, shard, doc, start, end, near = row
    if tier not in TIERS or near not in NEARNESS or not all(map(_count, (score, copies, doc, start, end))):
        raise _wrong(at)
    if not copies or end < start:
        raise _wrong(at)
    _matching(window_key, WINDOW_KEY, at)
    return Entry(score, tier, window_key, copies, _matching(shard, HEX64, at), doc, start, end, near)


def _tier_counts(value: Any, at: str) -> Mapping[str, int]:
    return _map(value, at, re.compile("|".join(TIERS)), str, _positive)


def _bins(value: Any, at: str) -> Mapping[int, int]:
    read = _map(value, at, PLACE, int, _positive)
    if any(place >= HIST_BINS for place in read):
        raise _wrong(at)
    return cast(Mapping[int, int], read)
