"""The check `clusterability`: do a model's MLP weights split into groups that talk mostly among themselves?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from assay.result import ControlResult, D, Finding, Measured, Skipped
from pydantic import AfterValidator, Field

from checks.check import Check, Evidence, MetricSpec, ModelFacts, Needs, Refusal, missed_controls
from checks.clusterability.controls import HeavyNoise, IidNoise, PlantedBlocks
from checks.clusterability.families import (
    FAMILIES,
    HEAD_GRAPH,
    VIRTUAL_ENTRIES_MAX,
    Family,
    GraphFound,
    Owed,
    ProductNulls,
    heads_found,
    owed_beyond,
    virtual,
    virtual_name,
)
from checks.clusterability.findings import WORDS, Limits, findings
from checks.clusterability.masks import mask_stability, mask_structure
from checks.clusterability.matrices import PlantedFacts, Unusable, Usable, examine, owed
from checks.clusterability.metrics import METRICS, Tested, graph_metrics, metrics
from checks.clusterability.nulls import auto_ks, committed_n, null_table
from checks.clusterability.plots import plots
from checks.clusterability.structure import Structure, confirmation_null, stability, structure_test
from checks.holm import holm
from checks.parameters import Between, Layers, Numbers

MASK_NULLS_MAX = 1999
"""Replicates of a mask at most: they are drawn in the audit, some 15 ms each at 96x256."""

TESTS_MAX = 40
"""Matrices of one answer: beyond, the numbers would crowd the result document; ask for fewer layers."""

NULLS_LEAST = 199
"""Replicates computed at least (4.5)."""


def _candidates(ks: tuple[int, ...]) -> tuple[int, ...]:
    if not all(2 <= k <= 16 for k in ks):
        raise ValueError("k lies in 2..16")
    return ks


def _once(names: tuple[Family, ...]) -> tuple[Family, ...]:
    if len(set(names)) != len(names):
        raise ValueError("a family is named twice: name each once")
    return names


class Clusterability(Check):
    """Spectral co-clustering of MLPs and attention heads against calibrated nulls; weights only, structure only."""

    name: ClassVar[str] = "clusterability"
    version: ClassVar[str] = "0.2"
    source: ClassVar[str] = (
        "Golechha et al. (arXiv 2409.15747, 2502.02470); Filan et al. (2103.03386, 2110.08058); Barber 2007; "
        "Dhillon 2001"
    )
    controls: ClassVar[tuple[Any, ...]] = (PlantedBlocks(), IidNoise(), HeavyNoise())
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
        "k_too_large",
        "no_attention",
    )

    layers: Layers = Field(default="all", description="Blocks whose two MLP matrices are tested, counted from 0.")
    families: Annotated[tuple[Family, ...], Field(strict=False, min_length=1, max_length=4), AfterValidator(_once)] = (
        Field(
            default=FAMILIES,
            description="MLP matrices, products of neighbouring MLPs, and the graph of attention heads.",
        )
    )
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
        default="0.2", description="Of a matrix with more exact zeros than this the pattern of zeros alone is tested."
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
        names, beyond = owed(self.layers, model, self.families), self._beyond(model)
        if len(names) + len(beyond.names) > TESTS_MAX:
            raise Refusal("too_many_matrices", (f"matrices:{len(names) + len(beyond.names)}", f"limit:{TESTS_MAX}"))
        return Needs(weights=tuple(dict.fromkeys((*names, *beyond.tensors))))

    def measure(self, evidence: Evidence) -> Measured:
        """Test every matrix, product and graph that can be tested; name those that cannot.

        Raises:
            Refusal: `nothing_testable`, naming each matrix with its reason.
        """
        names, beyond = owed(self.layers, evidence.facts, self.families), self._beyond(evidence.facts)
        usable, skipped = self._examine(names, evidence)
        products, left = self._products(beyond, evidence)
        skipped += [*left, *(Skipped(item=family, reason=reason) for family, reason in beyond.absent)]
        if not usable and not products and not beyond.heads:
            raise Refusal("nothing_testable", tuple(f"{one.reason}:{one.item}"[:128] for one in skipped))
        together = len(usable) + len(products) + int(beyond.heads)
        found = {name: self._test(name, one, together, evidence) for name, one in usable.items()}
        nulls = ProductNulls(evidence.rng)
        found |= {name: self._test_product(name, *one, together, nulls, evidence) for name, one in products.items()}
        graph = self._heads(together, evidence) if beyond.heads else None
        corrected = holm([*(one.p for one in found.values()), *([graph.found.p] if graph else [])])
        inner = {name: size for name, (_, size, _) in products.items()}
        every = {**usable, **{name: one for name, (one, _, _) in products.items()}}
        tested = [
            self._second_look(name, every[name], found[name], p_holm, together, evidence, inner.get(name))
            for name, p_holm in zip(found, corrected, strict=False)
        ]
        told = [metric for one in tested for metric in metrics(one)]
        if graph:
            told += graph_metrics(graph, corrected[-1], together)
        return Measured(
            coverage={"matrix": (*names, *beyond.names)},
            metrics=tuple(told),
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

    def _beyond(self, facts: ModelFacts) -> Owed:
        return owed_beyond(self.families, self.layers, facts)

    def _products(
        self, beyond: Owed, evidence: Evidence
    ) -> tuple[dict[str, tuple[Usable, int | None, bool]], list[Skipped]]:
        """Return the products that can be tested, each with its null's inner size and whether it is gated."""
        usable: dict[str, tuple[Usable, int | None, bool]] = {}
        skipped: list[Skipped] = []
        for layer in beyond.pairs:
            name = virtual_name(layer)
            out, after = evidence.facts.mlp_out[layer], evidence.facts.mlp_in[layer + 1]
            if not all(np.isfinite(evidence.weights(tensor)).all() for tensor in (out, after)):
                skipped.append(Skipped(item=name, reason="non_finite"))
                continue
            product = virtual(layer, evidence.facts, evidence.weights)
            # Zeros of a product are where nothing is read of what is written: its route is never the mask's.
            one = examine(name, product.values, 1.0)
            if isinstance(one, Unusable):
                skipped.append(Skipped(item=one.item, reason=one.reason))
            elif one.values.size > VIRTUAL_ENTRIES_MAX:
                skipped.append(Skipped(item=name, reason="too_large"))
            elif self.candidates((one.values.shape[0], one.values.shape[1])):
                usable[name] = (one, product.inner, product.gated)
        return usable, skipped

    def _test_product(
        self,
        name: str,
        one: Usable,
        inner: int | None,
        gated: bool,
        together: int,
        nulls: ProductNulls,
        evidence: Evidence,
    ) -> Structure:
        shape = (one.values.shape[0], one.values.shape[1])
        ks = self.candidates(shape)
        n = self._replicates(shape, ks, together)
        seed = int(evidence.rng(f"kmeans/{name}").integers(2**31))
        null = null_table(shape, ks, n) if inner is None else nulls.table(shape, inner, ks, n, gated=gated)
        return structure_test(one.values, null, seed)

    def _heads(self, together: int, evidence: Evidence) -> GraphFound:
        n = max(NULLS_LEAST, ceil(2 * together / float(self.alpha)) - 1) if self.nulls == "auto" else self.nulls
        seed = int(evidence.rng(f"kmeans/{HEAD_GRAPH}").integers(2**31))
        return heads_found(evidence.facts, evidence.weights, n, seed, evidence.rng(f"stability/{HEAD_GRAPH}"))

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
        n = self._replicates(shape, ks, together)
        seed = int(evidence.rng(f"kmeans/{name}").integers(2**31))
        if one.masked:
            return mask_structure(one.values != 0, ks, seed, evidence.rng(f"trades/{name}"), min(n, MASK_NULLS_MAX))
        return structure_test(one.values, null_table(shape, ks, n), seed)

    def _replicates(self, shape: tuple[int, int], ks: tuple[int, ...], together: int) -> int:
        if self.nulls != "auto":
            return self.nulls
        least = max(NULLS_LEAST, ceil(2 * together / float(self.alpha)) - 1)
        return max(least, committed_n(shape, ks))

    def _second_look(
        self,
        name: str,
        one: Usable,
        found: Structure,
        p_holm: float,
        together: int,
        evidence: Evidence,
        inner: int | None,
    ) -> Tested:
        """Measure what only a matrix that passes p and excess needs: stability and the confirmation null."""
        passes = p_holm <= float(self.alpha) and found.excess_q >= float(self.min_excess_q)
        draws = confirm = None
        if passes and one.masked:
            mask = one.values != 0
            draws = mask_stability(mask, found.partition, found.k, evidence.rng(f"stability/{name}"))
        elif passes:
            draws = stability(one.values, found.partition, found.k, evidence.rng(f"stability/{name}"))
            if inner is None:  # a product's own null is of low rank already
                confirm = confirmation_null(one.values, found.k, evidence.rng(f"confirm/{name}"))
        facts = evidence.facts
        plant = facts.plants.get(name) if isinstance(facts, PlantedFacts) else None
        return Tested(name, one, found, p_holm, together, passes, draws, confirm, plant, inner)
