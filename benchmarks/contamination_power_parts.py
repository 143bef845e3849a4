"""What audits of `contamination_power` are put together from: documents that are scanned once, each a shard of its own.

A plan is a benchmark of word problems of the authored TEST families, with the parameters' defaults. Its documents are a
bank without leaks and, for each item, a light rewrite, a heavy one and a hard negative in hosts of their own. Planted
copies are scanned once a plan, in hosts of the whole bank, and are the same in all its audits.
"""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, reduce
from pathlib import Path

import numpy as np
from assay import canonical

from checks.contamination.encoder import Encoder
from checks.contamination.numbers import numbers
from checks.contamination.plan import Plan
from checks.contamination.planning import Prepared, Roles, prepare
from checks.contamination.scan import Scanner, scan
from checks.contamination.scan_planted import Copies
from checks.contamination.scan_sketching import Sketching
from checks.contamination.shards import Shard, Stored, stored
from checks.contamination.sketch import Entry, Sketch, merge
from checks.organisms import families
from checks.organisms.contamination_corpus import contaminated_corpus
from checks.organisms.families import Drawn, draws
from checks.organisms.families_reading import Family

SEED = 37
PLANS, ITEMS = 4, 160
BANK_WORDS, WORDS = 40_000, 8_000
"""Words of the documents that corpora are drawn from, and of a drawn corpus."""
HOST_WORDS = 60
"""Words of the longest document that a leak stands in."""
SEEDS = 8
"""Seeds of the conclusion; each draws the hard negatives anew, which takes a second (`authored.KEPT` of them stay)."""
HARD = ("template", "reworded_numbers")
"""Hard negatives that a corpus without leaks may hold: the item's template or a rewording of it, other values."""


class Varied(Plan):
    """A plan whose digest tells what differs among those made here: a whole one takes half a second for each shard."""

    @cached_property
    def plan_sha256(self) -> str:
        """Return the digest of shards, plants and seeds."""
        shards = [one.digest for one in self.shards]
        told = [self.seed, self.window_key.hex(), dict(self.digests), len(self.plants), shards]
        return hashlib.sha256(canonical.dumps(told)).hexdigest()


@dataclass(frozen=True)
class Part:
    """A document that is a shard of its own."""

    kind: str
    """bank, light, heavy, hard."""
    item: str
    """Whose version it holds; "" of the bank."""
    text: str


@dataclass(frozen=True)
class Scanned:
    """Everything that audits of one plan are put together from."""

    number: int
    prepared: Prepared
    """Its plants are hosted by the first shard, whichever an audit has there."""
    parts: tuple[Part, ...]
    sketches: tuple[Sketch, ...]
    """Of each part, without plants."""
    plants: Mapping[int, tuple[Entry, ...]]


def documents(number: int) -> tuple[tuple[Drawn, ...], tuple[Part, ...]]:
    """Return a plan's items, and its documents: the bank, and each item light, heavy and as a hard negative."""
    rng = np.random.default_rng([SEED, number])
    told, drawn = _items(rng)
    parts = [Part("bank", "", text) for text in _plain(told, BANK_WORDS, rng)]
    hosts = [text for text in _plain(told, BANK_WORDS, rng) if len(text.split()) <= HOST_WORDS]
    for at, one in enumerate(drawn):
        heavy = one.rewordings[int(rng.integers(len(one.rewordings)))].text
        how = HARD[int(rng.integers(len(HARD)))]
        hard = next(version.text for version in one.negatives if version.how == how)
        for kind, text in (("light", str(one.light)), ("heavy", heavy), ("hard", hard)):
            host = hosts[(3 * at + len(parts)) % len(hosts)]
            parts.append(Part(kind, one.item.name, _inside(host, text, rng)))
    return tuple(drawn), tuple(parts)


