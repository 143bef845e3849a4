"""Plots of one matrix: its squares in the order of its clusters, its singular values, the tree of its clusters.

Specification: section 7. All from the values that were tested and the partition at the best k.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from assay.result import Axis, Mark, Plot, Series
from scipy.cluster.hierarchy import linkage

from checks.clusterability.cocluster import Embedding, Partition, embed
from checks.clusterability.lines import DIGITS, TEXT_MAX, line
from checks.clusterability.masks import DAMPING
from checks.clusterability.views import in_range, normal_scores
from checks.quantise import decimal

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from checks.clusterability.metrics import Tested

CELLS = 32
"""Cells of a side by default: half of what section 7 allows, since a map of 64x64 would take an eighth of the whole
audit's output (64 KiB), and three of them are told."""

CELLS_MAX = 64
"""Cells of a side at most (section 7)."""

ENTRIES_MIN = 4
"""Rows, and columns, of a cell at least (section 7): finer maps would carry weights out. So a cell is a mean of 16."""

CLIP = 2.0
"""Decades above and below the matrix's mean at which the scale ends; a cell without weights is drawn there."""

STEP_PLACES, MAP_DIGITS = 2, 2
"""A cell has two significant digits and none finer than .01: seven bits, less than half a bit an entry."""

SINGULAR = 17
"""Singular values 2 to 17 are drawn (section 7); the first is that of the marginals, and 1."""

LEAVES_MIN = 3
"""Clusters from which on a tree says something: of two it only says how far apart they are."""


def matrix_plots(tested: Sequence[Tested]) -> tuple[Plot, ...]:
    """Return the map of each matrix, then one plot of all singular values, then the trees of clusters.

    Args:
        tested: few matrices; each is embedded again, at about the cost of one null replicate.
    """
    clouds = [_cloud(one) for one in tested]
    maps = [_map(one) for one in tested]
    trees = [_tree(one, cloud) for one, cloud in zip(tested, clouds, strict=True)]
    lines = [_singular(one.name, cloud) for one, cloud in zip(tested, clouds, strict=True)]
    spectrum = Plot(
        title="Singular values 2 to 17 of the tested view",
        kind="line",
        x=Axis(label="number", unit="count"),
        y=Axis(label="singular value", unit="1"),
        series=tuple(lines),
    )
    told = [*maps, spectrum, *trees] if tested else []
    return tuple(plot for plot in told if plot is not None)


def cells_of(
    values: Float[np.ndarray, "n m"], part: Partition, cells: int = CELLS
) -> tuple[Float[np.ndarray, "rows columns"], tuple[float, ...], tuple[float, ...]]:
    """Return the map of a matrix in the order of its clusters, and where clusters meet.

    Args:
        values: rows are outputs.
        part: labels; nodes labelled -1 are left out, and a mean is one over what is left.
        cells: cells of a side at most.

    Returns:
        log10 of each cell's mean square over the mean square of the matrix, clipped; then, in cells, where each
        cluster's rows end and the next one's begin, and the same of columns. Cell i reaches from i - 1/2 to i + 1/2.

    Raises:
        ValueError: more than `CELLS_MAX` cells are asked for, or too few live rows or columns for a single cell.
    """
    if not 1 <= cells <= CELLS_MAX:
        raise ValueError(f"{cells} cells a side lie outside 1..{CELLS_MAX}")
    rows, columns = _order(part.rows), _order(part.columns)
    if min(len(rows), len(columns)) < ENTRIES_MIN:
        raise ValueError(
            f"{len(rows)} rows and {len(columns)} columns do not make a cell of {ENTRIES_MIN}x{ENTRIES_MIN}"
        )
    squares = np.square(in_range(values)[np.ix_(rows, columns)])
    down, across = _edges(part.rows, cells), _edges(part.columns, cells)
    sums = np.add.reduceat(np.add.reduceat(squares, down[:-1], axis=0), across[:-1], axis=1)
    means = sums / np.outer(np.diff(down), np.diff(across))
    whole = float(squares.mean())
    share = means / whole if whole > 0 else np.ones_like(means)
    told = np.log10(np.clip(share, 10.0**-CLIP, 10.0**CLIP))
    return told, _meet(part.rows, down), _meet(part.columns, across)


