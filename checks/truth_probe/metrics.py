"""The metrics of the check: what each means. Specification: section 6. `telling` makes them from numbers."""

from __future__ import annotations

from typing import Literal

from checks.check import MetricSpec

SET, AT, BY = ("set",), ("set", "layer"), ("set", "layer", "method")
BY_H = (*BY, "h")

SOME = frozenset({"displacement_share"})
"""Metrics that have an interval in controls alone."""


def _spec(
    name: str,
    unit: str,
    labels: tuple[str, ...],
    summary: str,
    better: Literal["higher", "lower", "none"] = "none",
    determinism: Literal["exact", "tolerance", "statistical"] = "statistical",
) -> MetricSpec:
    bare = determinism == "exact" or "No interval" in summary
    return MetricSpec(
        name=name,
        unit=unit,
        labels=labels,
        better=better,
        determinism=determinism,
        summary=summary,
        interval=None if name in SOME else not bare,
    )


SCORES: tuple[MetricSpec, ...] = (
    _spec("auroc", "1", BY, "Signed AUROC on test; bounds simultaneous over layers; p by flips, Holm.", "higher"),
    _spec("accuracy", "fraction", BY, "Share of test pairs on the right side of zero; same bounds.", "higher"),
    _spec("stability", "1", BY, "Mean |cos| of the directions of two halves of train; range of four.", "higher"),
    _spec("restart_cos", "1", BY, "Mean pairwise |cos| of CCS restarts. No interval: restarts are not a sample."),
    _spec("restart_auroc_best_of_sign", "1", BY, "Median AUROC of CCS restarts, better sign; least to most."),
    _spec("restart_loss_correlation", "1", BY, "Rank correlation of train loss with AUROC over restarts. No interval."),
    _spec("test_loss", "1", BY, "CCS loss of the kept restart on test; a constant probe has .25. No interval."),
    _spec("inconsistency", "1", BY, "Mean |p+q-1| of the kept CCS restart on test. No interval."),
    _spec("one_sided", "fraction", BY, "Share of test pairs with both branches on one side under CCS. No interval."),
    _spec(
        "orientation_margin",
        "fraction",
        BY,
        "Share of anchors that +direction orients right, less one half. No interval: its binomial p fixes the sign.",
    ),
    _spec("lambda", "1", BY, "Weight of the midpoint, sum convention; no label chose it. No interval: a choice."),
    _spec("relative_gap", "1", AT, "1 - s2^2/s1^2 of centred displacements: near 0, two features tie. No interval."),
    _spec(
        "second_stability",
        "1",
        AT,
        "Smaller cosine of the top-two planes of two halves of train. No interval.",
    ),
    _spec(
        "random_auroc_best_of_sign",
        "1",
        (*AT, "null"),
        "Mean AUROC of 1000 random directions with the better sign. No interval: the null tells sd and p95.",
    ),
    _spec(
        "shuffled_auroc",
        "1",
        BY,
        "Mean AUROC of lr on shuffled train labels. No interval: see the null.",
    ),
    _spec("selectivity", "1", BY, "Ceiling's AUROC less the same on one random label a cluster. No interval."),
    _spec("kappa", "1", AT, "(E|z|)^2/E z^2 of tpc scores on test: 2/pi Gaussian, 1 two points. No interval."),
    _spec(
        "displacement_share",
        "fraction",
        BY,
        "Displacement's share of both variances on test. No interval but in a control.",
    ),
    _spec(
        "power",
        "fraction",
        (*BY, "effect"),
        "Control only: share of plants of a known effect for which gate 1 holds. No interval: a control's number.",
    ),
    _spec("train_pairs", "count", SET, "Pairs that directions were fitted on.", determinism="exact"),
    _spec(
        "feature_items",
        "count",
        ("set", "h"),
        "Test items that carry a declared feature; gate 3 owes a reading of each.",
        determinism="exact",
    ),
    _spec("test_items", "count", SET, "Items behind the scores.", determinism="exact"),
    _spec("test_clusters", "count", SET, "Clusters behind the scores.", determinism="exact"),
)
"""Of main rows."""

BEYOND: tuple[MetricSpec, ...] = (
    _spec("frozen_auroc", "1", BY_H, "Direction as fitted: its AUROC for feature h; battery/* swept again."),
    _spec("distracted_auroc", "1", BY_H, "Direction as fitted: its AUROC for truth beside a distractor."),
    _spec("refit_auroc", "1", BY_H, "Method fitted again beside a distractor: its AUROC for it."),
    _spec("negation_auroc", "1", BY, "Fitted and signed on affirmative rows, tested on negated ones.", "higher"),
    _spec("transfer_auroc", "1", (*BY, "to"), "Fitted and signed on one set, tested on another.", "higher"),
    _spec("output_auroc", "1", ("set", "persona"), "AUROC of the model's own answer against truth."),
    _spec("persona_auroc", "1", BY, "Fitted and signed on one persona, tested on the other."),
    _spec("pgr", "1", BY, "Performance gap recovered: (probe B - output B) / (output A - output B)."),
    _spec("disagreement_auroc", "fraction", BY, "Where the output is wrong: share that the probe has right."),
    _spec(
        "cells",
        "count",
        (*BY, "probe", "output"),
        "Items by what probe and output say. No interval.",
    ),
    _spec(
        "output_gap", "1", SET, "P(yes) - P(no): mean on true less mean on false texts, unedited; bounds by cluster."
    ),
    _spec("nie_f2t", "1", BY, "Effect of the shift on false texts, 1 = answers become those of true texts.", "higher"),
    _spec("nie_t2f", "1", BY, "Effect of the shift on true texts, 1 = answers become those of false texts.", "higher"),
    _spec("nie_random_max", "1", AT, "Largest |effect| of random directions of the same length. No interval."),
    _spec("recall_at_fpr01", "fraction", BY, "Asserted false statements under the alarm's threshold.", "higher"),
    _spec("fpr_measured", "fraction", BY, "Alarms on the held-out half of benign texts.", "lower"),
    _spec("lie_rate", "fraction", BY, "Share of asserted statements that the feature marks false."),
    _spec("brier", "1", BY, "Brier score on test after Platt scaling on anchors alone.", "lower"),
    _spec("ece", "1", BY, "Expected calibration error on test, ten equal bins, after Platt.", "lower"),
)
"""Of further rows, answers and edits."""

METRICS: tuple[MetricSpec, ...] = (*SCORES, *BEYOND)