def _items(rng: np.random.Generator) -> tuple[list[Family], list[Drawn]]:
    told = [one for one in families.test() if one.kind == "words"]
    each = -(-ITEMS // len(told))
    held = [draws(one, rng, each) for one in told]
    return told, [some[turn] for turn in range(each) for some in held][:ITEMS]


def clean(told: Scanned) -> frozenset[str]:
    """Return the items whose hard negative asks what no item of the benchmark asks.

    Values are few in some families: another draw for one item may be the values of a second, and its text the second's
    question. So it is where it has the numbers, in order, of that item's question or of one of its rewordings.
    """
    _, drawn = _items(np.random.default_rng([SEED, told.number]))
    by = {one.item.name: one for one in drawn}
    asked = {
        (one.family, tuple(numbers(text)))
        for one in drawn
        for text in (one.item.question, *(version.text for version in one.rewordings))
    }
    found = []
    for part in told.parts:
        if part.kind == "hard":
            one, flat = by[part.item], " ".join(part.text.split())
            texts = [each.text for each in one.negatives if each.how in HARD and " ".join(each.text.split()) in flat]
            if all((one.family, tuple(numbers(text))) not in asked for text in texts):
                found.append(part.item)
    return frozenset(found)


def _plain(told: Sequence[Family], words: int, rng: np.random.Generator) -> list[str]:
    """Return the texts of a corpus without leaks."""
    made = contaminated_corpus(told, 0.0, rng, items=1, words=words, shards=1)
    return [str(json.loads(line)["text"]) for line in made.shards[0].splitlines()]


def _inside(host: str, text: str, rng: np.random.Generator) -> str:
    """Return a host with a text as its own paragraph, wrapped, or amid its words, by equal chances."""
    way = int(rng.integers(3))
    if way == 2:
        words = host.split()
        at = int(rng.integers(len(words) + 1))
        return " ".join((*words[:at], text, *words[at:]))
    paragraphs = host.split("\n\n")
    told = text if way == 0 else textwrap.fill(text, width=60)
    paragraphs.insert(int(rng.integers(len(paragraphs) + 1)), told)
    return "\n\n".join(paragraphs)


def scanned(number: int, encoder: Encoder, folder: Path) -> tuple[Scanned, Scanner]:
    """Return a plan's parts, each scanned once, and what they were scanned by."""
    drawn, parts = documents(number)
    items = tuple(one.item for one in drawn)
    cut = _cut([one.text for one in parts], folder / f"parts-{number}.jsonl")
    digests = {"benchmark": hashlib.sha256(repr(items).encode()).hexdigest(), "encoder": encoder.digest}
    made = prepare(Roles(items), cut, seed=1000 * (number + 1), digests=digests)
    varied = Varied(**{one.name: getattr(made.plan, one.name) for one in fields(Plan)})
    plain = replace(varied, plants=())
    hosted = replace(varied, plants=tuple(replace(one, shard=0) for one in varied.plants))
    scanner = Scanner(plain, encoder=encoder)
    sketches = tuple(scan(one, plain, scanner=scanner) for one in cut)
    copies = Copies(hosted, 0)
    for at, (part, sketch) in enumerate(zip(parts, sketches, strict=True)):
        if part.kind == "bank":
            copies.offer(at, part.text, next(iter(sketch.shards.values())).words)
    held = Sketching(cut[0], hosted, "observed")
    for place, found in enumerate(scanner.everything([(text, None) for text in copies.texts()])):
        held.planted(copies.plants[place].id, copies.touching(place, found.hits))
    return Scanned(number, replace(made, plan=hosted), parts, sketches, held.done().plants), scanner


def _cut(texts: Sequence[str], path: Path) -> tuple[Shard, ...]:
    """Write documents as lines of one file, and return each as a shard."""
    lines = [json.dumps({"text": text}).encode() + b"\n" for text in texts]
    path.write_bytes(b"".join(lines))
    file: Stored = stored(path)
    ends = np.cumsum([len(line) for line in lines]).tolist()
    return tuple(Shard(file, at, end - len(line), end) for at, (line, end) in enumerate(zip(lines, ends, strict=True)))


def whole_shard(texts: Sequence[str], path: Path) -> Shard:
    """Return documents as one shard."""
    cut = _cut(texts, path)
    return replace(cut[0], begin=0, end=cut[-1].end)


def corpus(
    told: Scanned, share: float, hard: int, apart: Collection[str], rng: np.random.Generator
) -> tuple[list[int], Mapping[str, str]]:
    """Return the parts of an audit's corpus, and how each item that leaked stands in it.

    Args:
        told: the plan's parts.
        share: of the items that leak, every other one lightly.
        hard: documents with a hard negative of an item that did not leak.
        apart: items whose hard negative may be taken.
        rng: draws bank, leaks and hard negatives.
    """
    bank = [at for at, one in enumerate(told.parts) if one.kind == "bank"]
    chosen, words = [], 0
    for at in rng.permutation(bank).tolist():
        if words >= WORDS:
            break
        chosen.append(at)
        words += len(told.parts[at].text.split())
    place = {(one.kind, one.item): at for at, one in enumerate(told.parts)}
    names = [told.prepared.facts[int(at)].name for at in rng.permutation(len(told.prepared.facts))]
    leaked = {name: ("light", "heavy")[at % 2] for at, name in enumerate(names[: round(share * len(names))])}
    chosen += [place[how, name] for name, how in leaked.items()]
    others = [name for name in names if name in apart and name not in leaked]
    chosen += [place["hard", name] for name in others[:hard]]
    return sorted(chosen), leaked


def seed_of(told: Scanned, draw: int) -> int:
    """Return the seed that an audit is concluded with."""
    return told.prepared.plan.seed + 1 + draw % SEEDS


def joined(told: Scanned, chosen: Sequence[int], draw: int) -> tuple[Sketch, Prepared]:
    """Return the sketch and the plan of an audit of some parts."""
    held = [told.sketches[at] for at in chosen]
    while len(held) > 1:
        held = [reduce(merge, held[at : at + 2]) for at in range(0, len(held), 2)]
    shards = tuple(told.prepared.plan.shards[at] for at in chosen)
    plan = replace(told.prepared.plan, shards=shards, seed=seed_of(told, draw))
    sketch = replace(held[0], plan_sha256=plan.plan_sha256, plants=told.plants)
    return sketch, replace(told.prepared, plan=plan)
