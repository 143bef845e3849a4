"""A control for what spans several matrices: products of MLPs, the graph of heads, the partition of a whole net.

Small models in which two groups hide are planted and put through the very code that reads the audited one. A
transformer's groups are halves of the residual stream behind a random rotation: no single matrix shows them, only
products of writers and readers do. Specification: sections 5 and 8, organism F.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from assay.result import Measured, Metric

from checks.check import Evidence, Expected, ModelFacts, PromisedBand
from checks.clusterability.asking import owed_of
from checks.clusterability.cocluster import Partition
from checks.clusterability.controls import (
    ARI_MIN,
    ARI_SMALL,
    ari_min,
    p_reach,
    plant_recipe,
    planted,
    planted_evidence,
)
from checks.clusterability.families import HEAD_GRAPH, NETWORK
from checks.clusterability.graphs import asked_ks
from checks.clusterability.matrices import Plant, PlantedModel
from checks.clusterability.metric_specs import TOLERANCE
from checks.clusterability.noise import SHAPE
from checks.clusterability.scores import adjusted_rand
from checks.clusterability.testing import NULLS_ASKED_LEAST
from checks.feedforward import FeedForward, FeedForwardHead, FeedForwardLayer
from checks.memory import InMemoryEvidence
from checks.quantise import metric

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from checks.clusterability.check import Clusterability
    from checks.clusterability.testing import Run

SIDE = 32
"""Residual width, hidden neurons and neurons of a net: every matrix and product is 32x32, whose null is committed for
the matrices and takes .7 s for the products."""

HEADS, HEAD_WIDTH = 8, 4

LAYERS = 3
"""Layers of the plant, whatever `layers` names: blocks of the audited model are not its blocks."""

LAYERS_MANY = 4
"""Layers where every candidate of k is more than half of the heads of `LAYERS`: 32 heads hold sixteen groups."""

GROUPS = 2
"""Halves, as in organism F."""

LEAK = 0.2
"""Weights into the other half, relative to those into the own one. A product of 32x32 loses half of its excess between
.2 and .3, and the control asks whether the code finds what is there, not how little of it."""

GROUPS_MANY, LEAK_MANY = 4, 0.05
"""The plant where the caller does not ask for two groups: p was at its minimum in three of three draws at k = 3, 4, 6,
8, 12 and 16 for heads, and at 4, 8 and 16 for products and nets. Two groups are missed at k = 16."""

NET_LEAK = 0.3
"""The same of a net, whose statistic is a mean over its layers."""

EXCESS: Mapping[str, tuple[float, float]] = {
    "virtual_mlp": (0.12, 0.26),
    HEAD_GRAPH: (0.2, 0.4),
    NETWORK: (0.18, 0.27),
}
"""Bands of the excess. Forty seeds gave .157 to .218, .278 to .296 and .217 to .234, and an ARI of 1 every time."""

BLOCKS = "planted.blocks"
"""The one matrix where neither products nor graphs are audited."""


@dataclass(frozen=True)
class PlantedGraphs:
    """Two groups hidden across the layers of a small model of the audited kind."""

    name: ClassVar[str] = "planted-graphs"
    kind: ClassVar[Literal["positive"]] = "positive"

    @property
    def promises(self) -> Sequence[PromisedBand]:
        """Return the bands: p hangs on the replicates, the agreement with one planted matrix on its recipe."""
        whole = [(HEAD_GRAPH, {"matrix": HEAD_GRAPH}), (NETWORK, {"matrix": NETWORK}), ("virtual_mlp", {})]
        excess = [(labels, *EXCESS[family]) for family, labels in whole]
        return (
            PromisedBand(metric="p", low=0.0, high=p_reach(NULLS_ASKED_LEAST), fixed=False, always=True),
            PromisedBand(metric="planted_ari", low=min(ARI_MIN, ARI_SMALL), high=1.0, fixed=False),
            PromisedBand(metric="k", low=GROUPS - 1.0, high=GROUPS + 1.0),
            *(PromisedBand(metric="excess_q", low=low, high=high, labels=labels) for labels, low, high in excess),
        )

    def spoil(self, check: Clusterability, seen: Evidence) -> Evidence:
        """Return evidence of a small transformer or net in two groups.

        Where the audit has no product, graph or network it is one planted matrix: a control that is silent has missed.
        """
        rng = seen.rng("planted-graphs")
        owed = owed_of(check, seen.facts)
        layers = LAYERS if asked_ks(check.k, LAYERS * HEADS) else LAYERS_MANY
        few = _few(check)
        groups = GROUPS if few else GROUPS_MANY
        if owed.network:
            leak = NET_LEAK if few else LEAK_MANY
            return _evidence(check, *planted_net(layers, leak, rng, groups=groups), rng)
        if owed.heads or owed.pairs:
            leak = LEAK if few else LEAK_MANY
            return _evidence(check, *planted_transformer(layers, leak, rng, groups=groups), rng)
        k, rho = plant_recipe(SHAPE, check.candidates(SHAPE))
        weights, truth = planted(SHAPE, k, rho, rng)
        return planted_evidence(check, seen, {BLOCKS: weights}, {BLOCKS: Plant(k, truth)})

    def bands(self, check: Clusterability, measured: Measured) -> Sequence[Expected]:
        """Return the bands of p, which must be at its minimum, and, where two groups were sought, of the rest."""
        expected: list[Expected] = []
        for told in measured.named("p"):
            matrix = told.labels["matrix"]
            family = matrix.split(".")[0]
            if family not in EXCESS and matrix != BLOCKS:
                continue
            expected.append(_band("p", matrix, float(told.value), 0.0, p_reach(told.n)))
            sought = _few(check)
            least = ari_min(plant_recipe(SHAPE, check.candidates(SHAPE))[1]) if matrix == BLOCKS else ARI_MIN
            bands = {"planted_ari": (least, 1.0)} if matrix == BLOCKS or sought else {}
            if family in EXCESS and sought:
                bands |= {"k": (GROUPS - 1.0, GROUPS + 1.0), "excess_q": EXCESS[family]}
            for name, (low, high) in bands.items():
                found = measured.find(name, matrix=matrix)
                if found is not None:
                    expected.append(_band(name, matrix, float(found.value), low, high))
        return expected


def _few(check: Clusterability) -> bool:
    """Tell whether two groups are sought: candidates of a caller's own may leave them out."""
    return check.k == "auto" or GROUPS in check.k


