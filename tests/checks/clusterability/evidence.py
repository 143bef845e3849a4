from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from checks.memory import InMemoryEvidence, model_facts


def evidence_of(weights: Mapping[str, np.ndarray], seed: int = 7) -> InMemoryEvidence:
    """Return evidence of a model whose only matrices are these, one a layer."""
    facts = model_facts(layers=len(weights), mlp_in=tuple(weights))
    return InMemoryEvidence(facts=facts, check="clusterability", seed=seed, weights=weights)
