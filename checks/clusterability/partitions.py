"""The tested partitions by the units that lesions can hold. Specification: clusterability, section 6.1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from checks.check import ModelFacts
from checks.clusterability.families import HEAD_GRAPH, NETWORK
from checks.clusterability.layers import Partitioned
from checks.clusterability.matrices import PlantedFacts
from checks.clusterability.testing import Run

if TYPE_CHECKING:
    from checks.clusterability.check import Clusterability


def partitions_of(check: Clusterability, run: Run, facts: ModelFacts) -> tuple[Partitioned, ...]:
    """Return the partitions of hidden neurons and of heads; a control's own model has none.

    They are there whatever the test of structure said: whether clusters matter is a question of its own.
    """
    if isinstance(facts, PlantedFacts):
        return ()
    told = []
    if run.network is not None and facts.feedforward is not None:
        hidden = run.network.found.partition.layers[1:-1]
        sites = zip(facts.feedforward.hidden, hidden, strict=True)
        told.append(Partitioned(NETWORK, tuple((f"layer.{index}", labels) for index, labels in sites)))
    told += _of_neurons(check, run, facts)
    if run.graph is not None:
        by_layer = np.split(run.graph.found.labels, facts.layers)
        sites_of_heads = tuple((f"heads.{layer}", labels) for layer, labels in enumerate(by_layer))
        told.append(Partitioned(HEAD_GRAPH, sites_of_heads))
    return tuple(told)


def _of_neurons(check: Clusterability, run: Run, facts: ModelFacts) -> list[Partitioned]:
    """Return the clusters of the lesion layers' MLP neurons: rows of the first matrix."""
    tested = {facts.mlp_in.index(one.name): one for one in run.matrices if one.name in facts.mlp_in}
    if check.lesion_layers == "best":
        # The first of equals, as everywhere.
        chosen = sorted(tested, key=lambda layer: (-tested[layer].found.excess_q, layer))[:1]
    elif check.lesion_layers == "none":
        chosen = []
    else:
        chosen = [layer for layer in check.lesion_layers if layer in tested]
    told = []
    for layer in chosen:
        one = tested[layer]
        labels = one.matrix.all_rows(one.found.partition.rows)
        told.append(Partitioned(f"mlp.{layer}", ((f"mlp.{layer}", labels),), one.name))
    return told