def _band(name: str, matrix: str, value: float, low: float, high: float) -> Expected:
    return Expected(metric=name, value=value, low=low, high=high, labels={"matrix": matrix})


def planted_agreement(run: Run, facts: ModelFacts) -> tuple[Metric, ...]:
    """Return how well products, graph and net of a planted model agree with the plant; nothing of any other model.

    Products and nets are asked at two clusters where that was a candidate, the graph at the number found.
    """
    if not isinstance(facts, PlantedModel):
        return ()
    found = {
        one.name: np.concatenate([part.rows, part.columns])
        for one in run.matrices
        if GROUPS in one.found.null.ks
        for part in (one.found.at(GROUPS),)
    }
    if run.graph is not None:
        found[HEAD_GRAPH] = run.graph.found.labels
    if run.network is not None and GROUPS in run.network.found.null.ks:
        found[NETWORK] = run.network.found.at(GROUPS).joined
    return tuple(_agreement(name, labels, facts.plants[name]) for name, labels in found.items() if name in facts.plants)


def _agreement(name: str, labels: Int[np.ndarray, " nodes"], plant: Plant) -> Metric:
    truth = np.concatenate([plant.truth.rows, plant.truth.columns])
    return metric(
        "planted_ari",
        adjusted_rand(labels, truth),
        n=len(labels),
        unit="1",
        determinism="tolerance",
        labels={"matrix": name},
        tolerance=TOLERANCE,
    )


