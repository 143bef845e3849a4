"""Every reason of a word or a refusal of this check (contamination, 4, 6.8, 9.2)."""

from __future__ import annotations

PLACEBO_MISMATCH, COVERAGE, NO_PLACEBO = "placebo_mismatch", "coverage", "no_placebo"
CONTROL_MISSED, NO_RECALL, UNDERPOWERED = "control_missed", "no_recall", "underpowered"
NOT_MEASURED, PARAMETER, LANGUAGE = "not_measured", "parameter", "language"

WHY = {
    PLACEBO_MISMATCH: "items that did not match score unlike their own siblings, so p-values mean nothing",
    COVERAGE: "not all of the corpus, or not all of the items, was searched",
    NO_PLACEBO: "too many items have nothing to be calibrated by",
    CONTROL_MISSED: "a control missed its band",
    NO_RECALL: "nothing was planted that speaks for this, so nobody knows what a scan misses",
    UNDERPOWERED: "too few of the planted rewrites are found",
    NOT_MEASURED: "a number that this rests on was not measured",
    LANGUAGE: "all items are code in languages that no scan looks for",
    PARAMETER: "the parameters do not ask for it",
}
"""Reason of a word -> how it reads in a sentence."""

REFUSALS = (
    "empty_corpus", "role_invalid", "plan_invalid", "sketch_invalid", "other_plan", "shards_overlap", "shards_differ",
    "shard_unknown", "key_invalid", "plan_too_large",
)  # fmt: skip
"""Codes of refusals, in the order in which they can come up."""
