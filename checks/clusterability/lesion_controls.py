"""Controls of lesions: two nets in one must be found important and specialised, shuffled clusters must not be.

Both end up in `planted_lesions`, which the check asks before it measures anything else. Specification: section 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from assay.result import Measured, Metric

from checks.check import Evidence, Expected, ModelFacts, PromisedBand
from checks.clusterability.layers import Partitioned
from checks.clusterability.lesion import Lesions, clusters_of, drops_of, random_sets
from checks.clusterability.lesion_cases import by_site, produced
from checks.clusterability.lesion_kept import LesionData
from checks.clusterability.lesion_plants import planted_two_nets, shuffled_partition
from checks.clusterability.lesion_tests import ClusterTest, count
from checks.clusterability.lesion_units import NETWORK, Prepared
from checks.clusterability.lesioning import CONTROL_LESIONS, lesion_measured, remembered, scored_of
from checks.memory import InMemoryEvidence
from checks.quantise import metric

if TYPE_CHECKING:
    from checks.clusterability.lesion_units import LesionParameters

PLANT_SETS = 199
"""Random sets of each planted cluster, whatever the audit asks for: p can be .005, half of what the band allows."""

PLANT_LESIONS = 3 + 16 * (2 + PLANT_SETS) + CONTROL_LESIONS
"""Lesions that the plant may ask for: as many as sixteen clusters would, of which it has two."""

P_MAX, S_MIN, UNTOUCHED_MAX = 0.01, 0.95, 0.02
"""Bands of the planted nets (section 8)."""

CLUSTERS = ("0", "1")
"""Both planted nets, by their labels."""

DRAWS, LOW_MAX, LOW = 20, 5, 0.05
"""Shuffles, and how many of them may have a specialisation p that low (section 8)."""

SHUFFLED_CLUSTERS, SHUFFLED_SETS = 4, 59
"""Clusters whose members are shuffled at most, and random sets that the shuffles of one share: 256 lesions. With 59
p is at most .05 in 1 of 20 draws. Draws on the same sets are not independent: where nothing is wrong six of twenty are
that low in 6 of 10,000 runs with four clusters, 28 with one (200,000 simulated); 3 with sets for each draw."""

PLANT = "planted-two-nets"
"""Where the shuffle ran if the audit's own lesions could not carry it."""


@dataclass(frozen=True)
class PlantParameters:
    """Parameters under which the plant is measured, whatever the audit asks for; `LesionParameters`."""

    alpha: str = "0.05"
    k: str = "auto"
    families: str = "auto"
    layers: Literal["all"] = "all"
    lesion_nulls: str = "auto"
    lesion_layers: str = "best"


@dataclass(frozen=True)
class Shuffle:
    """What is shuffled: one partition of lesions that were measured."""

    part: Prepared
    data: LesionData
    lesions: Lesions
    tests: tuple[ClusterTest, ...]
    where: str
    """Name of the partition, or of the plant."""


@dataclass(frozen=True, kw_only=True)
class PlantedLesionFacts(ModelFacts):
    """Facts of a lesion control's evidence: the check measures nothing else of it."""

    partitions: tuple[Partitioned, ...] = ()
    """To be lesioned like any other."""
    shuffles: tuple[Shuffle, ...] = ()
    """Or to be shuffled."""


@dataclass(frozen=True)
class PlantedTwoNets:
    """Two random nets side by side, each with its own task, through the lesion pass and tests that audits take."""

    name: ClassVar[str] = "planted-two-nets"
    kind: ClassVar[Literal["positive"]] = "positive"

    @property
    def promises(self) -> Sequence[PromisedBand]:
        """Return the bands, the same for both clusters; each run states all of them."""
        bands = {
            "p_importance": (0.0, P_MAX),
            "p_specialisation": (0.0, P_MAX),
            "specialisation_s": (S_MIN, 1.0),
            "untouched_drop": (0.0, UNTOUCHED_MAX),
        }
        return tuple(
            PromisedBand(
                metric=name, low=low, high=high, always=True, labels={"partition": NETWORK, "cluster": cluster}
            )
            for name, (low, high) in bands.items()
            for cluster in CLUSTERS
        )

    def spoil(self, check: Any, seen: Evidence) -> Evidence:
        """Return evidence of the planted nets; the audited model takes no part."""
        return plant_evidence(check.name, seen)

    def bands(self, check: Any, measured: Measured) -> Sequence[Expected]:
        """Return the bands of both clusters; a number that is missing lies outside its band."""
        expected: list[Expected] = []
        for cluster in CLUSTERS:
            at = {"partition": NETWORK, "cluster": cluster}
            for name in ("p_importance", "p_specialisation"):
                p = _value(measured, name, at, 1.0)
                expected.append(Expected(metric=name, value=p, low=0.0, high=P_MAX, labels=at))
            s = _value(measured, "specialisation_s", at, 0.0)
            expected.append(Expected(metric="specialisation_s", value=s, low=S_MIN, high=1.0, labels=at))
            drops = [abs(_value(measured, "drop", {**at, "task": task}, 1.0)) for task in ("t0", "t1")]
            expected.append(Expected(metric="untouched_drop", value=min(drops), low=0.0, high=UNTOUCHED_MAX, labels=at))
        return expected


