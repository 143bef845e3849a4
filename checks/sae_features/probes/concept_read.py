"""From fitted probes to areas and paired differences on rows that chose nothing. Specification, section 7."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.sae_features.dictionary.grouped import Estimate, Groups, difference
from checks.sae_features.probes.concept_auroc import auroc, weighted
from checks.sae_features.probes.concept_fit import (
    Design,
    Scored,
    chosen_latents,
    components,
    dense,
    diffmean,
    sparse,
)
from checks.sae_features.probes.concept_values import ConceptRows, Features, ProbeSettings, Readings, Twin
from checks.sae_features.probes.surface import ngrams, places

if TYPE_CHECKING:
    from jaxtyping import Bool

SURFACE = ("ngram", "position", "twin_dense", "twin_sparse")
"""What a concept is read from without the model having learned anything (specification, section 7)."""


@dataclass(frozen=True, eq=False)
class Shared:
    """Probes that have none of the dictionaries under question in them."""

    scored: Mapping[str, Scored]
    surface: str
    """The best baseline on val."""


@dataclass(frozen=True, eq=False)
class Own:
    """Probes of one dictionary."""

    sparse: Mapping[int, Scored]
    residual: Scored
    k: int
    latents: tuple[int, ...]


def shared_probes(
    design: Design, rows: ConceptRows, frozen: Features | None, twin: Twin | None, settings: ProbeSettings
) -> Shared:
    """Return the dense probe and every baseline that is there."""
    counts = ngrams(rows.tokens)
    scored = {
        "dense": dense(design, rows.x),
        "diffmean": diffmean(design, rows.x),
        "pca16": components(design, rows.x),
        # Buckets that no train row fills have no weight; left out, they cost nothing.
        "ngram": dense(design, counts[:, counts[design.train].any(0)]),
        "position": dense(design, places(rows.positions, rows.lengths)),
    }
    if twin is not None:
        read = sparse(design, twin.latents, settings.ks)
        scored |= {"twin_dense": dense(design, twin.x), "twin_sparse": read[_best_k(read)]}
    if frozen is not None:
        read = sparse(design, frozen.latents, settings.ks)
        scored |= {f"frozen_sparse_{k}": one for k, one in read.items()}
        scored["frozen_sparse"] = read[_best_k(read)]
    surface = max((name for name in SURFACE if name in scored), key=lambda name: scored[name].val)
    return Shared(scored, surface)


def own_probes(design: Design, features: Features, settings: ProbeSettings) -> Own:
    """Return the probes of a dictionary, its k and its latents."""
    read = sparse(design, features.latents, settings.ks)
    k = _best_k(read)
    return Own(read, dense(design, features.residual), k, chosen_latents(design, features.latents, k))


def readings(
    own: Own, shared: Shared, held: Bool[np.ndarray, " row"], labels: np.ndarray, drawn: Groups, level: float
) -> Readings:
    """Return the areas of every probe on some rows, and their differences draw by draw.

    Args:
        own: the dictionary's probes.
        shared: the others.
        held: the rows to read: test, or those of a shift.
        labels: labels of these rows.
        drawn: resamples of the groups of these rows, shared by all estimates.
        level: coverage of the intervals.
    """
    scored = {**shared.scored, **{f"sparse_{k}": one for k, one in own.sparse.items()}, "residual_dense": own.residual}
    weights = drawn.times[:, drawn.index]
    areas = {name: _area(one, held, labels, weights, drawn, level) for name, one in scored.items()}
    chosen, dense_probe = own.sparse[own.k], shared.scored["dense"]
    best = "sparse" if chosen.val > dense_probe.val else "dense"
    sparse_area = areas[f"sparse_{own.k}"]
    better = sparse_area if best == "sparse" else areas["dense"]
    return Readings(
        auroc=areas,
        delta_sae=difference(sparse_area, areas["dense"], level),
        delta_surface=difference(better, areas[shared.surface], level),
        delta_frozen=difference(sparse_area, areas["frozen_sparse"], level) if "frozen_sparse" in areas else None,
        delta_sparse_16=difference(areas[f"sparse_{max(own.sparse)}"], areas["dense"], level),
        k=own.k,
        latents=own.latents,
        best="sparse" if best == "sparse" else "dense",
        surface=shared.surface,
        penalties={name: one.penalty for name, one in scored.items() if one.penalty is not None},
    )


def _area(
    scored: Scored,
    held: Bool[np.ndarray, " row"],
    labels: np.ndarray,
    weights: np.ndarray,
    drawn: Groups,
    level: float,
) -> Estimate:
    scores = scored.scores[:, held]
    value = float(auroc(scores, labels).mean())
    return drawn.told(value, weighted(scores, labels == 1, weights).mean(0), level)


def _best_k(read: Mapping[int, Scored]) -> int:
    return max(sorted(read), key=lambda k: read[k].val)
