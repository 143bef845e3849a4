"""The metrics of the corpus side: what each means (contamination, 9.1)."""

from __future__ import annotations

from typing import Literal

from checks.check import MetricSpec

OF = ("benchmark",)
TIER = ("benchmark", "tier")
"""Tier: exact, near, semantic, template or related; all: every gating tier."""
RECALL = ("benchmark", "depth", "placement", "source")
"""Placement: one of section 6.11, or all. Source: automatic, rewrites (the auditor's) or authored; of code items
automatic_code, rewrites_code or authored_code."""


ESTIMATED = frozenset(
    {
        "share.raw",
        "share.corrected",
        "recall",
        "recall.pooled",
        "placebo_rate",
        "identity_rate",
        "operator_swap_pass",
    }
)
"""Metrics each of which has an interval; all others have none."""

POOLED = (*OF, "depth", "source", "searched")
"""Depth: 0-1 for exact, 2-4 for near, 5 for semantic. Searched: words (found as exact or near) or all."""


def _spec(
    name: str,
    unit: str,
    labels: tuple[str, ...],
    summary: str,
    determinism: Literal["exact", "statistical"] = "exact",
    better: Literal["higher", "lower", "none"] = "none",
) -> MetricSpec:
    return MetricSpec(
        name=name,
        unit=unit,
        labels=labels,
        better=better,
        determinism=determinism,
        summary=summary,
        interval=name in ESTIMATED,
    )


def _count(name: str, labels: tuple[str, ...], summary: str) -> MetricSpec:
    return _spec(name, "count", labels, summary)


SPECS: tuple[MetricSpec, ...] = (
    _count("items", OF, "Items of the benchmark."),
    _count("uncalibrated", OF, "Items without a p-value: under 5 tokens, no sibling, or a kind that is not searched."),
    _count("flagged", TIER, "Items flagged at q, by the tier of their best match."),
    _spec("share.raw", "fraction", TIER, "Flagged / items; as a sample of its generator, Clopper-Pearson."),
    _spec("share.corrected", "fraction", (*OF, "depth"),
          "Share corrected for what a scan misses at this depth and for placebos; bootstrap.", "statistical"),
    _spec("recall", "fraction", RECALL,
          "Planted copies found at a gating tier with a score that this run flags; Wilson.", "exact", "higher"),
    _spec("placebo_rate", "fraction", TIER, "Siblings that score as a flagged item must; Clopper-Pearson."),
    _spec("identity_rate", "fraction", OF, "Siblings found whole with 13 tokens or more; Clopper-Pearson."),
    _count("min_flaggable", OF, "Fewer leaked items than this cannot be flagged."),
    _count("null_items", OF, "Siblings behind the p-values; of all benchmarks of the kind where pooled."),
    _count("placebos", OF, "Supplied placebos behind the p-values; 0 where fewer than 100 were supplied."),
    _count("placebo_kind_items", OF, "Items of a kind that nothing is claimed of without placebos, which are missing."),
    _count("other_language_items", OF, "Items of code in other languages than Python, which no scan looks for."),
    _count("placebo_check_items", OF, "Unflagged items that the placebo check rests on; under 50 it is not asked."),
    _spec("p_bulk", "1", OF, "Kolmogorov-Smirnov p of unflagged items among their own siblings; smallest over kinds. "
          "No interval.", "statistical"),
    _count("answer_near", TIER, "Flagged items whose answer stands within 60 words after a match."),
    _count("context_found", OF, "Items whose context was found; it never flags an item."),
    _count("code_items", OF, "Items of code that were searched for and can be flagged."),
    _count("unflaggable", OF, "Items no match could flag: not searched for, or under 13 tokens without a p-value."),
    _count("planted", (*OF, "depth", "source"), "Items planted at the depths that speak for a tier, by source."),
    _spec("recall.pooled", "fraction", POOLED,
          "Planted items of these depths found by words alone, or by anything; Wilson.", "exact", "higher"),
    _spec("recall.least", "fraction", POOLED,
          "Least share of a single one of these depths with five items or more.", "exact", "higher"),
    _count("families", (), "Items of the authored test families that were planted."),
    _count("docs", (), "Records that were read."),
    _count("words", (), "Words that were read."),
    _count("words_embedded", (), "Words that lie in embedded windows."),
    _count("words_other_language", (), "Words of documents in languages that were not asked for."),
    _count("bad_records", (), "Records without text, with bad bytes, or with content in a form that is not read."),
    _count("shards_joined", ("plan", "sketch", "plan_seed"),
           "Shards that were joined, by the SHA-256 of the plan and of the joined sketch, and the plan's seed."),
    _count("shards_missing", (), "Shards of the plan that no sketch holds."),
    _count("shards_declared", (), "Shards whose sketch was made elsewhere and is declared, not observed."),
    _spec("operator_swap_pass", "fraction", (), "Families with one operation changed that pass as the same; Wilson.",
          "exact", "lower"),
)  # fmt: skip
"""In the order of the report."""

NAMES = frozenset(one.name for one in SPECS)
