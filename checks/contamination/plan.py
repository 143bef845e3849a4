"""The plan of a scan, fixed before any shard is read: what is looked for, how, and in which shards (contamination, 5).

The scan is blind: probes stand in shuffled order without their role. Who is item, sibling or placebo is told by
`Plan.owners`, which a scan never reads and whose digest alone is in the plan's document.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from assay import canonical

from checks.contamination.items import Item, Kind
from checks.contamination.normaliser import NORMALISER, normalise
from checks.contamination.shards import READER, Shard

if TYPE_CHECKING:
    import numpy as np

SCHEMA = "assay-contamination-plan/v1"

PARTS = 10_000
"""Shares in the plan are integers of so many parts: canonical JSON holds no fractions."""

NAMED_MIN = 8
"""Tokens of the shortest question that is told by name, and of the shortest context that is searched for (9.3): of a
shorter one a match would tell what a corpus holds."""

Role = Literal["item", "sibling", "placebo"]


@dataclass(frozen=True)
class ScanParameters:
    """Parameters of section 3 that change what a scan finds; shares in parts of 10 000."""

    seed_ngram: int = 5
    near_lcs: int = 7_500
    near_overlap: int = 5_000
    cosine_floor: int = 5_000
    template_cosine: int = 8_000
    windows: tuple[int, ...] = (24, 48, 96, 192)
    """Words."""
    embed: Literal["all", "sample", "off"] = "all"
    sample_fraction: int = PARTS
    always_embed: tuple[str, ...] = ()
    coarse: Literal["fp32", "bf16"] = "fp32"
    keep: int = 16
    text_field: str = "text"
    languages: tuple[str, ...] = ("en",)
    max_bad_share: int = 10


@dataclass(frozen=True)
class PlanProbe:
    """A text that is searched for; whose it is, it does not say."""

    id: int
    """Place in the plan's shuffled order."""
    kind: Kind
    text: str
    """The question."""
    context: str | None
    choices: tuple[str, ...]
    answer: str | None
    language: str
    entry: str | None = None
    reference: str | None = None
    probes: tuple[tuple[Any, ...], ...] = ()

    def item(self) -> Item:
        """Return what the verifier compares; its names are the probe's number."""
        return Item(
            benchmark="probe",
            item=str(self.id),
            kind=self.kind,
            question=self.text,
            context=self.context,
            choices=self.choices,
            answer=self.answer,
            language=self.language,
            entry=self.entry,
            reference=self.reference,
            probes=self.probes,
        )


@dataclass(frozen=True)
class Owner:
    """Whose a probe is; identical questions have one probe and several owners."""

    probe: int
    role: Role
    benchmark: str
    item: str
    """Of a sibling: the item that it was made from."""
    number: int = 0
    """Of siblings: 1, 2, ..."""


@dataclass(frozen=True)
class Planted:
    """A rewrite that is put into a copy of a document (section 6.11)."""

    id: int
    probe: int
    text: str
    depth: int
    placement: str
    shard: int
    """Place of the host's shard in the plan."""
    at: int
    """Host: the first document at or after at / 2^32 of the shard's length."""


@dataclass(frozen=True)
class Plan:
    """Everything that a scan depends on."""

    parameters: ScanParameters
    probes: tuple[PlanProbe, ...]
    plants: tuple[Planted, ...]
    shards: tuple[Shard, ...]
    seed: int
    window_key: bytes
    """Key of the HMAC that names windows in sketches."""
    digests: Mapping[str, str]
    """Of the benchmark's bytes, the encoder's weights and tokenizer, and what else the scan depends on."""
    owners: tuple[Owner, ...] = field(default=())

    def document(self) -> bytes:
        """Return the canonical JSON of all that a scan reads; roles are in it as a digest alone."""
        return canonical.dumps(
            {
                "schema": SCHEMA,
                "normaliser": NORMALISER,
                "reader": READER,
                "parameters": _plain(self.parameters),
                "probes": [_plain(probe) for probe in self.probes],
                "plants": [_plain(plant) for plant in self.plants],
                "shards": [shard.digest for shard in self.shards],
                "seed": self.seed,
                "window_key": self.window_key.hex(),
                "digests": dict(self.digests),
                "owners_sha256": hashlib.sha256(canonical.dumps([_plain(one) for one in self.owners])).hexdigest(),
            }
        )

    @property
    def plan_sha256(self) -> str:
        """Return the digest that every sketch of this plan bears."""
        return hashlib.sha256(self.document()).hexdigest()

    def duplicates(self) -> tuple[tuple[str, ...], ...]:
        """Return the groups of items that ask an identical question, as "benchmark/item"."""
        groups: dict[int, list[str]] = {}
        for owner in self.owners:
            if owner.role == "item":
                groups.setdefault(owner.probe, []).append(f"{owner.benchmark}/{owner.item}")
        return tuple(sorted(tuple(names) for names in groups.values() if len(names) > 1))


