"""The matrices of a model that can be tested, and by name and reason those that cannot. Specification: section 3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from assay.result import Skipped

from checks.check import Evidence
from checks.clusterability.asking import Owed
from checks.clusterability.families import (
    HEAD_GRAPH,
    NETWORK,
    NETWORK_ENTRIES_MAX,
    VIRTUAL_ENTRIES_MAX,
    virtual,
    virtual_name,
)
from checks.clusterability.graphs import asked_ks
from checks.clusterability.layers import LayerMatrix, layer_matrices
from checks.clusterability.layouts import attention_names, mlp_names
from checks.clusterability.matrices import SIDE_MIN, PlantedFacts, Unusable, Usable, examine
from checks.clusterability.views import unit_in_norm

if TYPE_CHECKING:
    from jaxtyping import Float

    from checks.clusterability.check import Clusterability

Masses = Callable[[], "Float[np.ndarray, 'n m'] | None"]


@dataclass(frozen=True)
class Candidate:
    """A matrix that can be tested."""

    name: str
    matrix: Usable
    inner: int | None = None
    """Inner size of the product null, of a `virtual_mlp`."""
    gated: bool = False
    unit_in_norm: Masses | None = None
    """Returns the view that takes the layers beside this one; None where it stands alone."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns without dead ones."""
        return self.matrix.values.shape[0], self.matrix.values.shape[1]


@dataclass(frozen=True)
class Found:
    """What of a model can be tested."""

    candidates: tuple[Candidate, ...]
    chain: tuple[Float[np.ndarray, "out in"], ...] = ()
    """Canonical matrices of a net whose network partition can be tested."""
    heads: bool = False
    skipped: tuple[Skipped, ...] = ()
    owed: int = 0
    """What is owed a word, whether or not it can be tested: how many draws a null needs is planned for all of it."""


def candidates_of(check: Clusterability, owed: Owed, evidence: Evidence) -> Found:
    """Return what of that which is owed can be tested, and what cannot."""
    skipped = [Skipped(item=family, reason=reason) for family, reason in owed.absent]
    if evidence.facts.feedforward is not None and not isinstance(evidence.facts, PlantedFacts):
        return _of_net(check, owed, evidence, skipped)
    candidates = []
    for name in owed.matrices:
        one = _candidate(check, name, evidence.weights(name), skipped)
        if one is not None:
            candidates.append(_beside(check, one, evidence))
    candidates += [one for layer in owed.pairs if (one := _product(check, layer, evidence, skipped)) is not None]
    heads = owed.heads and _heads(check, evidence, skipped)
    return Found(tuple(candidates), heads=heads, skipped=tuple(skipped), owed=len(owed.names))


def usable_matrices(check: Clusterability, owed: Owed, evidence: Evidence) -> tuple[Usable, ...]:
    """Return the single matrices that can be tested: what controls plant and draw at the shapes of."""
    if evidence.facts.feedforward is None or isinstance(evidence.facts, PlantedFacts):
        share = float(check.zero_share_dense)
        seen = (examine(name, evidence.weights(name), share) for name in owed.matrices)
        return tuple(one for one in seen if isinstance(one, Usable))
    return tuple(one.matrix for one in candidates_of(check, owed, evidence).candidates)


def _candidate(
    check: Clusterability,
    name: str,
    weights: Float[np.ndarray, "n m"],
    skipped: list[Skipped],
    *,
    zero_share_dense: float | None = None,
) -> Candidate | None:
    one = examine(name, weights, float(check.zero_share_dense) if zero_share_dense is None else zero_share_dense)
    if isinstance(one, Unusable):
        skipped.append(Skipped(item=one.item, reason=one.reason))
        return None
    held = check.candidates((one.values.shape[0], one.values.shape[1]))
    dropped = () if check.k == "auto" else tuple(sorted(set(check.k) - set(held)))
    skipped += [Skipped(item=f"{name[:120]}:k:{k}", reason="k_too_large") for k in dropped]
    return Candidate(name, one) if held else None


def _beside(check: Clusterability, one: Candidate, evidence: Evidence) -> Candidate:
    """Return a block's last matrix with the view that takes its first: their chain is one hidden layer."""
    facts = evidence.facts
    if "unit_in_norm" not in check.comparable_views or one.name not in facts.mlp_out:
        return one
    layer = facts.mlp_out.index(one.name)
    if layer >= len(facts.mlp_in):
        return one

    def masses() -> Float[np.ndarray, "n m"] | None:
        chain = (evidence.weights(facts.mlp_in[layer]), evidence.weights(one.name))
        return chain_masses(chain, 1, one.matrix)

    return Candidate(one.name, one.matrix, unit_in_norm=masses)


