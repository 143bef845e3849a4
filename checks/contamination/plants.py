"""Copies of items put into copies of documents, to measure which share a scan finds. Specification: section 6.11.

A planted copy is never a copy of the probe: it stands in a document of the corpus, or behind a heading, is read by the
same readers, and from depth 2 on it says the same in other words.
"""

from __future__ import annotations

import base64
import html
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.contamination.code_plants import code_rewrites
from checks.contamination.rewriter import DEEPEST, rewrite, tables
from checks.contamination.scan_code_probes import searchable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from checks.contamination.items import Item, Rewrite

PLACEMENTS = ("paragraph",) * 3 + ("alone",) * 2 + ("inline",) * 2 + ("wrapped", "json", "html")
"""Where copies stand, one entry a tenth (6.11)."""

ITEMS_MIN, ITEMS_MAX = 40, 400
"""Items that are planted (section 3): from 40 the lower bound of a full recall is .91, beyond 400 it hardly moves."""

HOST_WORDS = 50
"""Words of the shortest host (6.11): in a shorter one a copy would be the document."""

COPY_WORDS = 1000
"""Words of a host that are copied around the insertion (6.11): planting must not cost more than the scan."""

WRAP_WORDS = 8
"""Words of a hard-wrapped line (6.11)."""

MISSES = 5
"""Expected misses of each kind (6.11)."""

PLACES = 10_000
"""Steps in which a plant's place in its host is told: plans hold integers only."""

FENCE = "```"
"""Stands around code: such a text has a layout of its own."""

_SPACE = re.compile(r"\S+")
_ENDS = frozenset(".!?:;")


@dataclass(frozen=True)
class Plant:
    """One planted copy, as a plan holds it: integers and text only."""

    plant: int
    item: str
    """benchmark/item."""
    depth: int
    placement: str
    source: str
    """automatic, rewrites, authored; base64, reversed and french are expected to be missed."""
    text: str
    shard: int
    """Ordinal of the shard that holds the host."""
    offset: int
    """The host is the first document at or after this stored byte of the shard that has `HOST_WORDS` words."""
    place: int
    """Where in the host, of `PLACES`."""


@dataclass(frozen=True)
class PlantedDocument:
    """The document that is scanned, and the characters of it that were planted."""

    text: str
    begin: int
    end: int


@dataclass(frozen=True)
class _Copy:
    item: str
    depth: int
    source: str
    text: str
    whole: bool = False
    """Stands in a paragraph of its own: another layout would change it."""


def draw_plants(
    items: Sequence[Item],
    rewrites: Sequence[Rewrite],
    authored: Sequence[tuple[str, str]],
    shard_bytes: Sequence[int],
    share: float,
    rng: np.random.Generator,
) -> tuple[Plant, ...]:
    """Return what is planted where; nothing where the share is 0.

    The auditor's rewrites come first, all of them. Of a random share of items one is planted at depth 0 or 1, and a
    second one at depth 2-4 if one can be made: also beside rewrites, which are most often of depth 5 and say nothing of
    the tier `near`, and whose absence must not make a claim that their presence held back.

    Args:
        items: of all benchmarks.
        rewrites: the auditor's own.
        authored: (name, rewording) of the authored test families, planted at depth 5.
        shard_bytes: stored bytes of each shard; hosts are drawn by byte.
        share: parameter `plant_share`.
        rng: the plan's stream "plants".

    Raises:
        ValueError: there is no byte to plant in.
    """
    if not share:
        return ()
    chosen = _chosen(items, share, rng)
    code = {item.name for item in items if item.kind == "code"}
    named = [(f"{one.benchmark}/{one.item}", one) for one in rewrites]
    copies = [_Copy(name, one.depth, "rewrites", one.text, name in code) for name, one in named]
    copies += _automatic(chosen, rng)
    copies += [_Copy(name, 5, "authored", text, FENCE in text) for name, text in authored]
    return _placed(copies, shard_bytes, rng, 0)


def expected_misses(
    items: Sequence[Item], shard_bytes: Sequence[int], rng: np.random.Generator, first: int
) -> tuple[Plant, ...]:
    """Return copies that a scan does not search for: base64, words in reverse, machine-like French.

    Args:
        items: of all benchmarks.
        shard_bytes: as in `draw_plants`.
        rng: the plan's stream "plants", after `draw_plants`.
        first: number of the first of them.
    """
    copies = []
    for kind, made in (("base64", _in_base64), ("reversed", _reversed), ("french", _in_french)):
        for place in rng.permutation(len(items))[:MISSES]:
            item = items[int(place)]
            copies.append(_Copy(item.name, 0, kind, made(item.question), whole=True))
    return _placed(copies, shard_bytes, rng, first)


