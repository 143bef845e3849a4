"""Whether a concept can be read at a site, and whether a dictionary reads it better than what is simpler.

Sources: Kantamneni et al. 2025 (2502.16681) for sparse against dense probes, Korznikov et al. 2026 (2602.14111) for the
frozen decoder; specification of `sae_features`, section 7.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from checks.sae_features.probes.concept_values import (
    ConceptRefused,
    ConceptRows,
    ConceptTable,
    Features,
    ProbeSettings,
    Readings,
    Spread,
    Twin,
    least_permutations,
    split_of,
)

__all__ = [
    "ConceptRefused", "ConceptRows", "ConceptTable", "Features", "ProbeSettings", "Readings", "Spread", "Twin",
    "concept_table", "least_permutations", "split_of",
]  # fmt: skip


def concept_table(
    rows: ConceptRows,
    trained: Mapping[str, Features],
    frozen: Features | None,
    twin: Twin | None,
    settings: ProbeSettings,
    rng: Callable[[str], np.random.Generator],
) -> ConceptTable | ConceptRefused:
    """Return what each dictionary reads of a concept, beside what is simpler.

    Args:
        rows: the concept's rows.
        trained: what each dictionary makes of them, by its name; at least one.
        frozen: the same of the dictionary whose decoder never moved.
        twin: the same rows in the weight-shuffled twin.
        settings: numbers of the specification.
        rng: returns the generator of a label; equal labels draw equally.
    """
    raise NotImplementedError
