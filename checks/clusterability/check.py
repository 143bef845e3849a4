"""The check `clusterability`: do weights split into groups that talk mostly among themselves, and do these matter?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from assay.result import ControlResult, D, Finding, Measured, Metric, Skipped
from pydantic import AfterValidator, Field

from checks.check import Check, DataRole, Evidence, MetricSpec, ModelFacts, ModelKind, Needs, Refusal, missed_controls
from checks.clusterability.asking import owed_of
from checks.clusterability.candidates import candidates_of
from checks.clusterability.controls import HeavyNoise, IidNoise, PlantedBlocks, RandomWeights
from checks.clusterability.families import FAMILIES_OF, Family
from checks.clusterability.findings import WORDS, Limits, findings
from checks.clusterability.lesion_controls import PlantedTwoNets, ShuffledPartition, planted_lesions
from checks.clusterability.lesion_findings import DETECTED, LESION_WORDS, LesionLimits, lesion_findings
from checks.clusterability.lesion_metrics import LESION_METRICS
from checks.clusterability.lesion_reasons import LESION_REASONS, TOO_MANY_CELLS
from checks.clusterability.lesion_rows import ROLE
from checks.clusterability.lesion_tables import PARTS_MOST
from checks.clusterability.lesioning import lesion_measured, lesion_needs
from checks.clusterability.metric_specs import METRICS
from checks.clusterability.norms import NOT_FOLDED, norms_left
from checks.clusterability.nulls import auto_ks
from checks.clusterability.partitions import partitions_of
from checks.clusterability.planted_graphs import PlantedGraphs, planted_agreement
from checks.clusterability.plots import plots
from checks.clusterability.testing import (
    NULLS_ASKED_LEAST,
    NULLS_LEAST,
    TESTS_MAX,
    Run,
    all_tests,
    structure_metrics,
)
from checks.parameters import Between, Layers, Numbers

__all__ = ["NULLS_LEAST", "TESTS_MAX", "Clusterability"]

POWER_DEPENDS_ON = ("k", "alpha", "min_excess_q", "min_stability", "min_cluster_share", "zero_share_dense", "nulls")
"""Parameters under whose defaults alone the committed powers were measured, one matrix at a time
(`benchmarks/clusterability_calibration.py`)."""


def _once(names: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(names)) != len(names):
        raise ValueError(f"{names} names one of them twice: name each once")
    return names


def _distinct(ks: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(_once(ks)))


Candidates = Annotated[
    tuple[Annotated[int, Field(ge=2, le=16)], ...],
    Field(strict=False, min_length=1, max_length=15),
    AfterValidator(_distinct),
]
"""Distinct numbers of clusters, kept sorted; their bounds stand in the catalogue, where the API reads them."""


class Clusterability(Check):
    """Spectral co-clustering of layers, MLPs, heads and nets against calibrated nulls, and lesions of clusters."""

    name: ClassVar[str] = "clusterability"
    version: ClassVar[str] = "1.0"
    source: ClassVar[str] = (
        "Golechha et al. (arXiv 2409.15747, 2502.02470); Filan et al. (2103.03386, 2110.08058); Barber 2007; "
        "Dhillon 2001"
    )
    controls: ClassVar[tuple[Any, ...]] = (
        PlantedBlocks(),
        IidNoise(),
        HeavyNoise(),
        RandomWeights(),
        PlantedGraphs(),
        PlantedTwoNets(),
        ShuffledPartition(),
    )
    data_roles: ClassVar[tuple[DataRole, ...]] = (
        DataRole(
            name=ROLE,
            required=False,
            media_type="application/jsonl",
            summary="Two tasks or more, 50 rows or more each: what lesions of a cluster spoil.",
        ),
    )
    metrics: ClassVar[tuple[MetricSpec, ...]] = (*METRICS, *LESION_METRICS)
    words: ClassVar[tuple[str, ...]] = tuple(dict.fromkeys((*WORDS, *LESION_WORDS)))
    reasons: ClassVar[tuple[str, ...]] = (
        "no_mlp",
        "layer_out_of_range",
        "too_many_matrices",
        "nothing_testable",
        "non_finite",
        "empty",
        "constant",
        "too_small",
        "too_large",
        "k_too_large",
        "no_attention",
        "no_linear",
        "no_conv",
        "no_network",
        NOT_FOLDED,
        *LESION_REASONS,
    )
    kinds: ClassVar[tuple[ModelKind, ...]] = ("transformer", "feedforward")

    layers: Layers = Field(
        default="all",
        description="Blocks, or linear and convolutional layers, whose matrices are tested, counted from 0.",
    )
    families: (
        Literal["auto"]
        | Annotated[tuple[Family, ...], Field(strict=False, min_length=1, max_length=7), AfterValidator(_once)]
    ) = Field(
        default="auto",
        description="What is tested. auto: of a transformer MLP matrices, products of neighbouring MLPs and the graph "
        "of attention heads; of a feed-forward model its linear and convolutional layers and the network as a whole.",
    )
    k: Literal["auto"] | Candidates = Field(
        default="auto",
        description="Candidate numbers of clusters, 2 to 16; auto: 2 to 16, up to an eighth of the side.",
    )
    alpha: Annotated[D, Between("0.001", "0.2")] = Field(default="0.05", description="Level after Holm correction.")
    min_excess_q: Annotated[D, Between("0", "0.5")] = Field(
        default="0.02", description="Floor of the modularity above the null's mean."
    )
    min_stability: Annotated[D, Between("0", "1")] = Field(
        default="0.7", description="Floor of the median agreement of partitions without a tenth of the nodes."
    )
    min_cluster_share: Annotated[D, Between("0", "0.5")] = Field(
        default="0.01", description="Smallest cluster, as a share of rows and columns."
    )
    zero_share_dense: Annotated[D, Between("0", "0.3")] = Field(
        default="0.2", description="Of a matrix with more exact zeros than this the pattern of zeros alone is tested."
    )
    nulls: Literal["auto"] | Annotated[int, Field(ge=NULLS_ASKED_LEAST, le=9999)] = Field(
        default="auto", description="Null replicates; auto: what is committed, or what Holm's correction needs."
    )

    comparable_views: Annotated[
        tuple[Literal["raw", "unit_in_norm"], ...], Field(strict=False, max_length=2), AfterValidator(_once)
    ] = Field(
        default=("raw", "unit_in_norm"),
        description="Views whose scores are told beside the balanced one's, to compare with other work.",
    )
    lesion_layers: Literal["best", "none"] | Numbers = Field(
        default="best",
        description="Blocks of a transformer whose MLP neurons are lesioned; best: that of the largest excess.",
    )
    lesion_nulls: Literal["auto"] | Annotated[int, Field(ge=99, le=9999)] = Field(
        default="auto", description="Random sets of units for each cluster; auto: what Holm's correction needs."
    )
    min_drop: Annotated[D, Between("0", "1")] = Field(
        default="0.05", description="Floor of the largest fall in a task's accuracy for importance."
    )
    min_gap: Annotated[D, Between("0", "1")] = Field(
        default="0.1", description="Floor of the gap between a cluster's task and the others for specialisation."
    )

    def needs(self, model: ModelFacts, data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Needs:
        """Ask for the tensors of the matrices, products, graph and net that are owed, and for lesions if rows came.

        Raises:
            Refusal: this model has none of the families, a layer does not exist, or too many matrices are asked.
        """
        owed = owed_of(self, model)
        if not owed.names and owed.absent:
            raise Refusal(owed.absent[0][1], tuple(f"{reason}:{family}" for family, reason in owed.absent))
        if len(owed.names) > TESTS_MAX:
            raise Refusal("too_many_matrices", (f"matrices:{len(owed.names)}", f"limit:{TESTS_MAX}"))
        lesions = lesion_needs(self, model, data.get(ROLE))
        return Needs(
            data_roles=(ROLE,),
            weights=tuple(dict.fromkeys((*owed.tensors, *lesions.weights))),
            trials=lesions.trials,
            units=lesions.units,
            lesions=lesions.lesions,
        )

    def measure(self, evidence: Evidence) -> Measured:
        """Test everything that can be tested; name what cannot.

        Raises:
            Refusal: `nothing_testable`, naming each matrix with its reason.
        """
        planted = planted_lesions(self, evidence)
        if planted is not None:
            return planted
        owed = owed_of(self, evidence.facts)
        found = candidates_of(self, owed, evidence)
        if not found.candidates and not found.chain and not found.heads:
            raise Refusal("nothing_testable", tuple(f"{one.reason}:{one.item}"[:128] for one in found.skipped))
        run = all_tests(self, found, evidence)
        lesions = lesion_measured(self, evidence, partitions_of(self, run, evidence.facts))
        drawn = plots(
            run.matrices,
            (run.graph,) if run.graph else (),
            run.network.found if run.network else None,
            network_stability=run.network.stability if run.network else None,
            limits=self.limits(),
        )
        clusters = sum(len(one.tests) for one in lesions.partitions)
        crowded = bool(clusters) and len(owed.names) + clusters > PARTS_MOST
        unseen = (Skipped(item="plots", reason=TOO_MANY_CELLS),) if crowded else ()
        return Measured(
            coverage={"matrix": owed.names, **lesions.coverage},
            metrics=(*self._told(run), *planted_agreement(run, evidence.facts), *lesions.metrics),
            plots=() if crowded else (*drawn, *lesions.plots),
            skipped=(*found.skipped, *run.skipped, *norms_left(evidence), *lesions.skipped, *unseen),
        )

    def _told(self, run: Run) -> tuple[Metric, ...]:
        """Return the metrics of structure; powers only where they were measured with these parameters."""
        left = () if self.as_measured() else ("power", "power_of_kind")
        return tuple(one for one in structure_metrics(run) if one.name not in left)

    def judge(self, real: Measured, controls: Sequence[ControlResult]) -> tuple[Finding, ...]:
        """Read the words off the numbers; a missed control makes every word that it gates inconclusive."""
        missed = missed_controls(self, controls)
        lesions = LesionLimits(alpha=float(self.alpha), min_drop=float(self.min_drop), min_gap=float(self.min_gap))
        feedforward = self.families != "auto" and not {*self.families} & {*FAMILIES_OF["transformer"]}
        structure = findings(real, self.limits(), missed, feedforward=feedforward)
        structured = {one.labels["matrix"] for one in structure if one.word == DETECTED and "matrix" in one.labels}
        return (*structure, *lesion_findings(real, lesions, missed, structured))

    def limits(self) -> Limits:
        """Return the thresholds as numbers."""
        return Limits(
            alpha=float(self.alpha),
            min_excess_q=float(self.min_excess_q),
            min_stability=float(self.min_stability),
            min_cluster_share=float(self.min_cluster_share),
            as_measured=self.as_measured(),
        )

    def as_measured(self) -> bool:
        """Return whether power was measured with these parameters: those that it depends on are the defaults."""
        defaults = type(self).model_fields
        return all(getattr(self, name) == defaults[name].default for name in POWER_DEPENDS_ON)

    def candidates(self, shape: tuple[int, int]) -> tuple[int, ...]:
        """Return the candidates of k at a shape: those asked for, at most half of the smaller side."""
        asked = auto_ks(shape) if self.k == "auto" else self.k
        return tuple(k for k in asked if k <= min(shape) // 2)