def make_plan(
    items: Sequence[Item],
    *,
    siblings: Sequence[tuple[Item, Item]] = (),
    placebo: Sequence[Item] = (),
    plants: Sequence[Planted] = (),
    shards: Sequence[Shard] = (),
    parameters: ScanParameters | None = None,
    digests: Mapping[str, str] | None = None,
    seed: int = 0,
    window_key: bytes,
    rng: np.random.Generator,
) -> Plan:
    """Return the plan of a scan.

    Args:
        items: of all benchmarks.
        siblings: (item, the sibling as an item), in the order in which they were drawn.
        placebo: items that no corpus can hold.
        plants: by the probe's number in the order items, siblings, placebo; renumbered here like the probes.
        shards: of the corpus; empty where they are read outside and told by their sketches.
        parameters: what changes what a scan finds.
        digests: of what else it depends on.
        seed: of the audit.
        window_key: at least 16 random bytes.
        rng: the stream "ties"; shuffles the probes.

    Raises:
        ValueError: the key is too short.
    """
    if len(window_key) < 16:
        raise ValueError(f"a window key of {len(window_key)} bytes: at least 16 are needed")
    counts: dict[str, int] = {}
    told: list[tuple[Item, Role, Item, int]] = [(item, "item", item, 0) for item in items]
    for owner, probe in siblings:
        counts[owner.name] = counts.get(owner.name, 0) + 1
        told.append((probe, "sibling", owner, counts[owner.name]))
    told += [(item, "placebo", item, 0) for item in placebo]
    firsts: dict[object, int] = {}
    same = [firsts.setdefault(_asked(item), len(firsts)) for item, *_ in told]
    place = rng.permutation(len(firsts)).tolist()  # first number -> id
    by_id: dict[int, PlanProbe] = {}
    for number, (item, *_) in zip(same, told, strict=True):
        by_id.setdefault(place[number], _probe(place[number], item))
    owners = [
        Owner(place[number], role, owner.benchmark, owner.item, count)
        for number, (_, role, owner, count) in zip(same, told, strict=True)
    ]
    moved = [Planted(**{**_fields(plant), "probe": place[same[plant.probe]]}) for plant in plants]
    return Plan(
        parameters=parameters or ScanParameters(),
        probes=tuple(by_id[number] for number in range(len(by_id))),
        plants=tuple(moved),
        shards=tuple(shards),
        seed=seed,
        window_key=window_key,
        digests=dict(digests or {}),
        owners=tuple(owners),
    )


def _asked(item: Item) -> object:
    """Return what makes two questions identical: the same words, options and answer after the normaliser."""
    words = normalise(item.question).words
    return item.kind, words or item.question, item.choices, item.answer, item.context, item.reference


def _probe(number: int, item: Item) -> PlanProbe:
    return PlanProbe(
        id=number,
        kind=item.kind,
        text=item.question,
        context=item.context,
        choices=item.choices,
        answer=item.answer,
        language=item.language,
        entry=item.entry,
        reference=item.reference,
        probes=item.probes,
    )


def _fields(value: Any) -> dict[str, Any]:
    return {one.name: getattr(value, one.name) for one in fields(value)}


def _plain(value: Any) -> dict[str, Any]:
    """Return a value's fields for canonical JSON, which holds no fractions: arguments of code may, and go as text."""
    told = _fields(value)
    if "probes" in told:
        told["probes"] = repr(told["probes"])
    return told
