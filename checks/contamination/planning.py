"""From rows of the data roles to a plan that a scan and a conclusion share (contamination, 5, 6.1, 6.11).

A plan's file holds two halves: what a scan reads, which tells no roles, and what only the conclusion reads (whose a
probe is, where a plant's wording comes from, the parameters of the conclusion). Everything random follows from the
seed: equal rows and equal corpus files give equal bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
from assay import canonical

from checks.check import Refusal
from checks.contamination import authored as families
from checks.contamination.code_mutations import code_siblings
from checks.contamination.items import Item, Kind, Placebo, Rewrite
from checks.contamination.normaliser import normalise
from checks.contamination.plan import PARTS, Plan, Planted, ScanParameters, make_plan
from checks.contamination.plants import Plant, draw_plants, expected_misses
from checks.contamination.shards import Shard
from checks.contamination.siblings import default_siblings, siblings
from checks.contamination.windows import bin_of
from checks.memory import generator

SEED_BITS = 53
"""Bits of a plan's seed: the largest integers that every JSON reader reads exactly."""

CHECK = "contamination"
"""Name that the random streams are drawn for."""

AUTHORED = "@authored"
"""Benchmark of the authored test families in a plan: no benchmark of an auditor can have a name with this sign."""

AT_STEPS = 2**32
"""Steps in which a plan tells a place in a shard (`Planted.at`)."""

EXACT_MIN = 5
"""Tokens of the shortest question that can be found (section 2, tier `exact`); shorter ones are uncalibrated."""


@dataclass(frozen=True)
class Asked:
    """Parameters of section 3 that change what is concluded and not what is found; shares in parts of 10 000."""

    gating_tiers: tuple[str, ...] = ("exact", "near", "semantic")
    q: int = 500
    siblings: int = 0
    """Per item; 0: by the number of items."""
    plant_share: int = 500
    near_power: int = 8_000
    semantic_power: int = 6_000
    evidence: Literal["none", "commit", "reveal"] = "commit"
    reveal_chars: int = 300


@dataclass(frozen=True)
class ItemFact:
    """What the conclusion knows of an item besides its scores."""

    benchmark: str
    item: str
    kind: Kind
    tokens: int
    template: str | None

    @property
    def name(self) -> str:
        """Return "benchmark/item"."""
        return f"{self.benchmark}/{self.item}"


@dataclass(frozen=True)
class Prepared:
    """A plan with what the conclusion needs of it."""

    plan: Plan
    asked: Asked
    facts: tuple[ItemFact, ...]
    """Of all items, in record order."""
    sources: tuple[str, ...]
    """Of each plant: automatic, rewrites, authored; or a kind that is not searched for."""


@dataclass(frozen=True)
class Roles:
    """Rows of the data roles, as read."""

    items: tuple[Item, ...]
    placebo: tuple[Placebo, ...] = ()
    rewrites: tuple[Rewrite, ...] = ()
    authored: tuple[tuple[Item, str], ...] | None = None
    """Items with a rewording by a person that are planted in every audit, beside the auditor's; None: of the authored
    test families. Without any, nothing is said of the tier `semantic`."""


def stream(seed: int, label: str) -> np.random.Generator:
    """Return the random stream of a label, as evidence draws it for this check."""
    return generator(seed, CHECK, label)


def prepare(
    roles: Roles,
    shards: Sequence[Shard],
    *,
    seed: int,
    asked: Asked | None = None,
    parameters: ScanParameters | None = None,
    digests: Mapping[str, str] | None = None,
) -> Prepared:
    """Return the plan of an audit of a corpus.

    Args:
        roles: items, placebos and rewordings.
        shards: of the corpus; no shard is read here.
        seed: of the audit, 0 to 2^53 - 1; all draws and the key of window names follow from it.
        asked: parameters of the conclusion.
        parameters: parameters of the scan.
        digests: of the benchmark's bytes and the encoder.

    Raises:
        Refusal: `empty_corpus`: there is no shard, or no byte in any.
    """
    asked = asked or Asked()
    if not shards or not sum(one.stored for one in shards):
        raise Refusal("empty_corpus", ("corpus:no_bytes",))
    items = roles.items
    parameters = parameters or ScanParameters()
    made = _siblings(items, asked.siblings or default_siblings(len(items)), stream(seed, "siblings"))
    unseen = [one.item for one in roles.placebo]
    facts = tuple(map(_fact, items))
    reworded = _authored(roles, facts, asked, parameters, seed)
    authored = [
        replace(item, benchmark=AUTHORED, item=f"{number}")  # unique whatever two families are called
        for number, (item, _) in enumerate(reworded)
    ]
    rewordings = [(item.name, text) for item, (_, text) in zip(authored, reworded, strict=True)]
    plants = _plants(roles, rewordings, shards, asked.plant_share / PARTS, stream(seed, "plants"))
    numbers = {item.name: number for number, item in enumerate(items)}
    first = len(items) + len(made) + len(unseen)
    numbers |= {item.name: first + number for number, item in enumerate(authored)}
    sources = tuple(one.source for one in plants)
    digest = {**(digests or {}), "conclusion": conclusion_digest(asked, facts, sources)}
    key = hashlib.sha256(f"assay-window-key/v1\n{seed}\n{digest.get('benchmark', '')}".encode()).digest()
    plan = make_plan(
        items,
        siblings=made,
        placebo=[*unseen, *authored],
        plants=[_planted(one, numbers[one.item], shards) for one in plants],
        shards=shards,
        parameters=parameters,
        digests=digest,
        seed=seed,
        window_key=key,
        rng=stream(seed, "ties"),
    )
    return Prepared(plan, asked, facts, sources)