def planted_document(host: str, plant: Plant, around: int = COPY_WORDS) -> PlantedDocument:
    """Return a copy of a host, at most so many words of it around the insertion, with the plant in it.

    Args:
        host: the document; not read where the plant stands alone.
        plant: what is put in.
        around: words of the host, `COPY_WORDS` at most.
    """
    if plant.placement == "alone":
        heading = "Question: "
        return PlantedDocument(f"{heading}{plant.text}\n", len(heading), len(heading) + len(plant.text))
    words = list(_SPACE.finditer(host))
    place = plant.place * len(words) // PLACES
    if plant.placement == "inline":
        place = _mid_sentence(words, place)
    first = max(0, min(place - around // 2, len(words) - around))
    start, stop = (words[first].start(), words[min(len(words), first + around) - 1].end()) if words else (0, 0)
    cut = words[place].start() if words else 0
    before, after = host[start:cut].rstrip(), host[cut:stop]
    told, gap = encoded(plant.text, plant.placement), " " if plant.placement == "inline" else "\n\n"
    lead = before + gap if before else ""
    return PlantedDocument(f"{lead}{told}{gap}{after}", len(lead), len(lead) + len(told))


def encoded(text: str, placement: str) -> str:
    """Return a text as it stands in a document at a placement.

    Raises:
        ValueError: the placement is unknown.
    """
    if placement not in PLACEMENTS:
        raise ValueError(f"placement {placement!r} is unknown")
    if placement == "json":
        return json.dumps({"id": 1, "text": text})
    if placement == "html":
        return f"<div><p>{html.escape(text)}</p></div>"
    if placement == "wrapped":
        words = text.split()
        return "\n".join(" ".join(words[at : at + WRAP_WORDS]) for at in range(0, len(words), WRAP_WORDS))
    return " ".join(text.split()) if placement == "inline" else text


def _chosen(items: Sequence[Item], share: float, rng: np.random.Generator) -> list[Item]:
    count = min(len(items), max(ITEMS_MIN, min(ITEMS_MAX, round(share * len(items)))))
    return [items[int(place)] for place in rng.permutation(len(items))[:count]]


def _automatic(chosen: Iterable[Item], rng: np.random.Generator) -> list[_Copy]:
    copies = []
    for row, item in enumerate(chosen):
        if item.kind == "code":  # other white space is another program
            copies += _code_copies(item, row, rng)
            continue
        for depth in (row % 2, *_turned(row)):
            told = rewrite(item.question, depth, rng)
            if told is not None:
                copies.append(_Copy(item.name, depth, "automatic", told + _options(item)))
                if depth > 1:
                    break
    return copies


def _code_copies(item: Item, row: int, rng: np.random.Generator) -> list[_Copy]:
    """Return copies of a code item; none of one that no scan looks for."""
    if not searchable(item.language, item.entry, item.reference):
        return []
    made = code_rewrites(item, rng)
    depths = [row % 2 if row % 2 in made else 0]
    depths += [one for one in _turned(row) if one in made][:1]
    return [_Copy(item.name, depth, "automatic", made[depth], whole=True) for depth in depths]


def _turned(row: int) -> list[int]:
    """Return depths 2-4, another one first for each row: the first that can be made is planted."""
    deep = list(range(2, DEEPEST + 1))
    return deep[row % len(deep) :] + deep[: row % len(deep)]


def _options(item: Item) -> str:
    return "".join(f"\n{chr(ord('A') + row)}) {choice}" for row, choice in enumerate(item.choices))


def _placed(
    copies: Sequence[_Copy], shard_bytes: Sequence[int], rng: np.random.Generator, first: int
) -> tuple[Plant, ...]:
    """Return copies with their hosts: by byte over all shards, placements in their tenths within each depth."""
    ends = np.cumsum(np.asarray(shard_bytes, dtype=np.int64))
    if copies and (not len(ends) or ends[-1] <= 0):
        raise ValueError("there is no byte to plant in")
    decks: dict[tuple[str, int], list[str]] = {}
    told = []
    for row, copy in enumerate(copies):
        deck = decks.setdefault((copy.source, copy.depth), [])
        if not deck:
            deck += [PLACEMENTS[int(place)] for place in rng.permutation(len(PLACEMENTS))]
        byte = int(rng.integers(0, ends[-1]))
        shard = int(np.searchsorted(ends, byte, side="right"))
        offset = byte - int(ends[shard - 1] if shard else 0)
        placement = "paragraph" if copy.whole else deck.pop()
        place = int(rng.integers(0, PLACES))
        told.append(Plant(first + row, copy.item, copy.depth, placement, copy.source, copy.text, shard, offset, place))
    return tuple(told)


def _mid_sentence(words: Sequence[re.Match[str]], place: int) -> int:
    """Return the first place from here on, or the last before it, that stands between two words of one sentence."""
    for near in (*range(max(1, place), len(words)), *range(place - 1, 0, -1)):
        if words[near - 1].group()[-1] not in _ENDS:
            return int(near)
    return place


def _in_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")


def _reversed(text: str) -> str:
    return " ".join(reversed(text.split()))


def _in_french(text: str) -> str:
    table = tables()["french"]
    return re.sub(r"[A-Za-z]+", lambda found: str(table.get(found.group().casefold(), found.group())), text)
