"""How the measured numbers of structure become metrics, quantised: `metric_specs` says what each means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from assay.result import Metric, Multiplicity, NullDistribution

from checks.clusterability import views
from checks.clusterability.families import HEAD_GRAPH, NETWORK, GraphFound, NetworkFound
from checks.clusterability.intervals import clopper_pearson, stopped_at
from checks.clusterability.masks import STOP_AT, MaskStructure
from checks.clusterability.matrices import Plant, Usable
from checks.clusterability.metric_specs import TOLERANCE
from checks.clusterability.nulls import committed_graph_power, committed_power
from checks.clusterability.scores import Scores, adjusted_rand, scores_of
from checks.clusterability.structure import Deletions, Structure
from checks.quantise import metric, null_distribution
from checks.statistics import proportion_interval

if TYPE_CHECKING:
    from jaxtyping import Float, Int

VIRTUAL = "virtual_mlp"
"""What labels of products of neighbouring MLPs begin with."""

KEPT = {"balanced": ("c", "q_b", "c_adj", "ncut"), "raw": ("c", "ncut")}
"""Scores told of every matrix; of the raw view those that others publish. All six, in all views, are told of what
passes p and excess: 40 matrices must leave room in the 64 KiB that an audit may carry out."""


@dataclass(frozen=True)
class Detail:
    """What is told beside the rule's numbers of a matrix that passes p and excess."""

    eigengap: float | None
    """Singular value k less the next, in the tested view."""
    seed_ari: float
    """Median ARI with other seeds of k-means."""
    d_eff: int | None
    """Inner size of its participation ratio; None where it is that of an unstructured matrix, and for masks."""
    unit_in_norm: Float[np.ndarray, "n m"] | None
    """That view, total 1; None where it was not asked for, or has no finite chain."""
    draws: Deletions | None = None
    """What draws without a tenth of the nodes gave; None for masks."""


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
    detail: Detail | None = None
    """None where p or excess fails, and in controls."""
    raw: bool = True
    """Whether the raw view is reported."""

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

    @property
    def nodes(self) -> int:
        """Return how many rows and columns were clustered."""
        return sum(self.matrix.values.shape)


def metrics(one: Tested) -> tuple[Metric, ...]:
    """Return the metrics of one matrix, quantised."""
    return (*_test(one), *_second_look(one), *_scores(one), *_description(one), *_detail(one), *_plant(one))


def _test(one: Tested) -> tuple[Metric, ...]:
    found, at = one.found, {"matrix": one.name}
    n, floor = found.null.n, 1.0 / (found.null.n + 1)
    best = found.null.ks.index(found.k)
    null = null_distribution(one.null_kind, [float(q) for q in found.null.q[:, best] - found.null.mean[best]])
    family = Multiplicity(family="matrices", m=one.together, corrected="holm")
    stopped = isinstance(found, MaskStructure) and found.exceedances >= STOP_AT
    interval = (stopped_at if stopped else clopper_pearson)(found.exceedances, n)
    method = "inverse-binomial" if stopped else "clopper-pearson"
    return (
        _close("k", float(found.k), one.nodes, at, "count"),
        _close("excess_q", found.excess_q, one.nodes, at, null=null, p=found.p, p_floor=floor),
        _drawn("p", found.p, n, at, interval=interval, method=method),
        _drawn("p_holm", one.p_holm, one.planned, at, multiplicity=family),
    )


def _second_look(one: Tested) -> tuple[Metric, ...]:
    if not one.passes or one.stability is None:
        return ()
    at = {"matrix": one.name}
    if one.confirm is None:
        null = _primary(one)
        excess = one.found.excess_q
    else:
        null = null_distribution("gaussian-spiked", [float(q) for q in one.confirm])
        excess = one.found.q[one.found.null.ks.index(one.found.k)] - float(one.confirm.mean())
    return (_drawn("confirm_excess_q", excess, one.nodes, at, null=null), _range("stability", one.stability, at))