@dataclass(frozen=True)
class ShuffledPartition:
    """Clusters of the audited model with as many units of each layer and size, but random ones: none is specialised."""

    name: ClassVar[str] = "shuffled-partition"
    kind: ClassVar[Literal["null"]] = "null"

    @property
    def promises(self) -> Sequence[PromisedBand]:
        """Return the band of the count."""
        return (PromisedBand(metric="shuffled_specialised", low=0.0, high=LOW_MAX, always=True),)

    def spoil(self, check: Any, seen: Evidence) -> Evidence:
        """Return evidence whose clusters are shuffled: those that were just measured, else those of the plant."""
        shuffles, lesioned = _able(seen, None), seen.lesioned
        if not shuffles:
            plant = plant_evidence(check.name, seen)
            planted_lesions(check, plant)
            shuffles, lesioned = _able(plant, PLANT), plant.lesioned
        facts = PlantedLesionFacts(**_fields(seen.facts), shuffles=shuffles)
        return InMemoryEvidence(facts=facts, check=check.name, seed=_seed(seen), lesioned=lesioned)

    def bands(self, check: Any, measured: Measured) -> Sequence[Expected]:
        """Return the band of the count of shuffles that look specialised, and on what they were drawn."""
        low = [metric for metric in measured.named("p_specialisation") if float(metric.value) <= LOW]
        where = sorted({metric.labels["partition"] for metric in measured.named("p_specialisation")})
        labels = {"partition": "+".join(where)} if where else {}
        value = float(len(low)) if len(measured.named("p_specialisation")) == DRAWS else float(DRAWS)
        return (Expected(metric="shuffled_specialised", value=value, low=0.0, high=LOW_MAX, labels=labels),)


def planted_lesions(_check: LesionParameters, evidence: Evidence) -> Measured | None:
    """Return what a lesion control measures; None on every other evidence.

    The check asks this before it measures: such evidence has no matrix to test.
    """
    facts = evidence.facts
    if not isinstance(facts, PlantedLesionFacts):
        return None
    if facts.partitions:
        found = lesion_measured(PlantParameters(), evidence, facts.partitions, sets=PLANT_SETS)
        return Measured(metrics=found.metrics, skipped=found.skipped)
    chosen = _chosen(facts.shuffles)
    return Measured(
        metrics=tuple(
            one
            for number, (shuffle, cluster) in enumerate(chosen)
            for one in _shuffled(shuffle, cluster, range(number, DRAWS, len(chosen)), evidence)
        )
    )


def plant_evidence(check: str, seen: Evidence) -> InMemoryEvidence:
    """Return two nets in one as evidence, with the partition that was planted; lesions are those of real audits."""
    case, owner = planted_two_nets(seen.rng("lesion/planted-two-nets"))
    partition = Partitioned(NETWORK, by_site(case.net, owner))
    facts = PlantedLesionFacts(**_fields(seen.facts), partitions=(partition,))
    return produced(case, facts, check, _seed(seen), PLANT_LESIONS)


def _able(evidence: Evidence, where: str | None) -> tuple[Shuffle, ...]:
    """Return the partitions that were lesioned in this evidence and have a cluster to shuffle."""
    held = remembered(evidence)
    every = () if held is None else held.partitions
    found = (Shuffle(part, held.data, lesions, tests, where or part.name) for part, lesions, tests in every if held)
    return tuple(one for one in found if _chosen([one]))


def _chosen(shuffles: Sequence[Shuffle]) -> list[tuple[Shuffle, int]]:
    """Return the clusters to shuffle, the first of each partition first."""
    able = [(test.cluster, at) for at, one in enumerate(shuffles) for test in one.tests if test.null_gap is not None]
    return [(shuffles[at], cluster) for cluster, at in sorted(able)[:SHUFFLED_CLUSTERS]]


def _shuffled(one: Shuffle, cluster: int, draws: Sequence[int], evidence: Evidence) -> list[Metric]:
    """Return the p of specialisation of a cluster's shuffles, each among the same random sets of like units."""
    scored, rows = scored_of(one.part, one.data, evidence.lesioned), one.data.rows
    usable = ~np.array(one.lesions.at_chance)
    labels, strata = one.part.labels, one.part.units.strata(one.part.labels >= 0)
    rng = evidence.rng(f"lesion/shuffled/{one.part.name}/{cluster}")
    sets = random_sets(np.flatnonzero(labels == cluster), strata, SHUFFLED_SETS, rng)
    null = drops_of(scored, one.lesions.baseline, sets, rows)[:, usable]
    members = [clusters_of(shuffled_partition(labels, rng, strata))[cluster] for _ in draws]
    drops = drops_of(scored, one.lesions.baseline, members, rows)[:, usable]
    counted = [count("", drop, null, np.flatnonzero(usable)) for drop in drops]
    return [
        metric(
            "p_specialisation",
            found.p["specialisation"],
            n=SHUFFLED_SETS,
            unit="1",
            determinism="statistical",
            labels={"partition": one.where, "cluster": str(draw)},
        )
        for draw, found in zip(draws, counted, strict=True)
    ]


def _value(measured: Measured, name: str, labels: dict[str, str], absent: float) -> float:
    found = measured.find(name, **labels)
    return absent if found is None else float(found.value)


def _fields(facts: ModelFacts) -> dict[str, Any]:
    return {name: getattr(facts, name) for name in ModelFacts.__dataclass_fields__}


def _seed(seen: Evidence) -> int:
    return int(seen.rng("lesion/controls").integers(2**63))
