"""Norms of a feed-forward model that no matrix takes up: told by name, so that raw scores are read beside them."""

from __future__ import annotations

from assay.result import Skipped

from checks.check import Evidence
from checks.clusterability.layers import folded
from checks.clusterability.matrices import PlantedFacts

NOT_FOLDED = "norm_not_folded"
"""Reason under which they are told."""


def norms_left(evidence: Evidence) -> tuple[Skipped, ...]:
    """Return the norms that stay where they are, each by its first tensor (specification, section 4.1)."""
    model = evidence.facts.feedforward
    if model is None or isinstance(evidence.facts, PlantedFacts):
        return ()
    steps = (step for own in folded(model, evidence.weights).steps.values() for step in own)
    places = sorted(int(step.split(":")[1]) for step in steps if "_left:" in step)
    norms = (model.layers[place] for place in places)
    names = (norm.weight or norm.mean or norm.bias for norm in norms)
    return tuple(Skipped(item=name[:128], reason=NOT_FOLDED) for name in names if name is not None)
