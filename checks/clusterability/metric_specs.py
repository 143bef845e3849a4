"""The metrics of structure: what each means. Specification: section 7."""

from __future__ import annotations

from checks.check import MetricSpec

NO_INTERVAL = "No interval: weights are all there is, not a sample."

TOLERANCE = (1e-6, 0.0)
"""Scores agree between machines to this (section 9)."""

ESTIMATED = frozenset({"p", "stability", "c_range", "q_b_range", "power", "power_of_kind"})
"""Metrics each of which has an interval; all others have none."""

SECOND = "Told of what passes p and excess."
"""Of the largest excess, where many pass: an answer has to stay small (`testing.DETAILS_MAX`)."""


def _spec(name: str, unit: str, determinism: str, summary: str, *more: str) -> MetricSpec:
    return MetricSpec(
        name=name,
        unit=unit,
        labels=("matrix", *more),
        better="none",
        determinism=determinism,  # type: ignore[arg-type]  # the three literals, below
        summary=summary,
        interval=name in ESTIMATED,
        tolerance=TOLERANCE if determinism == "tolerance" else None,
    )


METRICS: tuple[MetricSpec, ...] = (
    _spec("k", "count", "tolerance", f"Candidate number of clusters with the largest excess. {NO_INTERVAL}"),
    _spec("excess_q", "1", "tolerance", f"Modularity above the mean of the Gaussian null at k. {NO_INTERVAL}"),
    _spec("p", "1", "statistical", "p of the largest standardised modularity over all k; exact interval (method)."),
    _spec("p_holm", "1", "statistical", "The same after Holm over the matrices of the audit. No interval: p has one."),
    _spec(
        "confirm_excess_q",
        "1",
        "statistical",
        "Modularity above noise of the same large singular values. No interval: the null's spread is told.",
    ),
    _spec(
        "stability",
        "1",
        "statistical",
        "Median ARI with partitions found without a tenth of rows and columns (of a network: of every layer, told on "
        "hidden neurons); 5-95% range of draws.",
    ),
    _spec("c", "fraction", "tolerance", f"Share of mass inside clusters; no claim rests on it. {NO_INTERVAL}", "view"),
    _spec(
        "c_exp",
        "fraction",
        "tolerance",
        f"The same share if mass followed the marginals. {SECOND} {NO_INTERVAL}",
        "view",
    ),
    _spec("c_max", "fraction", "tolerance", f"Largest c that the marginals allow. {SECOND} {NO_INTERVAL}", "view"),
    _spec("q_b", "1", "tolerance", f"Bipartite modularity, c - c_exp. {NO_INTERVAL}", "view"),
    _spec("c_adj", "1", "tolerance", f"(c - c_exp) / (c_max - c_exp). {NO_INTERVAL}", "view"),
    _spec("ncut", "1", "tolerance", f"Sum over clusters of the share of mass that leaves them. {NO_INTERVAL}", "view"),
    _spec(
        "min_cluster_share", "fraction", "tolerance", f"Smallest cluster, as a share of rows and columns. {NO_INTERVAL}"
    ),
    _spec(
        "c_range",
        "1",
        "statistical",
        f"Median balanced c of partitions found without a tenth of rows and columns; 5-95% range of draws. {SECOND}",
    ),
    _spec("q_b_range", "1", "statistical", f"Median balanced q_b of those partitions; 5-95% range of draws. {SECOND}"),
    _spec("cluster_size", "count", "tolerance", f"Rows and columns of a cluster. {SECOND} {NO_INTERVAL}", "cluster"),
    _spec("size_entropy", "1", "tolerance", f"Entropy of the clusters' shares over ln k. {SECOND} {NO_INTERVAL}"),
    _spec("eigengap", "1", "tolerance", f"Singular value k less the next, in the tested view. {SECOND} {NO_INTERVAL}"),
    _spec(
        "seed_ari",
        "1",
        "tolerance",
        f"Median ARI with five other seeds of k-means; no claim rests on it: noise has .7. {SECOND} {NO_INTERVAL}",
    ),
    _spec("balance_residual", "1", "tolerance", f"Largest relative marginal error left by balancing. {NO_INTERVAL}"),
    _spec("zero_share", "fraction", "exact", "Share of exact zeros."),
    _spec("masked", "count", "exact", "1 where the pattern of zeros alone was tested and magnitudes were left out."),
    _spec(
        "d_eff",
        "count",
        "tolerance",
        "Inner size at which a product of Gaussian factors has this participation ratio; of a virtual_mlp, that of its "
        f"null. {NO_INTERVAL}",
    ),
    _spec("dead_nodes", "count", "exact", "Rows and columns without any weight, left out."),
    _spec(
        "power",
        "fraction",
        "statistical",
        "Share of planted matrices of this shape (k 4, ratio .7) that one test with default parameters detects; told "
        "where these are the defaults. Wilson interval.",
    ),
    _spec(
        "power_of_kind",
        "fraction",
        "statistical",
        "Share of the plants that this kind's control draws, at a leak of .5 and their own size, that default "
        "parameters detect; told where these are the defaults. Wilson interval.",
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