def chain_masses(
    chain: Sequence[Float[np.ndarray, "out in"]], place: int, matrix: Usable
) -> Float[np.ndarray, "n m"] | None:
    """Return the view `unit_in_norm` of one matrix of a chain, total 1; None where the chain is not finite."""
    if not all(np.isfinite(weights).all() for weights in chain[: place + 1]):
        return None
    magnitudes = matrix.of_whole(unit_in_norm(chain)[place])
    total = float(magnitudes.sum())
    return np.asarray(magnitudes / total) if np.isfinite(total) and total > 0 else None


def _product(check: Clusterability, layer: int, evidence: Evidence, skipped: list[Skipped]) -> Candidate | None:
    name = virtual_name(layer)
    if not _finite(name, mlp_names(evidence.facts).weights(layer), evidence, skipped):
        return None
    product = virtual(layer, evidence.facts, evidence.weights)
    if product.values.size > VIRTUAL_ENTRIES_MAX:
        skipped.append(Skipped(item=name, reason="too_large"))
        return None
    # Zeros of a product are where nothing is read of what is written: its route is never the mask's.
    one = _candidate(check, name, product.values, skipped, zero_share_dense=1.0)
    return None if one is None else Candidate(name, one.matrix, product.inner, product.gated)


def _heads(check: Clusterability, evidence: Evidence, skipped: list[Skipped]) -> bool:
    """Tell whether the graph of heads can be tested at any candidate of k; what is left out is named."""
    held = asked_ks(check.k, evidence.facts.layers * evidence.facts.heads)
    dropped = () if check.k == "auto" else tuple(sorted(set(check.k) - set(held)))
    skipped += [Skipped(item=f"{HEAD_GRAPH}:k:{k}", reason="k_too_large") for k in dropped]
    return bool(held) and _finite(HEAD_GRAPH, attention_names(evidence.facts).weights, evidence, skipped)


def _finite(item: str, tensors: Sequence[str], evidence: Evidence, skipped: list[Skipped]) -> bool:
    """Tell whether all tensors are finite; else what is left out is named, and the first bad entry."""
    for tensor in tensors:
        bad = np.argwhere(~np.isfinite(evidence.weights(tensor)))
        if len(bad):
            at = ":".join([tensor[:100], *(str(place) for place in bad[0])])
            skipped += [Skipped(item=item, reason="non_finite"), Skipped(item=at, reason="non_finite")]
            return False
    return True


def _of_net(check: Clusterability, owed: Owed, evidence: Evidence, skipped: list[Skipped]) -> Found:
    model = evidence.facts.feedforward
    assert model is not None
    matrices = layer_matrices(model, evidence.weights)
    chain = tuple(one.signed for one in matrices)
    candidates = []
    for place, layer in enumerate(matrices):
        if layer.name not in owed.matrices:
            continue
        if layer.fault is not None:
            skipped += [Skipped(item=item, reason="non_finite") for item in _fault_items(layer)]
            continue
        one = _candidate(check, layer.name, chain[place], skipped)
        if one is not None:
            candidates.append(Candidate(one.name, one.matrix, unit_in_norm=_in_chain(chain, place, one.matrix)))
    network = owed.network and _whole(matrices, chain, skipped)
    return Found(tuple(candidates), chain if network else (), skipped=tuple(skipped), owed=len(owed.names))


def _in_chain(chain: Sequence[Float[np.ndarray, "out in"]], place: int, matrix: Usable) -> Masses:
    return lambda: chain_masses(chain, place, matrix)


def _fault_items(layer: LayerMatrix) -> tuple[str, ...]:
    """Return the bad entry, and the matrix where the entry is of another tensor, as a norm's."""
    assert layer.fault is not None
    own = layer.fault.startswith(f"{layer.name[:100]}:")
    return (layer.fault,) if own else (layer.name, layer.fault)


def _whole(
    matrices: Sequence[LayerMatrix], chain: Sequence[Float[np.ndarray, "out in"]], skipped: list[Skipped]
) -> bool:
    """Tell whether a net can be tested as a whole; else why not."""
    reason = None
    if any(one.fault for one in matrices):
        reason = "non_finite"
    elif not all(weights.any() for weights in chain):
        reason = "empty"
    elif not any(np.ptp(np.abs(weights)) for weights in chain):
        reason = "constant"
    elif max(len(weights) for weights in chain[:-1]) < SIDE_MIN:
        reason = "too_small"
    elif sum(weights.size for weights in chain) > NETWORK_ENTRIES_MAX:
        reason = "too_large"
    if reason is not None:
        skipped.append(Skipped(item=NETWORK, reason=reason))
    return reason is None
