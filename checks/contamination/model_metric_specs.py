"""The metrics of the model side: what each means (contamination, 9.1)."""

from __future__ import annotations

from typing import Literal

from checks.check import MetricSpec

OF = ("benchmark",)

SOME = frozenset({"order.effect"})
"""Metrics of which some have an interval: of a single stretch there is none."""

ESTIMATED = SOME | {
    "options.mean_rank",
    "surprise.auc",
    "transfer.delta",
    "inflation.raw",
    "inflation.adjusted",
}
"""Metrics that have an interval; all others have none, and their summaries say so."""


def _spec(
    name: str,
    unit: str,
    summary: str,
    labels: tuple[str, ...] = OF,
    determinism: Literal["exact", "tolerance", "statistical"] = "tolerance",
) -> MetricSpec:
    bare = determinism == "exact" or name not in ESTIMATED
    return MetricSpec(
        name=name,
        unit=unit,
        labels=labels,
        better="none",
        determinism=determinism,
        summary=f"{summary} No interval." if bare and determinism != "exact" else summary,
        interval=None if name in SOME else not bare,
    )


SPECS: tuple[MetricSpec, ...] = (
    _spec("tests_asked", "count", "Tests of the model side that were asked, over all benchmarks.", (), "exact"),
    _spec("order.p", "1", "P(ranks this low) if the published order is one random order; exact convolution, not "
          "corrected; the p beside it is Holm's over the tests of the benchmark. n: stretches."),
    _spec("order.p_min", "1", "Smallest p that so many stretches and shuffles can show, not corrected. n: stretches."),
    _spec("order.effect", "sd", "Mean of (published - mean of random orders) / their s.d. over stretches; Student's t, "
          "of one stretch none; nothing to find: 0."),
    _spec("order.stretches", "count", "Stretches that were ranked."),
    _spec("order.lost", "count", "Stretches of which an order could not be scored."),
    _spec("order.short", "count", "Items in no stretch: too few fit the context.", OF, "exact"),
    _spec("order.guard_p", "1", "Smallest p, over statistics that need no model, of the published order among 999 "
          "random ones; n: items.", OF, "statistical"),
    _spec("options.p", "1", "P(ranks this low) if options were shuffled at creation; exact convolution, not corrected; "
          "the p beside it is Holm's. n: items."),
    _spec("options.p_min", "1", "Smallest p that so many items and orders can show, not corrected. n: items."),
    _spec("options.mean_rank", "fraction", "Mean rank of the published order of options, as a share of the largest; "
          "Student's t; nothing to find: 0.5."),
    _spec("options.items", "count", "Choice items that were ranked."),
    _spec("options.lost", "count", "Choice items of which an order could not be scored."),
    _spec("options.left_out", "count", "Choice items that are not asked, by reason; all: over them.", (*OF, "reason"),
          "exact"),
    _spec("options.placebo_items", "count", "Choice items of the placebos that were ranked; 0: no check of them."),
    _spec("options.placebo_p", "1", "The same p on placebo items, which no model can know."),
    _spec("options.placebo_p_min", "1", "Smallest p that so many placebo items can show; above .001: no check."),
    _spec("surprise.p", "1", "P(area this large) under permuted labels, whole templates at once, not corrected; the p "
          "beside it is Holm's. n: items and placebos.", OF, "statistical"),
    _spec("surprise.p_min", "1", "Smallest p that so many templates and permutations can show, not corrected. n: items "
          "and placebos."),
    _spec("surprise.auc", "fraction", "P(Min-K%++ of an item > of a placebo), ties one half; bootstrap by template; "
          "nothing to find: 0.5.", OF, "statistical"),
    _spec("surprise.blind_auc", "fraction", "The same area of words, lengths and digits alone, held out by template; "
          "no model. It tells whether the sets can be told apart without one.", OF, "statistical"),
    _spec("surprise.blind_p", "1", "P(blind area this large) under permuted labels.", OF, "statistical"),
    _spec("surprise.items", "count", "Items that were scored."),
    _spec("surprise.placebos", "count", "Placebos that were scored."),
    _spec("surprise.left_out", "count", "Items and placebos under 8 tokens or not scored."),
    _spec("label_swap.p", "1", "Control: the surprise test's p where one half of the placebos plays the items.", OF,
          "statistical"),
    _spec("transfer.p", "1", "(1 + draws whose gain is at most .02) / (1 + draws); not corrected.",
          (*OF, "reference"), "statistical"),
    _spec("transfer.p_min", "1", "Smallest p that so many draws can show. n: benchmarks that foretell.", OF,
          "statistical"),
    _spec("transfer.delta", "points", "Accuracy beyond what a line through reference models foretells; bootstrap; "
          "nothing to find: 0.", (*OF, "reference"), "statistical"),
    _spec("transfer.references", "count", "Benchmarks that foretell.", OF, "exact"),
    _spec("inflation.raw", "points", "Accuracy on all items less that on unflagged ones; confounded by difficulty; "
          "bootstrap by template.", OF, "statistical"),
    _spec("inflation.adjusted", "points", "Gain on flagged items at equal difficulty; bootstrap by template; nothing "
          "to find: 0.", OF, "statistical"),
)  # fmt: skip
"""In the order of the report."""

NAMES = frozenset(one.name for one in SPECS)
