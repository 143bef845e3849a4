"""Plots of what was found in weights, as numbers; the report draws them. Specification: section 7.

All plots of structure together are charged at most 12 KiB of an audit's 64 KiB of output, whatever was asked: what is
drawn of every matrix is one line, and what takes more room is drawn of the matrices of largest excess.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np
from assay.result import Axis, Mark, Plot

from checks.clusterability.families import HEAD_GRAPH, NETWORK
from checks.clusterability.lines import DIGITS, LINES_MAX, line
from checks.clusterability.matrix_plots import matrix_plots
from checks.quantise import decimal

if TYPE_CHECKING:
    from jaxtyping import Float

    from checks.clusterability.families import GraphFound
    from checks.clusterability.findings import Limits
    from checks.clusterability.metrics import Tested
    from checks.clusterability.network_tests import NetworkNull, NetworkStructure
    from checks.clusterability.nulls import NullTable

BINS = 24
"""Bars of a null histogram."""

LARGEST = 3
"""Matrices of largest excess that are drawn one by one, and beside a null."""

NULLS_MAX = 4
"""Nulls that are drawn: those of the largest excess. A model has one for each shape, and one for each sparse matrix."""

EXCESS_MAX = 2 * LINES_MAX
"""Matrices whose excess is drawn against k: two plots. The excess at the best k of all of them is a metric."""

NULL_WORDS = {
    "gaussian-shape-keyed": "Gaussian matrices",
    "gaussian-product": "products of Gaussian factors of inner size {inner}",
    "curveball-same-degrees": "masks of the same row and column counts (curveball trades)",
    "shuffled-in-blocks": "head graphs with edges permuted between the same two layers",
    "gaussian-chain": "chains of Gaussian layers (sparse layers: traded masks)",
}
"""What a null drew, by its kind in the metrics. Sources of each: specification, sections 4.5 and 5."""


@dataclass(frozen=True)
class Placed:
    """A matrix, product, graph or net beside its null."""

    name: str
    size: str
    """As a reader knows it, e.g. "96x256"."""
    ks: tuple[int, ...]
    q: tuple[float, ...]
    """Modularity at every candidate of k."""
    excess_q: float
    statistic: float
    null: NullTable | NetworkNull
    drawn: str
    """What the null drew, in words."""
    own: bool
    """Whether the null is of this one alone: it has the degrees, or the edges, of what was observed."""
    stability: Float[np.ndarray, " draws"] | None

    @property
    def key(self) -> tuple[object, ...]:
        """Return what those that share a null have in common."""
        return (self.drawn, self.size, self.ks, self.null.n, self.name if self.own else "")


def plots(
    tested: Sequence[Tested],
    graphs: Sequence[GraphFound] = (),
    network: NetworkStructure | None = None,
    *,
    network_stability: Float[np.ndarray, " draws"] | None = None,
    limits: Limits | None = None,
) -> tuple[Plot, ...]:
    """Return the plots of everything that was tested.

    Args:
        tested: matrices and products.
        graphs: graphs of heads.
        network: the partition of a whole net.
        network_stability: its agreement with partitions without a tenth of the nodes.
        limits: the rule's thresholds, drawn as dashed lines.

    Returns:
        Excess and Q against k, nulls, stability; then, for the `LARGEST` matrices of largest excess, the reordered
        squares, singular values and the tree of clusters.
    """
    placed = [_of_matrix(one) for one in tested]
    placed += [_of_graph(one) for one in graphs]
    placed += [_of_network(network, network_stability)] if network is not None else []
    placed.sort(key=lambda one: -one.excess_q)
    told = _excess(placed, limits)
    groups: dict[tuple[object, ...], list[Placed]] = {}
    for one in placed:
        groups.setdefault(one.key, []).append(one)
    for group in list(groups.values())[:NULLS_MAX]:
        told += [_modularity(group), *_null(group)]
    told += _stability([one for one in placed if one.stability is not None][:LINES_MAX], limits)
    largest = sorted(tested, key=lambda one: -one.found.excess_q)[:LARGEST]
    return (*told, *matrix_plots(largest))


def _of_matrix(one: Tested) -> Placed:
    found = one.found
    n, m = found.null.shape
    return Placed(
        name=one.name,
        size=f"{n}x{m}",
        ks=found.null.ks,
        q=found.q,
        excess_q=found.excess_q,
        statistic=found.statistic,
        null=found.null,
        drawn=_words(one.null_kind, one.inner),
        own=one.matrix.masked,
        stability=one.stability,
    )


def _of_graph(one: GraphFound) -> Placed:
    found = one.found
    return Placed(
        name=HEAD_GRAPH,
        size=f"{one.nodes} heads",
        ks=found.null.ks,
        q=found.q_by_k,
        excess_q=found.excess_q,
        statistic=found.statistic,
        null=found.null,
        drawn=_words("shuffled-in-blocks", None),
        own=True,
        stability=one.stability,
    )


def _of_network(found: NetworkStructure, stability: Float[np.ndarray, " draws"] | None) -> Placed:
    return Placed(
        name=NETWORK,
        size="-".join(str(len(nodes)) for nodes in found.partition.layers)[:64],
        ks=found.null.ks,
        q=found.q,
        excess_q=found.excess_q,
        statistic=found.statistic,
        null=found.null,
        drawn=_words("gaussian-chain", None),
        own=True,
        stability=stability,
    )


def _words(kind: str, inner: int | None) -> str:
    return NULL_WORDS.get(kind, kind).format(inner=inner)


def _excess(placed: Sequence[Placed], limits: Limits | None) -> list[Plot]:
    drawn = placed[:EXCESS_MAX]
    left = f" ({EXCESS_MAX} largest of {len(placed)})" if len(placed) > EXCESS_MAX else ""
    marks = [Mark(axis="y", at="0", label="mean of the null")]
    marks += [Mark(axis="y", at=decimal(limits.min_excess_q, DIGITS), label="floor")] if limits else []
    return [
        Plot(
            title=f"Excess modularity over the null's mean against k{left}",
            kind="line" if any(len(one.ks) > 1 for one in drawn) else "scatter",
            x=Axis(label="k", unit="count"),
            y=Axis(label="excess Q", unit="1"),
            series=tuple(
                line(one.name, one.ks, np.array(one.q) - one.null.mean) for one in drawn[start : start + LINES_MAX]
            ),
            marks=tuple(marks),
        )
        for start in range(0, len(drawn), LINES_MAX)
    ]


def _modularity(group: Sequence[Placed]) -> Plot:
    """Return Q against k, over the band that the null fills."""
    null, first = group[0].null, group[0]
    band = 2.0 * null.sd
    return Plot(
        title=f"Q against k at {first.size}; band: mean and two sd of {null.n} {first.drawn}",
        kind="line" if len(first.ks) > 1 else "scatter",
        x=Axis(label="k", unit="count"),
        y=Axis(label="modularity Q", unit="1"),
        series=(
            line("null", first.ks, null.mean, (null.mean - band, null.mean + band)),
            *(line(one.name, one.ks, one.q) for one in group[:LARGEST]),
        ),
    )


def _null(group: Sequence[Placed]) -> list[Plot]:
    null, first = group[0].null, group[0]
    drawn = null.statistics[np.isfinite(null.statistics)]
    if not len(drawn):
        return []
    counts, edges = np.histogram(drawn, bins=BINS)
    seen = [one for one in group[:LINES_MAX] if isfinite(one.statistic)]
    return [
        Plot(
            title=f"Null of T at {first.size}, {null.n} {first.drawn}; dashed: observed",
            kind="histogram",
            x=Axis(label="T, largest (Q - mean) / sd over k", unit="1"),
            y=Axis(label="replicates", unit="count"),
            series=(line("null", (edges[1:] + edges[:-1]) / 2, counts),),
            marks=tuple(Mark(axis="x", at=decimal(one.statistic, DIGITS), label=one.name[:128]) for one in seen),
        )
    ]


def _stability(placed: Sequence[Placed], limits: Limits | None) -> list[Plot]:
    """Return, in one column for each, the agreement of every draw; a matrix has draws where p and excess pass."""
    if not placed:
        return []
    floor = [Mark(axis="y", at=decimal(limits.min_stability, DIGITS), label="floor of the median")] if limits else []
    return [
        Plot(
            title="Stability: ARI with partitions found without a tenth of the nodes, every draw",
            kind="scatter",
            x=Axis(label="one column for each line, in their order", unit="count"),
            y=Axis(label="ARI", unit="1"),
            series=tuple(
                line(one.name, [float(place)] * len(one.stability), one.stability, digits=2)
                for place, one in enumerate(placed)
                if one.stability is not None
            ),
            marks=tuple(floor),
        )
    ]