def _primary(one: Tested) -> NullDistribution:
    best = one.found.null.ks.index(one.found.k)
    return null_distribution(one.null_kind, [float(q) for q in one.found.null.q[:, best]])


def _range(name: str, draws: Float[np.ndarray, " draws"], at: dict[str, str]) -> Metric:
    low, median, high = (float(q) for q in np.quantile(draws, (0.05, 0.5, 0.95)))
    method = "delete-10pct-range"
    return _drawn(name, median, len(draws), at, interval=(low, high), level="0.9", method=method)


def _scores(one: Tested) -> tuple[Metric, ...]:
    part, values = one.found.partition, one.matrix.values
    seen = {"balanced": views.balanced_squares(values).mass}
    if one.raw:
        seen["raw"] = views.raw(values)
    if one.detail is not None and one.detail.unit_in_norm is not None:
        seen["unit_in_norm"] = one.detail.unit_in_norm
    told: list[Metric] = []
    for view, mass in seen.items():
        told += _of_view(one, view, scores_of(mass, part.rows, part.columns, one.found.k))
    return tuple(told)


def _of_view(one: Tested, view: str, scores: Scores) -> list[Metric]:
    pairs = {
        "c": (scores.c, "fraction"),
        "c_exp": (scores.c_exp, "fraction"),
        "q_b": (scores.q_b, "1"),
        "c_max": (scores.c_max, "fraction"),
        "c_adj": (scores.c_adj, "1"),
        "ncut": (scores.ncut, "1"),
    }
    kept = tuple(pairs) if one.detail is not None else KEPT[view]
    at = {"matrix": one.name, "view": view}
    return [
        _close(name, value, one.nodes, at, unit)
        for name, (value, unit) in pairs.items()
        if value is not None and name in kept
    ]


def _sizes(one: Tested) -> Int[np.ndarray, " k"]:
    part = one.found.partition
    return np.bincount(np.concatenate([part.rows, part.columns]), minlength=one.found.k)


def _description(one: Tested) -> tuple[Metric, ...]:
    at, n = {"matrix": one.name}, one.nodes
    told = [
        _close("min_cluster_share", float(_sizes(one).min()) / n, n, at, "fraction"),
        _close("balance_residual", one.found.residual, n, at),
        metric("zero_share", one.matrix.zero_share, n=n, unit="fraction", determinism="exact", labels=at),
        metric("masked", float(one.matrix.masked), n=n, unit="count", determinism="exact", labels=at),
        metric("dead_nodes", float(one.matrix.dead), n=n, unit="count", determinism="exact", labels=at),
    ]
    inner = one.inner if one.inner is not None else one.detail.d_eff if one.detail is not None else None
    told += [_close("d_eff", float(inner), n, at, "count")] if inner is not None else []
    return (*told, *_power(one))


def _detail(one: Tested) -> tuple[Metric, ...]:
    if one.detail is None:
        return ()
    at, n = {"matrix": one.name}, one.nodes
    sizes = _sizes(one)
    shares = sizes[sizes > 0] / n
    entropy = float(-(shares * np.log(shares)).sum() / np.log(one.found.k))
    told = [_close("size_entropy", entropy, n, at), _close("seed_ari", one.detail.seed_ari, n, at)]
    told += [_close("eigengap", one.detail.eigengap, n, at)] if one.detail.eigengap is not None else []
    if one.detail.draws is not None:
        told += [_range("c_range", one.detail.draws.c, at), _range("q_b_range", one.detail.draws.q_b, at)]
    return (*told, *_cluster_sizes(sizes, n, at))


def _power(one: Tested) -> tuple[Metric, ...]:
    if one.name.startswith(VIRTUAL):
        return _share_found("power_of_kind", one.name, committed_graph_power(VIRTUAL))
    if one.matrix.masked:
        return ()  # planted matrices of the dense route say nothing of these
    return _share_found("power", one.name, committed_power((one.matrix.values.shape[0], one.matrix.values.shape[1])))