def benchmark_digest(items: Sequence[Item]) -> str:
    """Return the SHA-256 of a benchmark's rows as read, however a file writes them."""
    rows = [{**asdict(one), "choices": list(one.choices), "probes": repr(one.probes)} for one in items]
    return hashlib.sha256(canonical.dumps(rows)).hexdigest()


def derived_seed(benchmark: str, shards: Sequence[Shard]) -> int:
    """Return the seed of a plan that is made where the corpus lies: nobody there may choose one that suits.

    Args:
        benchmark: digest of the benchmark.
        shards: of the corpus.
    """
    told = {"schema": "assay-contamination-seed/v1", "benchmark": benchmark, "shards": [one.digest for one in shards]}
    return int.from_bytes(hashlib.sha256(canonical.dumps(told)).digest()[:8], "big") >> (64 - SEED_BITS)


def conclusion_digest(asked: Asked, facts: Sequence[ItemFact], sources: Sequence[str]) -> str:
    """Return the SHA-256 of what only the conclusion reads: no level can be chosen after a scan was seen."""
    told = {"asked": asdict(asked), "facts": [asdict(one) for one in facts], "sources": list(sources)}
    return hashlib.sha256(canonical.dumps(told)).hexdigest()


def _siblings(items: Sequence[Item], k: int, rng: np.random.Generator) -> list[tuple[Item, Item]]:
    made = [(one.item, one.probe) for one in siblings(items, k, rng)]
    for item in items:
        if item.kind == "code" and item.language == "python":
            made += [(one.item, one.probe) for one in code_siblings(item, k, rng)]
    return made


def _authored(
    roles: Roles, facts: Sequence[ItemFact], asked: Asked, parameters: ScanParameters, seed: int
) -> Sequence[tuple[Item, str]]:
    """Return what a person reworded: where nothing is embedded or planted, no claim rests on it."""
    if parameters.embed == "off" or not asked.plant_share:
        return ()
    if roles.authored is not None:
        return roles.authored
    made: tuple[tuple[Item, str], ...] = ()
    if any(one.kind == "code" for one in facts):
        made = families.planted_code(stream(seed, "families:code"))
    if all(one.kind == "code" for one in facts):
        return made
    used = {bin_of(one.tokens, parameters.windows) for one in facts if one.kind != "code" and one.tokens}
    return (*families.planted(stream(seed, "families"), parameters.windows, used), *made)


def _plants(
    roles: Roles, rewordings: Sequence[tuple[str, str]], shards: Sequence[Shard], share: float, rng: np.random.Generator
) -> tuple[Plant, ...]:
    sizes = [one.stored for one in shards]
    prose = [item for item in roles.items if item.kind != "code"]
    known = {item.name for item in roles.items}
    rewrites = [one for one in roles.rewrites if f"{one.benchmark}/{one.item}" in known]
    plants = draw_plants(roles.items, rewrites, rewordings, sizes, share, rng)
    if not plants:
        return ()
    return (*plants, *expected_misses(prose, sizes, rng, len(plants)))


def _planted(one: Plant, probe: int, shards: Sequence[Shard]) -> Planted:
    at = min(one.offset * AT_STEPS // max(shards[one.shard].stored, 1), AT_STEPS - 1)
    return Planted(one.plant, probe, one.text, one.depth, one.placement, one.shard, at)


def _fact(item: Item) -> ItemFact:
    return ItemFact(item.benchmark, item.item, item.kind, len(normalise(item.question).words), item.template)
