"""What of a model is owed an answer, and which tensors that takes. Specification: clusterability, section 5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from checks.check import ModelFacts, Refusal
from checks.clusterability.families import (
    ABSENT,
    HEAD_GRAPH,
    NETWORK,
    Family,
    families_of,
    virtual_name,
)
from checks.clusterability.graphs import graph_ks
from checks.clusterability.layouts import attention_names, mlp_names
from checks.clusterability.matrices import PlantedFacts, PlantedModel, owed
from checks.feedforward import FeedForward
from checks.parameters import Layers, chosen_layers

if TYPE_CHECKING:
    from checks.clusterability.check import Clusterability


@dataclass(frozen=True)
class Owed:
    """What a model is owed, and what it cannot have."""

    matrices: tuple[str, ...]
    """Tensors whose matrix is tested alone."""
    pairs: tuple[int, ...] = ()
    """Layers whose MLP is multiplied with the next one's."""
    heads: bool = False
    network: bool = False
    tensors: tuple[str, ...] = ()
    """Names of all tensors that are needed."""
    absent: tuple[tuple[str, str], ...] = ()
    """Families that were asked for and are not there: (family, reason)."""

    @property
    def names(self) -> tuple[str, ...]:
        """Labels in the report."""
        whole = (*((HEAD_GRAPH,) if self.heads else ()), *((NETWORK,) if self.network else ()))
        return (*self.matrices, *(virtual_name(layer) for layer in self.pairs), *whole)


def owed_of(check: Clusterability, facts: ModelFacts) -> Owed:
    """Return what a model is owed; a control's own model is owed its matrices alone.

    Raises:
        Refusal: `layer_out_of_range`, or `no_mlp` where an architecture's matrices are not tabled.
    """
    if isinstance(facts, PlantedFacts):
        return Owed(facts.mlp_in, tensors=facts.mlp_in)
    asked = families_of(check.families, facts.kind)
    absent: list[tuple[str, str]] = []
    if check.families != "auto":
        absent += [(name, ABSENT[name]) for name in check.families if name not in asked]
    if facts.feedforward is not None:
        return _of_net(check, facts, facts.feedforward, asked, absent)
    if not facts.mlp_in and not facts.mlp_out:
        raise Refusal("no_mlp", (facts.architecture,))
    return _of_transformer(check, facts, asked, absent)


def _layers(check: Clusterability, facts: ModelFacts) -> Layers:
    """Return the layers that are asked for; of a control's own model all, whatever the parameter names of the real."""
    return "all" if isinstance(facts, PlantedModel) else check.layers


def _of_net(
    check: Clusterability, facts: ModelFacts, model: FeedForward, asked: Sequence[Family], absent: list[tuple[str, str]]
) -> Owed:
    ops: dict[str, Family] = {"linear": "linear", "conv2d": "conv"}
    weighted = [model.layers[index] for index in model.weighted]
    chosen = [weighted[layer] for layer in chosen_layers(_layers(check, facts), facts.layers)]
    matrices = tuple(layer.weight for layer in chosen if layer.weight is not None and ops[layer.op] in asked)
    if check.families != "auto":
        present = {ops[layer.op] for layer in chosen}
        absent += [(name, ABSENT[name]) for name in asked if name != NETWORK and name not in present]
    network = NETWORK in asked and len(weighted) > 1
    absent += [(NETWORK, ABSENT["network"])] if NETWORK in asked and not network else []
    # Norms belong to the layers beside them: every tensor of the file is part of some matrix or of its function.
    tensors = tuple(facts.tensors) if matrices or network else ()
    return Owed(matrices, network=network, tensors=tensors, absent=tuple(absent))


def _of_transformer(
    check: Clusterability, facts: ModelFacts, asked: Sequence[Family], absent: list[tuple[str, str]]
) -> Owed:
    matrices = owed(_layers(check, facts), facts, asked)
    tensors = [*matrices, *beside(check, facts, asked)]
    pairs = _pairs(_layers(check, facts), facts) if "virtual_mlp" in asked else ()
    if pairs:
        try:
            names = mlp_names(facts)
            tensors += [name for layer in pairs for name in names.weights(layer)]
        except Refusal as why:
            pairs = ()
            absent.append(("virtual_mlp", why.reason))
    heads = HEAD_GRAPH in asked and facts.layers > 1
    if heads:
        try:
            tensors += attention_names(facts).weights
        except Refusal as why:
            heads = False
            absent.append((HEAD_GRAPH, why.reason))
    if heads and not graph_ks(facts.layers * facts.heads):
        heads = False
        absent.append((HEAD_GRAPH, "too_small"))
    return Owed(matrices, pairs, heads, False, tuple(dict.fromkeys(tensors)), tuple(absent))


def _pairs(layers: Layers, facts: ModelFacts) -> tuple[int, ...]:
    chosen = set(chosen_layers(layers, facts.layers))
    return tuple(layer for layer in sorted(chosen) if layer + 1 in chosen)


def beside(check: Clusterability, facts: ModelFacts, asked: Sequence[Family]) -> tuple[str, ...]:
    """Return the tensors that the view `unit_in_norm` of a block's last matrix takes: the block's first."""
    if "mlp_out" not in asked or "unit_in_norm" not in check.comparable_views:
        return ()
    return tuple(
        facts.mlp_in[layer] for layer in chosen_layers(_layers(check, facts), facts.layers) if layer < len(facts.mlp_in)
    )