def planted_transformer(
    layers: int, leak: float, rng: np.random.Generator, *, groups: int = GROUPS
) -> tuple[PlantedModel, Mapping[str, np.ndarray]]:
    """Return a small GPT-2 whose neurons and heads belong to two halves of a rotated residual stream.

    Args:
        layers: blocks, at least 2.
        leak: standard deviation of weights into the other half, where those into the own half have 1.
        rng: draws weights, halves and the rotation.
        groups: how many instead of two halves.
    """
    axes = np.arange(SIDE) % groups
    rotation = np.linalg.qr(rng.standard_normal((SIDE, SIDE)))[0]

    def reading(units: Int[np.ndarray, " units"]) -> Float[np.ndarray, "units width"]:
        own = units[:, None] == axes
        return np.asarray(rng.standard_normal((len(units), SIDE)) * np.where(own, 1.0, leak) @ rotation.T)

    weights: dict[str, np.ndarray] = {}
    neurons = [_groups(SIDE, groups, rng) for _ in range(layers)]
    heads = [_groups(HEADS, groups, rng) for _ in range(layers)]
    for layer in range(layers):
        at, rows = f"transformer.h.{layer}.", np.repeat(heads[layer], HEAD_WIDTH)
        weights[f"{at}mlp.c_fc.weight"] = reading(neurons[layer])
        weights[f"{at}mlp.c_proj.weight"] = reading(neurons[layer]).T
        weights[f"{at}attn.c_attn.weight"] = np.concatenate([reading(rows) for _ in range(3)])
        weights[f"{at}attn.c_proj.weight"] = reading(rows).T
        weights |= {f"{at}{norm}.weight": np.ones(SIDE) for norm in ("ln_1", "ln_2")}
    plants = {
        f"virtual_mlp.{layer}": Plant(groups, Partition(neurons[layer + 1], neurons[layer]))
        for layer in range(layers - 1)
    }
    plants[HEAD_GRAPH] = _all_nodes(groups, heads)
    return _transformer_facts(layers, weights, plants), weights


def _transformer_facts(layers: int, weights: Mapping[str, np.ndarray], plants: Mapping[str, Plant]) -> PlantedModel:
    return PlantedModel(
        architecture="gpt2",
        layers=layers,
        width=SIDE,
        heads=HEADS,
        vocabulary=SIDE,
        context=SIDE,
        causal=True,
        tensors={name: array.shape for name, array in weights.items()},
        mlp_in=tuple(f"transformer.h.{layer}.mlp.c_fc.weight" for layer in range(layers)),
        mlp_out=tuple(f"transformer.h.{layer}.mlp.c_proj.weight" for layer in range(layers)),
        transposed=frozenset(),
        plants=plants,
    )


def planted_net(
    layers: int, leak: float, rng: np.random.Generator, *, side: int = SIDE, groups: int = GROUPS
) -> tuple[PlantedModel, Mapping[str, np.ndarray]]:
    """Return a small ReLU net whose neurons, inputs and outputs belong to two groups.

    Args:
        layers: linear layers, at least 2.
        leak: standard deviation of weights between groups, where those inside have 1.
        rng: draws weights and groups.
        side: neurons of every layer, inputs and outputs.
        groups: how many instead of two.
    """
    nodes = [_groups(side, groups, rng) for _ in range(layers + 1)]
    weights = {
        f"layer.{layer}.weight": rng.standard_normal((side, side)) * np.where(after[:, None] == before, 1.0, leak)
        for layer, (before, after) in enumerate(pairwise(nodes))
    }
    ops = [one for name in weights for one in (FeedForwardLayer(op="linear", weight=name), FeedForwardLayer(op="relu"))]
    declared = FeedForward(
        input=(side,),
        layers=tuple(ops[:-1]),
        shapes=((side,),) * (len(ops) - 1),
        heads=(FeedForwardHead(name="out", start=0, stop=side),),
    )
    facts = PlantedModel(
        architecture="feedforward",
        layers=layers,
        width=0,
        heads=0,
        vocabulary=0,
        context=0,
        causal=False,
        tensors={name: array.shape for name, array in weights.items()},
        mlp_in=(),
        mlp_out=(),
        transposed=frozenset(),
        feedforward=declared,
        plants={NETWORK: _all_nodes(groups, nodes)},
    )
    return facts, weights


def _groups(nodes: int, groups: int, rng: np.random.Generator) -> Int[np.ndarray, " nodes"]:
    return np.asarray(rng.permutation(np.arange(nodes) % groups))


def _all_nodes(groups: int, layers: Sequence[Int[np.ndarray, " nodes"]]) -> Plant:
    return Plant(groups, Partition(np.concatenate(layers), np.zeros(0, dtype=np.int64)))


def _evidence(
    check: Clusterability, facts: PlantedModel, weights: Mapping[str, np.ndarray], rng: np.random.Generator
) -> Evidence:
    return InMemoryEvidence(facts=facts, check=check.name, seed=int(rng.integers(2**63)), weights=weights)
