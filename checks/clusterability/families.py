"""What is tested beside single MLP matrices: products of neighbouring MLPs, and the graph of attention heads.

Residual axes are no natural basis, so claims about a whole transformer come from these two. Specification: section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from checks.check import ModelFacts, Refusal
from checks.clusterability.graphs import GraphStructure, graph_ks, graph_stability, graph_structure
from checks.clusterability.layouts import attention_names, mlp_names
from checks.clusterability.matrices import PlantedFacts
from checks.clusterability.nulls import NullTable
from checks.clusterability.transformer import head_graph, layer_of_head, product_null, virtual_d_eff, virtual_mlp
from checks.parameters import Layers, chosen_layers

if TYPE_CHECKING:
    from jaxtyping import Float

Family = Literal["mlp_in", "mlp_out", "virtual_mlp", "head_graph"]
FAMILIES: tuple[Family, ...] = ("mlp_in", "mlp_out", "virtual_mlp", "head_graph")

HEAD_GRAPH = "head_graph"
"""Label of the one graph of a model."""

VIRTUAL_ENTRIES_MAX = 2**17
"""Largest product whose null is drawn during an audit: a replicate takes some 20 ms at 256x256 and 5 s at 3072x3072,
and no table of products is committed."""

Weights = Callable[[str], "Float[np.ndarray, 'n m']"]


@dataclass(frozen=True)
class Owed:
    """What of these families a model is owed, and what it cannot have."""

    pairs: tuple[int, ...]
    """Layers whose MLP is multiplied with the next one's."""
    heads: bool
    tensors: tuple[str, ...]
    """Names of all tensors that are needed."""
    absent: tuple[tuple[str, str], ...]
    """Families that this architecture does not have here: (family, reason)."""

    @property
    def names(self) -> tuple[str, ...]:
        """Labels in the report."""
        return (*(virtual_name(layer) for layer in self.pairs), *((HEAD_GRAPH,) if self.heads else ()))


def virtual_name(layer: int) -> str:
    """Return the label of the product of a layer's MLP with the next one's."""
    return f"virtual_mlp.{layer}"


def owed_beyond(families: Sequence[Family], layers: Layers, facts: ModelFacts) -> Owed:
    """Return which products and graphs are owed; a control's own model has none."""
    if isinstance(facts, PlantedFacts):
        return Owed((), False, (), ())
    chosen = set(chosen_layers(layers, facts.layers))
    pairs = tuple(layer for layer in sorted(chosen) if layer + 1 in chosen) if "virtual_mlp" in families else ()
    tensors: list[str] = []
    absent: list[tuple[str, str]] = []
    if pairs:
        try:
            names = mlp_names(facts)
            tensors += [name for layer in pairs for name in names.weights(layer)]
        except Refusal as why:
            pairs = ()
            absent.append(("virtual_mlp", why.reason))
    heads = "head_graph" in families and facts.layers > 1
    if heads:
        try:
            tensors += attention_names(facts).weights
        except Refusal as why:
            heads = False
            absent.append((HEAD_GRAPH, why.reason))
    if heads and not graph_ks(facts.layers * facts.heads):
        heads = False
        absent.append((HEAD_GRAPH, "too_small"))
    return Owed(pairs, heads, tuple(dict.fromkeys(tensors)), tuple(absent))


@dataclass(frozen=True)
class Virtual:
    """The product of a layer's MLP with the next one's, and how its null is made."""

    values: Float[np.ndarray, "next hidden"]
    inner: int | None
    """Inner size of the product null; None where the null of independent entries fits."""
    gated: bool


def virtual(layer: int, facts: ModelFacts, weights: Weights) -> Virtual:
    """Return the product of a layer's MLP with the next one's, norms folded in."""
    pair = mlp_names(facts).pair(layer, weights)
    arguments = (pair.w_in_next, pair.w_out, pair.gate_next)
    return Virtual(virtual_mlp(*arguments), virtual_d_eff(*arguments), pair.gate_next is not None)


class ProductNulls:
    """Product nulls of one run, each drawn once: layers of one model often share shape and inner size."""

    def __init__(self, rng: Callable[[str], np.random.Generator]) -> None:
        self._rng = rng
        self._drawn: dict[tuple[object, ...], NullTable] = {}

    def table(self, shape: tuple[int, int], inner: int, ks: tuple[int, ...], n: int, *, gated: bool) -> NullTable:
        """Return the null of a shape and inner size."""
        key = (shape, inner, ks, n, gated)
        if key not in self._drawn:
            self._drawn[key] = product_null(shape, inner, ks, n, self._rng(f"product/{key}"), gated=gated)
        return self._drawn[key]


@dataclass(frozen=True)
class GraphFound:
    """Structure among the heads of a model."""

    found: GraphStructure
    stability: Float[np.ndarray, " draws"]
    nodes: int


def heads_found(facts: ModelFacts, weights: Weights, nulls: int, seed: int, rng: np.random.Generator) -> GraphFound:
    """Return the clusters of heads and how well they hold without a tenth of them."""
    names = attention_names(facts)
    layers = [names.cut(layer, weights) for layer in range(facts.layers)]
    graph, blocks = head_graph(layers), layer_of_head(layers)
    found = graph_structure(graph, blocks, graph_ks(len(blocks)), nulls, seed)
    return GraphFound(found, graph_stability(graph, found.labels, found.k, rng), len(blocks))
