"""The check `clusterability`: do a model's MLP weights split into groups that talk mostly among themselves?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Annotated, Any, ClassVar, Literal

from assay.result import ControlResult, D, Finding, Measured, Skipped
from pydantic import AfterValidator, Field

from checks.check import Check, Evidence, MetricSpec, ModelFacts, Needs, Refusal, missed_controls
from checks.clusterability.controls import IidNoise, PlantedBlocks
from checks.clusterability.findings import WORDS, Limits, findings
from checks.clusterability.matrices import PlantedFacts, Unusable, Usable, examine, owed
from checks.clusterability.metrics import METRICS, Tested, metrics
from checks.clusterability.nulls import auto_ks, committed_n, null_table
from checks.clusterability.plots import plots
from checks.clusterability.structure import Structure, confirmation_null, stability, structure_test
from checks.holm import holm
from checks.parameters import Between, Layers, Numbers

MATRICES_MAX = 24
"""Matrices of one answer: beyond, the numbers would crowd the result document; ask for fewer layers."""

NULLS_LEAST = 199
"""Replicates computed at least (4.5)."""


def _candidates(ks: tuple[int, ...]) -> tuple[int, ...]:
    if not all(2 <= k <= 16 for k in ks):
        raise ValueError("k lies in 2..16")
    return ks


class Clusterability(Check):
    """Spectral co-clustering of MLP matrices against a shape-keyed null; weights only, structure only."""

    name: ClassVar[str] = "clusterability"
    version: ClassVar[str] = "0.1"
    source: ClassVar[str] = (
        "Golechha et al. (arXiv 2409.15747, 2502.02470); Filan et al. (2103.03386, 2110.08058); Barber 2007; "
        "Dhillon 2001"
    )
    controls: ClassVar[tuple[Any, ...]] = (PlantedBlocks(), IidNoise())
    metrics: ClassVar[tuple[MetricSpec, ...]] = METRICS
    words: ClassVar[tuple[str, ...]] = WORDS
    reasons: ClassVar[tuple[str, ...]] = (
        "no_mlp",
        "layer_out_of_range",
        "too_many_matrices",
        "nothing_testable",
        "non_finite",
        "empty",
        "too_small",
        "too_large",
        "too_many_zeros",
        "k_too_large",
    )

    layers: Layers = Field(default="all", description="Blocks whose two MLP matrices are tested, counted from 0.")
    k: Literal["auto"] | Annotated[Numbers, AfterValidator(_candidates)] = Field(
        default="auto",
        description="Candidate numbers of clusters, 2 to 16; auto: 2, 3, 4, 6, 8 up to an eighth of the side.",
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
        default="0.2", description="A matrix with more exact zeros than this is left out: too_many_zeros."
    )
    nulls: Literal["auto"] | Annotated[int, Field(ge=99, le=9999)] = Field(
        default="auto", description="Null replicates; auto: what is committed, or what Holm's correction needs."
    )

    def needs(self, model: ModelFacts, data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Needs:
        """Ask for the MLP matrices of the chosen layers.

        Raises:
            Refusal: no MLP matrices are tabled for this architecture, a layer does not exist, or too many are asked.
        """
        if not model.mlp_in and not model.mlp_out:
            raise Refusal("no_mlp", (model.architecture,))
        names = owed(self.layers, model)
        if len(names) > MATRICES_MAX:
            raise Refusal("too_many_matrices", (f"matrices:{len(names)}", f"limit:{MATRICES_MAX}"))
        return Needs(weights=names)

    def measure(self, evidence: Evidence) -> Measured:
        """Test every matrix that can be tested; name those that cannot.

        Raises:
            Refusal: `nothing_testable`, naming each matrix with its reason.
        """
        names = owed(self.layers, evidence.facts)
        usable, skipped = self._examine(names, evidence)
        if not usable:
            raise Refusal("nothing_testable", tuple(f"{one.reason}:{one.item}"[:128] for one in skipped))
        found = {name: self._test(name, one, len(usable), evidence) for name, one in usable.items()}
        corrected = holm([one.p for one in found.values()])
        tested = [
            self._second_look(name, usable[name], found[name], p_holm, len(usable), evidence)
            for name, p_holm in zip(usable, corrected, strict=True)
        ]
        return Measured(
            coverage={"matrix": names},
            metrics=tuple(metric for one in tested for metric in metrics(one)),
            plots=plots([(one.name, one.found) for one in tested]),
            skipped=tuple(skipped),
        )

    def judge(self, real: Measured, controls: Sequence[ControlResult]) -> tuple[Finding, ...]:
        """Read the words off the numbers; a missed control makes every word inconclusive."""
        missed = missed_controls(self, controls)
        return findings(real, self.limits(), missed)

    def limits(self) -> Limits:
        """Return the thresholds as numbers."""
        return Limits(
            alpha=float(self.alpha),
            min_excess_q=float(self.min_excess_q),
            min_stability=float(self.min_stability),
            min_cluster_share=float(self.min_cluster_share),
        )

    def candidates(self, shape: tuple[int, int]) -> tuple[int, ...]:
        """Return the candidates of k at a shape: those asked for, at most half of the smaller side."""
        asked = auto_ks(shape) if self.k == "auto" else self.k
        return tuple(k for k in asked if k <= min(shape) // 2)

    def _examine(self, names: Sequence[str], evidence: Evidence) -> tuple[dict[str, Usable], list[Skipped]]:
        usable: dict[str, Usable] = {}
        skipped: list[Skipped] = []
        for name in names:
            one = examine(name, evidence.weights(name), float(self.zero_share_dense))
            if isinstance(one, Unusable):
                skipped.append(Skipped(item=one.item, reason=one.reason))
                continue
            shape = (one.values.shape[0], one.values.shape[1])
            dropped = () if self.k == "auto" else tuple(set(self.k) - set(self.candidates(shape)))
            skipped += [Skipped(item=f"{name[:120]}:k:{k}", reason="k_too_large") for k in sorted(dropped)]
            if self.candidates(shape):
                usable[name] = one
        return usable, skipped

    def _test(self, name: str, one: Usable, together: int, evidence: Evidence) -> Structure:
        shape = (one.values.shape[0], one.values.shape[1])
        ks = self.candidates(shape)
        seed = int(evidence.rng(f"kmeans/{name}").integers(2**31))
        return structure_test(one.values, null_table(shape, ks, self._replicates(shape, ks, together)), seed)

    def _replicates(self, shape: tuple[int, int], ks: tuple[int, ...], together: int) -> int:
        if self.nulls != "auto":
            return self.nulls
        least = max(NULLS_LEAST, ceil(2 * together / float(self.alpha)) - 1)
        return max(least, committed_n(shape, ks))

    def _second_look(
        self, name: str, one: Usable, found: Structure, p_holm: float, together: int, evidence: Evidence
    ) -> Tested:
        """Measure what only a matrix that passes p and excess needs: stability and the confirmation null."""
        passes = p_holm <= float(self.alpha) and found.excess_q >= float(self.min_excess_q)
        draws = confirm = None
        if passes:
            draws = stability(one.values, found.partition, found.k, evidence.rng(f"stability/{name}"))
            confirm = confirmation_null(one.values, found.k, evidence.rng(f"confirm/{name}"))
        facts = evidence.facts
        plant = facts.plants.get(name) if isinstance(facts, PlantedFacts) else None
        return Tested(name, one, found, p_holm, together, passes, draws, confirm, plant)
