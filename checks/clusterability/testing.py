"""The tests of one audit: every candidate against its null, Holm over all of them, and a second look at what passes.

Specification: sections 4.5 and 4.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from assay.result import Metric, Skipped

from checks.check import Evidence
from checks.clusterability.candidates import Candidate, Found
from checks.clusterability.cocluster import Embedding, assign, embed
from checks.clusterability.families import (
    HEAD_GRAPH,
    NETWORK,
    GraphFound,
    NetworkFound,
    ProductNulls,
    heads_found,
    network_found,
)
from checks.clusterability.graphs import NothingToShuffle, asked_ks
from checks.clusterability.masks import DAMPING, mask_stability, mask_structure
from checks.clusterability.matrices import Plant, PlantedFacts
from checks.clusterability.metrics import Detail, Tested, graph_metrics, metrics, network_metrics
from checks.clusterability.network_tests import network_ks, network_width
from checks.clusterability.nulls import committed_n, null_table
from checks.clusterability.scores import adjusted_rand, eigengap
from checks.clusterability.structure import Structure, confirmation_null, deletions, structure_test
from checks.clusterability.transformer import d_eff
from checks.clusterability.views import normal_scores, view
from checks.holm import holm

if TYPE_CHECKING:
    from checks.clusterability.check import Clusterability

MASK_NULLS_MAX = 1999
"""Replicates of a mask at most: they are drawn in the audit, some 15 ms each at 96x256."""

NULLS_LEAST = 199
"""Replicates computed at least (4.5)."""

NULLS_ASKED_LEAST = 99
"""Replicates that a caller may ask for at least: p can be .01 then (section 2)."""

TESTS_MAX = 40
"""Matrices of one answer: beyond, the numbers would crowd the result document; ask for fewer layers."""

K_MAX = 16
"""Largest candidate of k (section 2)."""

DETAILS_MAX = 24
"""Matrices of largest excess of which details are told. An answer with plots and controls whose 24 matrices all pass
is charged 31 of an audit's 64 KB (`sandbox.budget`), one of 40 that all pass 39."""

RESEEDS = 5
"""Further seeds of k-means whose agreement is told, as many as one run has starts; no claim rests on it (4.6)."""


@dataclass(frozen=True)
class Run:
    """Everything that was tested together."""

    matrices: tuple[Tested, ...]
    graph: GraphFound | None
    network: NetworkFound | None
    whole_p_holm: dict[str, float]
    """p of the graph and of the network after Holm, by name."""
    together: int
    """How many were corrected together."""
    skipped: tuple[Skipped, ...]
    """What turned out to have no test."""


def all_tests(check: Clusterability, found: Found, evidence: Evidence) -> Run:
    """Return the tests of all that can be tested."""
    borrowed = _borrowed(evidence)
    together = borrowed or len(found.candidates) + int(found.heads) + int(bool(found.chain))
    products = ProductNulls(evidence.rng)
    # Draws are planned for all that is owed: the judge counts what was left out as tests that found nothing.
    planned = borrowed or max(found.owed, together)
    first = [_test(check, one, planned, products, evidence) for one in found.candidates]
    graph = _heads(check, planned, evidence) if found.heads else None
    net, dropped = _network(check, found, planned, evidence) if found.chain else (None, ())
    whole: dict[str, GraphFound | NetworkFound | None] = {HEAD_GRAPH: graph, NETWORK: net}
    held = {name: one.found.p for name, one in whole.items() if one is not None}
    raw = [*(one.p for one in first), *held.values()]
    corrected = [min(1.0, p * borrowed) for p in raw] if borrowed else holm(raw)
    matrices = _matrices(check, found, first, corrected[: len(first)], together, evidence)
    missing = (Skipped(item=HEAD_GRAPH, reason="empty"),) if found.heads and graph is None else ()
    whole_p = dict(zip(held, corrected[len(first) :], strict=True))
    return Run(matrices, graph, net, whole_p, together, (*missing, *dropped))


def _borrowed(evidence: Evidence) -> int:
    """Return the number of tests of the audit that a control's matrices stand in for; 0 of a model of its own."""
    return evidence.facts.together if isinstance(evidence.facts, PlantedFacts) else 0


def _matrices(
    check: Clusterability,
    found: Found,
    first: Sequence[Structure],
    corrected: Sequence[float],
    together: int,
    evidence: Evidence,
) -> tuple[Tested, ...]:
    """Return every matrix with its corrected p, and of those that pass what only they need."""
    raw = "raw" in check.comparable_views
    tested = []
    for one, seen, p_holm in zip(found.candidates, first, corrected, strict=True):
        passes = p_holm <= float(check.alpha) and seen.excess_q >= float(check.min_excess_q)
        bare = Tested(one.name, one.matrix, seen, p_holm, together, passes, None, None, _plant(one.name, evidence))
        tested.append(replace(bare, inner=one.inner, raw=raw))
    passing = sorted((one for one in tested if one.passes), key=lambda one: -one.found.excess_q)
    detailed = {one.name for one in passing[:DETAILS_MAX]}
    return tuple(
        _second_look(check, one, seen, evidence, detailed=one.name in detailed) if seen.passes else seen
        for one, seen in zip(found.candidates, tested, strict=True)
    )