def _share_found(name: str, matrix: str, measured: tuple[int, int] | None) -> tuple[Metric, ...]:
    if measured is None:
        return ()
    found, planted = measured
    interval, at = proportion_interval(found, planted), {"matrix": matrix}
    told = metric(
        name,
        found / planted,
        n=planted,
        unit="fraction",
        determinism="statistical",
        labels=at,
        interval=interval,
        method="wilson",
    )
    return (told,)


def _plant(one: Tested) -> tuple[Metric, ...]:
    if one.plant is None or one.plant.k not in one.found.null.ks:
        return ()  # at a number of clusters that was not sought there is nothing to compare
    at = {"matrix": one.name}
    part, truth = one.found.at(one.plant.k), one.plant.truth
    ari = adjusted_rand(np.concatenate([part.rows, part.columns]), np.concatenate([truth.rows, truth.columns]))
    c = scores_of(views.raw(one.matrix.values), part.rows, part.columns).c
    return (_close("planted_ari", ari, one.nodes, at), _close("planted_c", c, one.nodes, at, "fraction"))


def graph_metrics(one: GraphFound, p_holm: float, together: int) -> tuple[Metric, ...]:
    """Return the metrics of the graph of heads, under the names that a matrix has."""
    return _whole(HEAD_GRAPH, "shuffled-in-blocks", one, one.found.labels, p_holm, together)


def network_metrics(one: NetworkFound, p_holm: float, together: int) -> tuple[Metric, ...]:
    """Return the metrics of the partition through a whole net, under the names that a matrix has."""
    return _whole(NETWORK, "gaussian-chain", one, one.found.partition.joined, p_holm, together)


def _whole(
    name: str,
    kind: str,
    one: GraphFound | NetworkFound,
    labels: Int[np.ndarray, " nodes"],
    p_holm: float,
    together: int,
) -> tuple[Metric, ...]:
    at, found = {"matrix": name}, one.found
    best = found.null.ks.index(found.k)
    null = null_distribution(kind, [float(q) for q in found.null.q[:, best] - found.null.mean[best]])
    n, nodes = found.null.n, len(labels)
    sizes = np.bincount(labels[labels >= 0], minlength=found.k)
    family = Multiplicity(family="matrices", m=together, corrected="holm")
    interval = clopper_pearson(found.exceedances, n)
    return (
        _close("k", float(found.k), nodes, at, "count"),
        _close("excess_q", found.excess_q, nodes, at, null=null, p=found.p, p_floor=1.0 / (n + 1)),
        _drawn("p", found.p, n, at, interval=interval, method="clopper-pearson"),
        _drawn("p_holm", p_holm, n, at, multiplicity=family),
        # Its null is its own already: a graph's keeps every block's edges, a net's its chain of shapes.
        _drawn("confirm_excess_q", found.excess_q, nodes, at, null=null),
        _range("stability", one.stability, at),
        _close("min_cluster_share", float(sizes.min() / nodes), nodes, at, "fraction"),
        metric("dead_nodes", float((labels < 0).sum()), n=nodes, unit="count", determinism="exact", labels=at),
        *_cluster_sizes(sizes, nodes, at),
        *_share_found("power_of_kind", name, committed_graph_power(name)),
    )


def _cluster_sizes(sizes: Int[np.ndarray, " k"], n: int, at: dict[str, str]) -> list[Metric]:
    return [_close("cluster_size", float(size), n, {**at, "cluster": str(c)}, "count") for c, size in enumerate(sizes)]


def _close(name: str, value: float, n: int, at: dict[str, str], unit: str = "1", **more: Any) -> Metric:
    """Return a metric that another machine repeats to `TOLERANCE`."""
    return metric(name, value, n=n, unit=unit, determinism="tolerance", labels=at, tolerance=TOLERANCE, **more)


def _drawn(name: str, value: float, n: int, at: dict[str, str], **more: Any) -> Metric:
    """Return a metric that rests on draws."""
    return metric(name, value, n=n, unit="1", determinism="statistical", labels=at, **more)
