"""The metrics of the check: what each means, and how the measured numbers become them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from assay.result import Metric, Multiplicity, NullDistribution
from scipy.stats import beta

from checks.check import MetricSpec
from checks.clusterability import views
from checks.clusterability.families import HEAD_GRAPH, GraphFound
from checks.clusterability.masks import MaskStructure
from checks.clusterability.matrices import Plant, Usable
from checks.clusterability.nulls import committed_power
from checks.clusterability.scores import Scores, adjusted_rand, scores_of
from checks.clusterability.structure import Structure
from checks.quantise import metric, null_distribution
from checks.statistics import proportion_interval

if TYPE_CHECKING:
    from jaxtyping import Float

NO_INTERVAL = "No interval: weights are all there is, not a sample."
TOLERANCE = (1e-6, 0.0)
"""Scores agree between machines to this (section 9)."""

KEPT = {"balanced": ("c", "q_b", "c_adj", "ncut"), "raw": ("c", "ncut")}
"""Scores reported for each view: of the raw one those that others publish; a whole answer has to stay small."""


def _spec(name: str, unit: str, determinism: str, summary: str, *, view: bool = False) -> MetricSpec:
    labels = ("matrix", "view") if view else ("matrix",)
    return MetricSpec(name=name, unit=unit, labels=labels, better="none", determinism=determinism, summary=summary)  # type: ignore[arg-type]  # the three literals, below


METRICS: tuple[MetricSpec, ...] = (
    _spec("k", "count", "tolerance", f"Candidate number of clusters with the largest excess. {NO_INTERVAL}"),
    _spec("excess_q", "1", "tolerance", f"Modularity above the mean of the Gaussian null at k. {NO_INTERVAL}"),
    _spec("p", "1", "statistical", "p of the largest standardised modularity over all k; Clopper-Pearson interval."),
    _spec("p_holm", "1", "statistical", "The same after Holm over the matrices of the audit; its interval is p's."),
    _spec(
        "confirm_excess_q",
        "1",
        "statistical",
        "Modularity above noise of the same large singular values. The null's spread is told; no interval.",
    ),
    _spec(
        "stability",
        "1",
        "statistical",
        "Median ARI with partitions found without a tenth of rows and columns; 5-95% range of draws.",
    ),
    _spec(
        "c", "fraction", "tolerance", f"Share of mass inside clusters; no claim rests on it. {NO_INTERVAL}", view=True
    ),
    _spec("q_b", "1", "tolerance", f"Bipartite modularity, c - c_exp. {NO_INTERVAL}", view=True),
    _spec("c_adj", "1", "tolerance", f"(c - c_exp) / (c_max - c_exp). {NO_INTERVAL}", view=True),
    _spec(
        "ncut", "1", "tolerance", f"Sum over clusters of the share of mass that leaves them. {NO_INTERVAL}", view=True
    ),
    _spec(
        "min_cluster_share", "fraction", "tolerance", f"Smallest cluster, as a share of rows and columns. {NO_INTERVAL}"
    ),
    _spec("balance_residual", "1", "tolerance", f"Largest relative marginal error left by balancing. {NO_INTERVAL}"),
    _spec("zero_share", "fraction", "exact", "Share of exact zeros."),
    _spec("masked", "count", "exact", "1 where the pattern of zeros alone was tested and magnitudes were left out."),
    _spec("inner_size", "count", "tolerance", f"Inner size of the product null of a virtual_mlp. {NO_INTERVAL}"),
    _spec("dead_nodes", "count", "exact", "Rows and columns without any weight, left out."),
    _spec(
        "power",
        "fraction",
        "statistical",
        "Share of planted matrices of this shape (k 4, ratio .7) that are detected; Wilson interval.",
    ),
    _spec(
        "planted_ari", "1", "tolerance", f"Controls only: agreement with the planted partition at its k. {NO_INTERVAL}"
    ),
    _spec(
        "planted_c",
        "fraction",
        "tolerance",
        f"Controls only: raw C of the partition found at the planted k. {NO_INTERVAL}",
    ),
)


@dataclass(frozen=True)
class Tested:
    """All numbers of one matrix."""

    name: str
    matrix: Usable
    found: Structure
    p_holm: float
    together: int
    """Matrices that were corrected together."""
    passes: bool
    """p and excess pass: then, and only then, the next two are measured."""
    stability: Float[np.ndarray, " draws"] | None
    confirm: Float[np.ndarray, " draws"] | None
    """None also where the spiked null has no spikes; then the primary null confirms."""
    plant: Plant | None
    """What a control planted here."""
    inner: int | None = None
    """Inner size of the product null, of a `virtual_mlp`."""

    @property
    def null_kind(self) -> str:
        """Return what the null drew."""
        if self.matrix.masked:
            return "curveball-same-degrees"
        return "gaussian-shape-keyed" if self.inner is None else "gaussian-product"

    @property
    def planned(self) -> int:
        """Return the replicates that p could have rested on: drawing stops early where nothing is to be found."""
        return self.found.planned if isinstance(self.found, MaskStructure) else self.found.null.n


def metrics(one: Tested) -> tuple[Metric, ...]:
    """Return the metrics of one matrix, quantised."""
    return (*_test(one), *_second_look(one), *_scores(one), *_description(one), *_plant(one))


def _test(one: Tested) -> tuple[Metric, ...]:
    found, at = one.found, {"matrix": one.name}
    n, floor = found.null.n, 1.0 / (found.null.n + 1)
    best = found.null.ks.index(found.k)
    null = null_distribution(one.null_kind, [float(q) for q in found.null.q[:, best] - found.null.mean[best]])
    family = Multiplicity(family="matrices", m=one.together, corrected="holm")
    nodes = sum(one.matrix.values.shape)
    return (
        metric("k", float(found.k), n=nodes, unit="count", determinism="tolerance", labels=at, tolerance=TOLERANCE),
        metric(
            "excess_q",
            found.excess_q,
            n=nodes,
            unit="1",
            determinism="tolerance",
            labels=at,
            null=null,
            p=found.p,
            p_floor=floor,
            tolerance=TOLERANCE,
        ),
        metric(
            "p",
            found.p,
            n=n,
            unit="1",
            determinism="statistical",
            labels=at,
            interval=clopper_pearson(found.exceedances, n),
            method="clopper-pearson",
        ),
        metric(
            "p_holm", one.p_holm, n=one.planned, unit="1", determinism="statistical", labels=at, multiplicity=family
        ),
    )


def _second_look(one: Tested) -> tuple[Metric, ...]:
    if not one.passes or one.stability is None:
        return ()
    at, nodes = {"matrix": one.name}, sum(one.matrix.values.shape)
    low, median, high = (float(q) for q in np.quantile(one.stability, (0.05, 0.5, 0.95)))
    if one.confirm is None:
        null = _primary(one)
        excess = one.found.excess_q
    else:
        null = null_distribution("gaussian-spiked", [float(q) for q in one.confirm])
        excess = one.found.q[one.found.null.ks.index(one.found.k)] - float(one.confirm.mean())
    return (
        metric("confirm_excess_q", excess, n=nodes, unit="1", determinism="statistical", labels=at, null=null),
        metric(
            "stability",
            median,
            n=len(one.stability),
            unit="1",
            determinism="statistical",
            labels=at,
            interval=(low, high),
            level="0.9",
            method="delete-10pct-range",
        ),
    )


def _primary(one: Tested) -> NullDistribution:
    best = one.found.null.ks.index(one.found.k)
    return null_distribution(one.null_kind, [float(q) for q in one.found.null.q[:, best]])


def _scores(one: Tested) -> tuple[Metric, ...]:
    part, values = one.found.partition, one.matrix.values
    seen = {"balanced": views.balanced_squares(values).mass, "raw": views.raw(values)}
    told: list[Metric] = []
    for view, mass in seen.items():
        told += _of_view(one, view, scores_of(mass, part.rows, part.columns))
    return tuple(told)


def _of_view(one: Tested, view: str, scores: Scores) -> list[Metric]:
    pairs = {
        "c": (scores.c, "fraction"),
        "q_b": (scores.q_b, "1"),
        "c_adj": (scores.c_adj, "1"),
        "ncut": (scores.ncut, "1"),
    }
    at, nodes = {"matrix": one.name, "view": view}, sum(one.matrix.values.shape)
    return [
        metric(name, value, n=nodes, unit=unit, determinism="tolerance", labels=at, tolerance=TOLERANCE)
        for name, (value, unit) in pairs.items()
        if value is not None and name in KEPT[view]
    ]


def _description(one: Tested) -> tuple[Metric, ...]:
    part, at, nodes = one.found.partition, {"matrix": one.name}, sum(one.matrix.values.shape)
    sizes = np.bincount(np.concatenate([part.rows, part.columns]), minlength=one.found.k) / nodes
    close = {
        "min_cluster_share": (float(sizes.min()), "fraction"),
        "balance_residual": (one.found.residual, "1"),
    }
    told = [
        metric(name, value, n=nodes, unit=unit, determinism="tolerance", labels=at, tolerance=TOLERANCE)
        for name, (value, unit) in close.items()
    ]
    told.append(metric("zero_share", one.matrix.zero_share, n=nodes, unit="fraction", determinism="exact", labels=at))
    masked = float(one.matrix.masked)
    told.append(metric("masked", masked, n=nodes, unit="count", determinism="exact", labels=at))
    if one.inner is not None:
        inner = float(one.inner)
        told.append(
            metric("inner_size", inner, n=nodes, unit="count", determinism="tolerance", labels=at, tolerance=TOLERANCE)
        )
    told.append(metric("dead_nodes", float(one.matrix.dead), n=nodes, unit="count", determinism="exact", labels=at))
    return (*told, *_power(one))


def _power(one: Tested) -> tuple[Metric, ...]:
    if one.matrix.masked or one.inner is not None:
        return ()  # planted matrices of the dense route say nothing of these
    measured = committed_power((one.matrix.values.shape[0], one.matrix.values.shape[1]))
    if measured is None:
        return ()
    found, planted = measured
    return (
        metric(
            "power",
            found / planted,
            n=planted,
            unit="fraction",
            determinism="statistical",
            labels={"matrix": one.name},
            interval=proportion_interval(found, planted),
            method="wilson",
        ),
    )


def _plant(one: Tested) -> tuple[Metric, ...]:
    if one.plant is None:
        return ()
    at, nodes = {"matrix": one.name}, sum(one.matrix.values.shape)
    part, truth = one.found.at(one.plant.k), one.plant.truth
    ari = adjusted_rand(np.concatenate([part.rows, part.columns]), np.concatenate([truth.rows, truth.columns]))
    c = scores_of(views.raw(one.matrix.values), part.rows, part.columns).c
    return (
        metric("planted_ari", ari, n=nodes, unit="1", determinism="tolerance", labels=at, tolerance=TOLERANCE),
        metric("planted_c", c, n=nodes, unit="fraction", determinism="tolerance", labels=at, tolerance=TOLERANCE),
    )


def graph_metrics(one: GraphFound, p_holm: float, together: int) -> tuple[Metric, ...]:
    """Return the metrics of the graph of heads, under the names that a matrix has."""
    at, found = {"matrix": HEAD_GRAPH}, one.found
    best = found.null.ks.index(found.k)
    null = null_distribution("shuffled-in-blocks", [float(q) for q in found.null.q[:, best] - found.null.mean[best]])
    family = Multiplicity(family="matrices", m=together, corrected="holm")
    share = float(np.bincount(found.labels[found.labels >= 0], minlength=found.k).min() / one.nodes)
    low, median, high = (float(q) for q in np.quantile(one.stability, (0.05, 0.5, 0.95)))
    n, nodes = found.null.n, one.nodes

    def close(name: str, value: float, unit: str) -> Metric:
        return metric(name, value, n=nodes, unit=unit, determinism="tolerance", labels=at, tolerance=TOLERANCE)

    def drawn(name: str, value: float, n: int, **more: Any) -> Metric:
        return metric(name, value, n=n, unit="1", determinism="statistical", labels=at, **more)

    return (
        close("k", float(found.k), "count"),
        metric(
            "excess_q",
            found.excess_q,
            n=nodes,
            unit="1",
            determinism="tolerance",
            labels=at,
            null=null,
            p=found.p,
            p_floor=1.0 / (n + 1),
            tolerance=TOLERANCE,
        ),
        drawn("p", found.p, n, interval=clopper_pearson(found.exceedances, n), method="clopper-pearson"),
        drawn("p_holm", p_holm, n, multiplicity=family),
        # Its own null keeps every block's edges, so nothing else has to confirm it.
        drawn("confirm_excess_q", found.excess_q, nodes, null=null),
        drawn("stability", median, len(one.stability), interval=(low, high), level="0.9", method="delete-10pct-range"),
        close("min_cluster_share", share, "fraction"),
    )


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a proportion (Clopper & Pearson 1934)."""
    tail = (1.0 - level) / 2
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes == n else float(beta.ppf(1.0 - tail, successes + 1, n - successes))
    return low, high