def structure_metrics(run: Run) -> tuple[Metric, ...]:
    """Return the metrics of all matrices, then of the graph of heads and of the network."""
    told = [metric for one in run.matrices for metric in metrics(one)]
    if run.graph is not None:
        told += graph_metrics(run.graph, run.whole_p_holm[HEAD_GRAPH], run.together)
    if run.network is not None:
        told += network_metrics(run.network, run.whole_p_holm[NETWORK], run.together)
    return tuple(told)


def least_replicates(check: Clusterability, together: int) -> int:
    """Return how many replicates a null needs so that Holm over so many tests can reach alpha (section 2).

    Args:
        check: its `nulls` and `alpha`.
        together: tests that count, those of what was owed and could not be tested included.
    """
    if check.nulls != "auto":
        return check.nulls
    return max(NULLS_LEAST, ceil(2 * together / float(check.alpha)) - 1)


def replicates(check: Clusterability, shape: tuple[int, int], ks: tuple[int, ...], together: int) -> int:
    """Return how many replicates a matrix is held against: all that are committed, where they suffice."""
    least = least_replicates(check, together)
    return max(least, committed_n(shape, ks)) if check.nulls == "auto" else least


def _test(
    check: Clusterability, one: Candidate, together: int, products: ProductNulls, evidence: Evidence
) -> Structure:
    ks = check.candidates(one.shape)
    n = replicates(check, one.shape, ks, together)
    seed = int(evidence.rng(f"kmeans/{one.name}").integers(2**31))
    values = one.matrix.values
    if one.matrix.masked:
        return mask_structure(values != 0, ks, seed, evidence.rng(f"trades/{one.name}"), min(n, MASK_NULLS_MAX))
    if one.inner is None:
        return structure_test(values, null_table(one.shape, ks, n), seed)
    # Nothing is committed of products: what is of their shape asks for no more draws.
    drawn = least_replicates(check, together)
    return structure_test(values, products.table(one.shape, one.inner, ks, drawn, gated=one.gated), seed)


def _heads(check: Clusterability, together: int, evidence: Evidence) -> GraphFound | None:
    n, facts = least_replicates(check, together), evidence.facts
    ks = asked_ks(check.k, facts.layers * facts.heads)
    seed = int(evidence.rng(f"kmeans/{HEAD_GRAPH}").integers(2**31))
    try:
        return heads_found(facts, evidence.weights, ks, n, seed, evidence.rng(f"stability/{HEAD_GRAPH}"))
    except NothingToShuffle:
        return None


def _network(
    check: Clusterability, found: Found, together: int, evidence: Evidence
) -> tuple[NetworkFound | None, tuple[Skipped, ...]]:
    shapes = [(len(one), one.shape[1]) for one in found.chain]
    dropped: tuple[int, ...] = ()
    if check.k == "auto":
        ks = network_ks(shapes, range(2, K_MAX + 1))
    else:
        ks = tuple(k for k in check.k if k <= network_width(shapes) // 2)
        dropped = tuple(k for k in check.k if k not in ks)
    skipped = tuple(Skipped(item=f"{NETWORK}:k:{k}", reason="k_too_large") for k in dropped)
    if not ks:
        return None, skipped
    n = least_replicates(check, together)
    return network_found(found.chain, ks, n, evidence.rng, float(check.zero_share_dense)), skipped


def _plant(name: str, evidence: Evidence) -> Plant | None:
    return evidence.facts.plants.get(name) if isinstance(evidence.facts, PlantedFacts) else None


def _second_look(check: Clusterability, one: Candidate, seen: Tested, evidence: Evidence, *, detailed: bool) -> Tested:
    """Return a matrix that passes p and excess with its stability, the confirmation null, and details."""
    values, found = one.matrix.values, seen.found
    rng, confirm, draws = evidence.rng(f"stability/{one.name}"), None, None
    if one.matrix.masked:
        held = mask_stability(values != 0, found.partition, found.k, rng)
    else:
        draws = deletions(values, found.partition, found.k, rng)
        held = draws.ari
        if one.inner is None:  # a product's own null is of low rank already
            confirm = confirmation_null(values, found.k, evidence.rng(f"confirm/{one.name}"))
    # Controls are judged by the rule's numbers alone.
    detailed = detailed and not isinstance(evidence.facts, PlantedFacts)
    detail = replace(_detail(check, one, found, evidence), draws=draws) if detailed else None
    return replace(seen, stability=held, confirm=confirm, detail=detail)


def _detail(check: Clusterability, one: Candidate, found: Structure, evidence: Evidence) -> Detail:
    values = one.matrix.values
    points = _points(one, found.k)
    rng = evidence.rng(f"seeds/{one.name}")
    first = np.concatenate([found.partition.rows, found.partition.columns])
    again = (assign(points, found.k, int(rng.integers(2**31))) for _ in range(RESEEDS))
    agree = [adjusted_rand(first, np.concatenate([part.rows, part.columns])) for part in again]
    unit = None
    if "unit_in_norm" in check.comparable_views:
        unit = one.unit_in_norm() if one.unit_in_norm else view(values, "unit_in_norm")
    inner = one.inner
    if inner is None and not one.matrix.masked:
        inner = d_eff(values)
    return Detail(eigengap(points.singular, found.k), float(np.median(agree)), inner, unit)


def _points(one: Candidate, k: int) -> Embedding:
    """Return the cloud in which the matrix's clusters were sought."""
    values = one.matrix.values
    if one.matrix.masked:
        mask = values != 0
        return embed(mask / mask.sum(), k, damping=DAMPING)
    return embed(normal_scores(values).mass, k)
