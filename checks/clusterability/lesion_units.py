"""The units that lesions hold: which partitions of a model are owed lesions, and how strongly each unit is read.

Specification: clusterability, sections 5 and 6.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from checks.check import Evidence, Lesion, ModelFacts, Refusal
from checks.clusterability.graphs import asked_ks
from checks.clusterability.layers import Partitioned, layer_matrices
from checks.clusterability.layouts import Weights, attention_names
from checks.clusterability.lesion import Units
from checks.clusterability.nulls import K_MAX, auto_ks
from checks.parameters import Layers, chosen_layers

if TYPE_CHECKING:
    from jaxtyping import Float, Int

NETWORK, HEAD_GRAPH, MLP = "network", "head_graph", "mlp"
"""Partitions that lesions are owed for; of MLPs "mlp.{l}", or "mlp" where the best layer is not known before."""


class LesionParameters(Protocol):
    """What lesions read of the check's parameters."""

    @property
    def alpha(self) -> str:
        """Level after Holm."""
        ...

    @property
    def k(self) -> Any:
        """Candidates of k, or "auto"."""
        ...

    @property
    def families(self) -> Any:
        """Names of families, or "auto"."""
        ...

    @property
    def layers(self) -> Layers:
        """Blocks whose matrices are tested."""
        ...

    @property
    def lesion_nulls(self) -> Any:
        """Random sets of each cluster, or "auto"."""
        ...

    @property
    def lesion_layers(self) -> Any:
        """Blocks whose MLP is lesioned: "best", "none" or numbers."""
        ...


@dataclass(frozen=True)
class OwedPartition:
    """A partition that should be lesioned, as far as it is known before any weight is read."""

    name: str
    sites: tuple[str, ...]
    """Sites that it may hold."""
    weights: tuple[str, ...]
    """Tensors that read those units."""
    clusters: int
    """Most clusters that it may have."""

    def met_by(self, names: Sequence[str]) -> bool:
        """Return whether it is among the partitions that there are."""
        return self.name in names or (self.name == MLP and any(name.startswith("mlp.") for name in names))


@dataclass(frozen=True)
class Prepared:
    """A partition with its units numbered through all sites."""

    name: str
    sites: tuple[tuple[str, int], ...]
    """Each site with its number of units."""
    labels: Int[np.ndarray, " unit"]
    units: Units
    matrix: str = ""
    """What gave the clusters, as structure names it."""

    @property
    def clusters(self) -> int:
        """Clusters, those without a unit included."""
        return int(self.labels.max(initial=-1)) + 1

    def lesion(self, ablation: Int[np.ndarray, " ablated"]) -> Lesion:
        """Return an ablation by site."""
        found: dict[str, np.ndarray] = {}
        start = 0
        for site, size in self.sites:
            here = ablation[(ablation >= start) & (ablation < start + size)] - start
            if len(here):
                found[site] = here
            start += size
        return found


def owed_partitions(check: LesionParameters, facts: ModelFacts) -> tuple[OwedPartition, ...]:
    """Return the partitions of a model that lesions are owed for.

    Raises:
        Refusal: `layer_out_of_range`: a lesion layer that the model does not have.
    """
    if facts.feedforward is not None:
        if not _asked(check, NETWORK) or not facts.feedforward.hidden:
            return ()
        sites = tuple(f"layer.{index}" for index in facts.feedforward.hidden)
        return (OwedPartition(NETWORK, sites, tuple(facts.tensors), _most(check, K_MAX)),)
    found = list(_owed_mlps(check, facts)) if _asked(check, "mlp_in") else []
    if _asked(check, HEAD_GRAPH) and facts.layers > 1:
        heads = asked_ks(check.k, facts.layers * facts.heads)
        try:
            weights = _head_writers(facts)
        except Refusal:  # this architecture's heads are not tabled: structure says so
            weights = ()
        if heads and weights:
            sites = tuple(f"heads.{layer}" for layer in range(facts.layers))
            found.append(OwedPartition(HEAD_GRAPH, sites, weights, max(heads)))
    return tuple(found)


def prepared(partition: Partitioned, evidence: Evidence) -> Prepared:
    """Return a partition with the size of each unit: activation sd times the norm of the weights that read it."""
    norms = outgoing_norms([site for site, _ in partition.sites], evidence.facts, evidence.weights)
    sizes = [evidence.unit_sd(site) * norms[site] for site, _ in partition.sites]
    for (site, labels), size in zip(partition.sites, sizes, strict=True):
        if len(labels) != len(size):
            raise ValueError(f"{site} has {len(size)} units, its partition labels {len(labels)}")
    layer = np.repeat(np.arange(len(sizes)), [len(size) for size in sizes])
    return Prepared(
        partition.name,
        tuple((site, len(labels)) for site, labels in partition.sites),
        np.concatenate([np.asarray(labels, dtype=np.int64) for _, labels in partition.sites]),
        # A size that is not finite still has a place in the order of sizes.
        Units(layer, np.nan_to_num(np.concatenate(sizes))),
        partition.found_in,
    )


def outgoing_norms(sites: Sequence[str], facts: ModelFacts, weights: Weights) -> dict[str, Float[np.ndarray, " unit"]]:
    """Return the norm of the weights that read each unit of each site."""
    if facts.feedforward is not None:
        matrices = layer_matrices(facts.feedforward, weights)
        after = {f"layer.{one.index}": reader for one, reader in pairwise(matrices)}
        return {site: np.linalg.norm(after[site].values, axis=0) for site in sites}
    found = {}
    for site in sites:
        kind, layer = site.split(".")
        if kind == MLP:
            found[site] = np.linalg.norm(weights(facts.mlp_out[int(layer)]), axis=0)
        else:
            written = weights(_head_writers(facts)[int(layer)])
            by_head = written.reshape(len(written), facts.heads, -1)
            found[site] = np.sqrt(np.square(by_head).sum(axis=(0, 2)))
    return found


def _asked(check: LesionParameters, family: str) -> bool:
    return check.families == "auto" or family in check.families


def _most(check: LesionParameters, most: int) -> int:
    return most if check.k == "auto" else max(check.k)


def _owed_mlps(check: LesionParameters, facts: ModelFacts) -> tuple[OwedPartition, ...]:
    tested = [layer for layer in chosen_layers(check.layers, facts.layers) if layer < len(facts.mlp_in)]
    shapes = {layer: facts.tensors[facts.mlp_in[layer]] for layer in tested}
    ks = {layer: auto_ks((min(shape), max(shape))) for layer, shape in shapes.items()}
    able = [layer for layer in tested if ks[layer] and layer < len(facts.mlp_out)]
    if check.lesion_layers == "none" or not able:
        return ()
    most = {layer: _most(check, max(ks[layer])) for layer in able}
    if check.lesion_layers == "best":
        sites, weights = tuple(f"mlp.{layer}" for layer in able), tuple(facts.mlp_out[layer] for layer in able)
        return (OwedPartition(MLP, sites, weights, max(most.values())),)
    return tuple(
        OwedPartition(f"mlp.{layer}", (f"mlp.{layer}",), (facts.mlp_out[layer],), most.get(layer, K_MAX))
        for layer in chosen_layers(check.lesion_layers, len(facts.mlp_out))
    )


def _head_writers(facts: ModelFacts) -> tuple[str, ...]:
    """Return the name of every block's attention output matrix.

    Raises:
        Refusal: `no_attention`.
    """
    names = attention_names(facts)
    return tuple(prefix + names.layout.writes for prefix in names.prefixes)
