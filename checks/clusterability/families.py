"""Families of what is tested: single matrices, products and graphs of a transformer, and the network as a whole.

Residual axes are no natural basis, so claims about a whole transformer come from products of neighbouring MLPs and from
the graph of heads; those about a whole feed-forward net from one partition of all its neurons. Specification: section
5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np

from checks.check import ModelFacts, ModelKind
from checks.clusterability.graphs import GraphStructure, graph_stability, graph_structure
from checks.clusterability.layouts import attention_names, mlp_names
from checks.clusterability.network_tests import (
    NetworkStructure,
    network_stability,
    network_test,
    null_of,
    surrogates,
)
from checks.clusterability.nulls import NullTable
from checks.clusterability.transformer import head_graph, layer_of_head, product_null, virtual_d_eff, virtual_mlp

if TYPE_CHECKING:
    from jaxtyping import Float

Family = Literal["mlp_in", "mlp_out", "virtual_mlp", "head_graph", "linear", "conv", "network"]

FAMILIES_OF: Mapping[ModelKind, tuple[Family, ...]] = MappingProxyType(
    {
        "transformer": ("mlp_in", "mlp_out", "virtual_mlp", "head_graph"),
        "feedforward": ("linear", "conv", "network"),
    }
)
"""Families that each kind of model has: `families: auto`."""

ABSENT: Mapping[Family, str] = MappingProxyType(
    {
        "mlp_in": "no_mlp",
        "mlp_out": "no_mlp",
        "virtual_mlp": "no_mlp",
        "head_graph": "no_attention",
        "linear": "no_linear",
        "conv": "no_conv",
        "network": "no_network",
    }
)
"""Reason that is told where a family is asked of a model that has none of it."""

HEAD_GRAPH = "head_graph"
"""Label of the one graph of a model."""

NETWORK = "network"
"""Label of the one partition through a whole net."""

VIRTUAL_ENTRIES_MAX = 2**17
"""Largest product whose null is drawn during an audit: a replicate takes some 20 ms at 256x256 and 5 s at 3072x3072,
and no table of products is committed."""

NETWORK_ENTRIES_MAX = 2**21
"""Largest net, in weights, whose null is drawn during an audit. A replicate over k = 2..16 takes .02 s for
64-64-64-64-10, .2 s for 784-256-256-256-10, .3 s for 784-512-512-10, .5 s for 784-1024-1024-10, 1.8 s for four layers
of 1024 and 4.9 s for 3072-2048-2048-10 (one core), and 199 are drawn at least."""

Weights = Callable[[str], "Float[np.ndarray, 'n m']"]


def families_of(families: Literal["auto"] | Sequence[Family], kind: ModelKind) -> tuple[Family, ...]:
    """Return the families that a parameter asks for, of those that this kind of model can have."""
    held = FAMILIES_OF[kind]
    return held if families == "auto" else tuple(family for family in held if family in families)


def virtual_name(layer: int) -> str:
    """Return the label of the product of a layer's MLP with the next one's."""
    return f"virtual_mlp.{layer}"


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
    values = virtual_mlp(*arguments)
    inner = virtual_d_eff(*arguments) if values.any() else None
    return Virtual(values, inner, pair.gate_next is not None)


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


def heads_found(
    facts: ModelFacts, weights: Weights, ks: Sequence[int], nulls: int, seed: int, rng: np.random.Generator
) -> GraphFound:
    """Return the clusters of heads and how well they hold without a tenth of them.

    Args:
        facts: a transformer's.
        weights: returns its tensors.
        ks: candidates of k.
        nulls: replicates.
        seed: seeds k-means and the shuffles.
        rng: draws what stability leaves out.

    Raises:
        NothingToShuffle: edges are all alike, or too few heads have any.
    """
    names = attention_names(facts)
    layers = [names.cut(layer, weights) for layer in range(facts.layers)]
    graph, blocks = head_graph(layers), layer_of_head(layers)
    found = graph_structure(graph, blocks, ks, nulls, seed)
    return GraphFound(found, graph_stability(graph, found.labels, found.k, rng), len(blocks))


@dataclass(frozen=True)
class NetworkFound:
    """Structure through all layers of a net."""

    found: NetworkStructure
    stability: Float[np.ndarray, " draws"]


def network_found(
    layers: Sequence[Float[np.ndarray, "out in"]],
    ks: Sequence[int],
    nulls: int,
    rng: Callable[[str], np.random.Generator],
    zero_share_dense: float,
) -> NetworkFound:
    """Return the clusters of a net's neurons and how well they hold without a tenth of each layer.

    Args:
        layers: canonical matrices in order; each has a weight.
        ks: candidates of k.
        nulls: replicates.
        rng: returns the generator of a label.
        zero_share_dense: layers with a greater share of exact zeros have masks as surrogates.
    """
    drawn = surrogates(layers, zero_share_dense)
    null = null_of(drawn, ks, nulls, rng(f"null/{NETWORK}"), zero_share_dense=zero_share_dense)
    seed = int(rng(f"kmeans/{NETWORK}").integers(2**31))
    found = network_test(layers, null, seed, zero_share_dense=zero_share_dense)
    held = network_stability(
        layers, found.partition, found.k, rng(f"stability/{NETWORK}"), zero_share_dense=zero_share_dense
    )
    return NetworkFound(found, held)
