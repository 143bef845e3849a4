"""How often `clusterability` finds planted products, graphs of heads and networks: what `power.json` tells of families.

Planted are organism F at the specification's size (64 wide, 256 neurons, 4 layers of 8 heads) and nets of three 64x64
layers in two groups, all with a leak of .5: weights into the other group are half as large. The null of products and
nets depends on no weights but through shape and inner size, so plants share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from checks.clusterability.check import Clusterability
from checks.clusterability.findings import Numbers, word_of
from checks.clusterability.graphs import graph_ks, graph_stability, graph_structure
from checks.clusterability.lesion_findings import DETECTED
from checks.clusterability.network_tests import (
    NetworkNull,
    network_ks,
    network_null,
    network_stability,
    network_test,
)
from checks.clusterability.nulls import NullTable, auto_ks, null_table
from checks.clusterability.planted_graphs import planted_net
from checks.clusterability.structure import stability, structure_test
from checks.clusterability.transformer import (
    HeadLayer,
    head_graph,
    layer_of_head,
    product_null,
    virtual_d_eff,
    virtual_mlp,
)
from checks.organisms.halves import halves

LEAK = 0.5
NULLS = 199
NET_SIDE, NET_LAYERS = 64, 3


@dataclass(frozen=True)
class Looked:
    """What one plant gave."""

    p: float
    excess: float
    k: int
    labels: np.ndarray
    stability: np.ndarray

    @property
    def found(self) -> bool:
        """Whether the whole rule calls it clustered; its own null confirms it."""
        kept = self.labels[self.labels >= 0]
        numbers = Numbers(
            matrix="planted",
            p_holm=self.p,
            p_holm_least=1.0 / (NULLS + 1),
            excess_q=self.excess,
            k=self.k,
            smallest_share=float(np.bincount(kept, minlength=self.k).min() / len(kept)),
            stability=float(np.median(self.stability)),
            confirm_excess_q=self.excess,
            masked=False,
            null_n=NULLS,
            planned=NULLS,
            power=None,
        )
        return word_of(numbers, Clusterability().limits())[0] == DETECTED


def product(seed: int) -> Looked:
    """Return what the product of organism F's first two MLPs gave."""
    blocks = halves(LEAK, seed)
    # As the check reads them: the norm's mean is taken out of what is written and of what is read.
    w_out = blocks[0].mlp_out - blocks[0].mlp_out.mean(axis=0)
    w_in = blocks[1].mlp_in - blocks[1].mlp_in.mean(axis=1, keepdims=True)
    values = virtual_mlp(w_in, w_out)
    found = structure_test(values, _product_null(len(values), virtual_d_eff(w_in, w_out)), seed)
    part = found.partition
    held = stability(values, part, found.k, np.random.default_rng([seed, 1]))
    return Looked(found.p, found.excess_q, found.k, np.concatenate([part.rows, part.columns]), held)


@lru_cache
def _product_null(side: int, inner: int | None) -> NullTable:
    shape = (side, side)
    if inner is None:
        return null_table(shape, auto_ks(shape), NULLS)
    return product_null(shape, inner, auto_ks(shape), NULLS, np.random.default_rng([side, inner]))


def heads(seed: int) -> Looked:
    """Return what the graph of organism F's heads gave."""
    blocks = halves(LEAK, seed)
    layers = [HeadLayer(query=one.query, key=one.key, value=one.value, output=one.output) for one in blocks]
    graph, at = head_graph(layers), layer_of_head(layers)
    found = graph_structure(graph, at, graph_ks(len(at)), NULLS, seed)
    held = graph_stability(graph, found.labels, found.k, np.random.default_rng([seed, 1]))
    return Looked(found.p, found.excess_q, found.k, found.labels, held)


def network(seed: int) -> Looked:
    """Return what a net of two groups gave."""
    weights = list(planted_net(NET_LAYERS, LEAK, np.random.default_rng([seed, 2]), side=NET_SIDE)[1].values())
    found = network_test(weights, _network_null(), seed)
    held = network_stability(weights, found.partition, found.k, np.random.default_rng([seed, 1]))
    return Looked(found.p, found.excess_q, found.k, found.partition.joined, held)


@lru_cache
def _network_null() -> NetworkNull:
    shapes = [(NET_SIDE, NET_SIDE)] * NET_LAYERS
    return network_null(shapes, network_ks(shapes, range(2, 17)), NULLS, np.random.default_rng(NET_SIDE))


def graph_powers(plants: int) -> dict[str, dict[str, int]]:
    """Measure, print and return of how many plants each family finds how many."""
    told = {}
    for name, look in (("virtual_mlp", product), ("head_graph", heads), ("network", network)):
        seen = [look(seed) for seed in range(plants)]
        told[name] = {"found": sum(one.found for one in seen), "planted": plants}
        excess, held = (np.mean([one.excess for one in seen]), np.mean([np.median(one.stability) for one in seen]))
        print(
            f"{name:>20} {told[name]['found']} of {plants} found, excess {excess:.3f}, stability {held:.2f}", flush=True
        )
    return told