def _order(labels: Int[np.ndarray, " nodes"]) -> Int[np.ndarray, " live"]:
    order = np.argsort(labels, kind="stable")
    return np.asarray(order[labels[order] >= 0])


def _edges(labels: Int[np.ndarray, " nodes"], cells: int) -> Int[np.ndarray, " edges"]:
    """Return where cells of the ordered live nodes begin, and the end; every cell has `ENTRIES_MIN` nodes or more.

    Cells end where clusters do, so that none is the mean of a block and of what lies beside it; only a cluster too
    small for a cell shares one with its neighbour.
    """
    ends = _segments(np.bincount(labels[labels >= 0]), min(cells, int((labels >= 0).sum()) // ENTRIES_MIN))
    sizes = np.diff(ends, prepend=0)
    counts = np.ones(len(sizes), dtype=np.int64)
    while counts.sum() < cells:
        # The coarsest cluster is cut once more, while a cell keeps its least size.
        coarse = np.where(sizes // (counts + 1) >= ENTRIES_MIN, sizes / counts, 0.0)
        if not coarse.any():
            break
        counts[int(np.argmax(coarse))] += 1
    begins = [
        begin + np.arange(count) * size // count for begin, size, count in zip(ends - sizes, sizes, counts, strict=True)
    ]
    return np.concatenate([*begins, ends[-1:]])


def _segments(sizes: Int[np.ndarray, " clusters"], most: int) -> Int[np.ndarray, " segments"]:
    """Return where clusters end, those joined that are too small for a cell; all in one where there are too many."""
    ends: list[int] = []
    for end in np.cumsum(sizes).tolist():
        if end - (ends[-1] if ends else 0) >= ENTRIES_MIN:
            ends.append(end)
    whole = int(sizes.sum())
    # What is left at the end is too small: it joins the last one.
    ends = [*ends[:-1], whole]
    return np.array(ends if len(ends) <= most else [whole])


def _meet(labels: Int[np.ndarray, " nodes"], edges: Int[np.ndarray, " edges"]) -> tuple[float, ...]:
    """Return, in cells, the places inside the map at which one cluster ends and the next begins."""
    ends = np.cumsum(np.bincount(labels[labels >= 0]))
    inside = np.unique(ends[(ends > 0) & (ends < edges[-1])])
    return tuple(float(place) - 0.5 for place in np.interp(inside, edges, np.arange(len(edges))))


def _map(one: Tested) -> Plot | None:
    masked = one.matrix.masked
    values = (one.matrix.values != 0).astype(np.float64) if masked else one.matrix.values
    if min(values.shape) < ENTRIES_MIN:
        return None
    cells, down, across = cells_of(values, one.found.partition)
    places = [float(at) for at in range(cells.shape[1])]
    what = "share of weights that are not zero" if masked else "mean square"
    marks = [Mark(axis="y", at=decimal(at, DIGITS), label="clusters meet") for at in down]
    marks += [Mark(axis="x", at=decimal(at, DIGITS), label="clusters meet") for at in across]
    return Plot(
        title=f"{one.name}: outputs by inputs in order of {one.found.k} clusters; noise so ordered shows blocks too"[
            :TEXT_MAX
        ],
        kind="heatmap",
        x=Axis(label="cell of columns, from 0; rows are the series, from the top", unit="count"),
        y=Axis(label=f"log10 of a cell's {what} over the matrix's", unit="1"),
        series=tuple(_row(f"r{at}", places, row) for at, row in enumerate(cells)),
        marks=tuple(marks),
    )


def _row(name: str, places: Sequence[float], row: Float[np.ndarray, " columns"]) -> Series:
    return line(name, places, np.round(row, STEP_PLACES), digits=MAP_DIGITS)


def _cloud(one: Tested) -> Embedding:
    """Return the points that were clustered, with as many directions as are drawn."""
    values = one.matrix.values
    count = min(SINGULAR - 1, min(values.shape) - 1)
    if one.matrix.masked:
        mask = values != 0
        return embed(mask / mask.sum(), count, damping=DAMPING)
    return embed(normal_scores(values).mass, count)


def _singular(name: str, cloud: Embedding) -> Series:
    held = cloud.singular[1:SINGULAR]
    return line(name, np.arange(2.0, 2.0 + len(held)), held)


def _tree(one: Tested, cloud: Embedding) -> Plot | None:
    """Return the average-linkage tree of clusters' centres, as one walk around it that a pen can follow."""
    part, k = one.found.partition, one.found.k
    points = np.concatenate([cloud.rows[:, :k], cloud.columns[:, :k]])
    present, centres = centres_of(points, np.concatenate([part.rows, part.columns]))
    if len(present) < LEAVES_MIN:
        return None
    order, walk = tree_walk(centres)
    x, y = zip(*walk, strict=True)
    leaves = ", ".join(str(present[leaf]) for leaf in order)
    return Plot(
        title=f"{one.name}: tree of its clusters (average linkage of centres)"[:TEXT_MAX],
        kind="line",
        x=Axis(label=f"clusters, in this order: {leaves}", unit="count"),
        y=Axis(label="1 - cosine", unit="1"),
        series=(line("tree", x, y),),
    )


def centres_of(
    points: Float[np.ndarray, "nodes k"], labels: Int[np.ndarray, " nodes"]
) -> tuple[tuple[int, ...], Float[np.ndarray, "clusters k"]]:
    """Return the clusters that have a direction, and the mean direction of each one's points.

    Points are taken at length 1, as k-means takes them. A cluster without members, or whose points cancel, has none.
    """
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    unit = points / np.where(lengths > 0, lengths, 1.0)
    present, centres = [], []
    for cluster in range(1 + int(labels.max(initial=-1))):
        members = unit[labels == cluster]
        centre = members.mean(axis=0) if len(members) else np.zeros(points.shape[1])
        length = float(np.linalg.norm(centre))
        if length > np.finfo(float).eps:
            present.append(cluster)
            centres.append(centre / length)
    return tuple(present), np.array(centres).reshape(len(centres), points.shape[1])


def tree_walk(
    centres: Float[np.ndarray, "clusters k"],
) -> tuple[tuple[int, ...], tuple[tuple[float, float], ...]]:
    """Return the order of leaves, and a walk around the average-linkage tree of unit vectors by 1 - cosine.

    The walk goes up from the left foot of each joint, across, down the right side and back: drawn as one line it is the
    tree. Places are numbers of leaves from the left, heights are 1 - cosine.
    """
    count = len(centres)
    apart = np.clip(1.0 - centres @ centres.T, 0.0, 2.0)
    joints = linkage(apart[np.triu_indices(count, 1)], method="average")
    order: list[int] = []

    def visit(node: int) -> tuple[float, float, list[tuple[float, float]]]:
        """Return a node's place and height, and the walk from there around what hangs below it and back."""
        if node < count:
            order.append(node)
            return float(len(order) - 1), 0.0, [(float(len(order) - 1), 0.0)]
        left, right, height = int(joints[node - count, 0]), int(joints[node - count, 1]), float(joints[node - count, 2])
        left_x, _, left_walk = visit(left)
        right_x, _, right_walk = visit(right)
        middle = (left_x + right_x) / 2
        top = (middle, height)
        return (
            middle,
            height,
            [
                top,
                (left_x, height),
                *left_walk,
                (left_x, height),
                (right_x, height),
                *right_walk,
                (right_x, height),
                top,
            ],
        )

    walk = visit(2 * count - 2)[2]
    return tuple(order), tuple(walk)
