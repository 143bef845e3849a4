"""The metrics of the check: what each means. Specification: sections 6 to 10.

Labels that every metric may carry are left away where they say nothing: `site` (one site an asked check, told in its
parameters) and `dictionary` of what no dictionary has a part in (the dense probe, the surface, the shuffled twin).
`n` counts rows (tokens, statements, contrasts); what is independent are groups, counted by metrics of their own.
"""

from __future__ import annotations

from typing import Literal

from checks.check import MetricSpec

NONE = "No interval."

ALWAYS = frozenset({"power", "diff_power", "diff_rate", "diff_mean_on"})
"""Metrics whose interval hangs on no number of groups: shares of plants, and percentiles of one latent's draws."""

TOLERANCE = (0.005, 0.02)
"""Absolute and relative difference that a re-run may show: EV and areas agree between machines to .005 (section 5)."""

SITE = ("site",)
OF = ("site", "dictionary")
"""Dictionary: trained-0, trained-1, ..., frozen, twin (of the shuffled model), tail-mse (same steps as a KL tail, MSE
alone), supplied."""
CONCEPT = ("site", "dictionary", "concept")


def _spec(
    name: str,
    unit: str,
    labels: tuple[str, ...],
    summary: str,
    better: Literal["higher", "lower", "none"] = "none",
    determinism: Literal["exact", "tolerance", "statistical"] = "statistical",
) -> MetricSpec:
    exact = determinism == "exact"
    return MetricSpec(
        name=name,
        unit=unit,
        labels=labels,
        better=better,
        determinism=determinism,
        summary=summary,
        # A number that is pooled over groups has an interval unless all its rows are of one group.
        interval=False if exact or NONE in summary else True if name in ALWAYS else None,
        tolerance=None if exact else TOLERANCE,
    )


def _count(name: str, labels: tuple[str, ...], summary: str) -> MetricSpec:
    return _spec(name, "count", labels, summary, determinism="exact")


def _told(name: str, unit: str, labels: tuple[str, ...], summary: str) -> MetricSpec:
    """Return a number that is described and not tested: it has no interval, and says so."""
    return _spec(name, unit, labels, f"{summary} {NONE}", determinism="tolerance")


COUNTS: tuple[MetricSpec, ...] = (
    _count("train_tokens", OF, "States that the dictionary was trained on, after exclusions."),
    _count("train_passes", SITE, "Passes over the training passages."),
    _count("latents", OF, "Latents of the dictionary."),
    _count("heldout_tokens", SITE, "Held-out states behind fidelity; special tokens and outliers of norm left out."),
    _count("heldout_groups", SITE, "Groups that they come from."),
    _count("special_tokens", SITE, "Special tokens that were left out, training and held out."),
    _count("outlier_tokens", SITE, "States above 10 times the median norm that were left out."),
    _count("concepts_asked", SITE, "Concepts that were asked."),
    _count("cut_passages", SITE, "Passages that were cut at the context."),
    _count("stated", (*OF, "statement"), "1: the sender states this of a supplied dictionary; not verified."),
)
"""What was seen."""

FIDELITY: tuple[MetricSpec, ...] = (
    _spec(
        "ev",
        "fraction",
        (*OF, "model"),
        "1 - E|e|^2/E|x-mean|^2, pooled, held out; beyond a norm of each token where one is.",
        "higher",
    ),
    _spec("ev_with_norm", "fraction", OF, "The same, where a norm of each token counts as explained.", "higher"),
    _spec("ev_position", "fraction", (*OF, "band"), "The same by position in the passage.", "higher"),
    _spec("mse", "1", OF, "E|e|^2, summed over the width, squared activation units.", "lower"),
    _spec("cosine", "1", OF, "Mean cosine of x and its reconstruction, both centred.", "higher"),
    _spec("shrink_gamma", "1", OF, "E|xhat|^2/E<x,xhat>, centred; below 1 the dictionary shrinks."),
    _spec("norm_ratio", "1", OF, "Mean ratio of centred norms, reconstruction over state."),
    _spec("l0", "count", OF, "Mean number of latents that are strictly positive; counted, never k."),
    _told("l0_median", "count", OF, "Its median over tokens."),
    _told("l0_p5", "count", OF, "Its 5 % quantile."),
    _told("l0_p95", "count", OF, "Its 95 % quantile."),
    _told("dead", "fraction", OF, "Latents without a firing in n tokens; each may still fire at 3/n (95 %)."),
    _told("dense01", "fraction", OF, "Latents on in more than 1 % of tokens; no gate."),
    _told("dense01_mass", "fraction", OF, "Their part of all firings."),
    _told("dense10", "fraction", OF, "Latents on in more than 10 % of tokens; no gate."),
    _told("dense10_mass", "fraction", OF, "Their part of all firings."),
    _told("duplicates", "fraction", OF, "Decoder rows with a cosine above .9 to another row."),
    _told("enc_dec_cosine", "1", OF, "Median cosine of what reads a latent and what it writes."),
    _told("fold_error", "1", OF, "Relative error of the reconstruction after folding rows to unit norm."),
    _told("seed_cosine", "1", OF, "Mean matched cosine of its rows with those of trained-0; no band."),
    _told("seed_replicated", "fraction", OF, "Rows of it that match a row of trained-0 above .7; no band."),
)
"""Of reconstruction and sparsity (section 6)."""

OUTPUT: tuple[MetricSpec, ...] = (
    _spec("ce", "nats", ("site", "model"), "Cross-entropy of the unedited model, per token.", "lower"),
    _spec("delta_ce", "nats", OF, "Cross-entropy with reconstructions spliced in, less unedited; per token.", "lower"),
    _spec("delta_ce_zero", "nats", SITE, "The same with states of zero."),
    _spec("delta_ce_mean", "nats", SITE, "The same with the mean state."),
    _spec("dce_share", "fraction", OF, "delta_ce / delta_ce_mean; left out where that is below .05.", "lower"),
    _spec("kl", "nats", OF, "KL(unedited || spliced), per token.", "lower"),
    _spec("top1_agree", "fraction", OF, "Share of tokens whose likeliest next token stays.", "higher"),
    _spec("tv", "fraction", OF, "Mean total variation distance of the two next-token distributions.", "lower"),
)
"""Of what the model says when the reconstruction stands in for the state (section 6)."""

CODE: tuple[MetricSpec, ...] = (
    _spec(
        "code_gain", "bits", (*OF, "epsilon"), "Bits a token saved over a Gaussian code at this distortion.", "higher"
    ),
    _told("code_null", "bits", ("site", "dictionary", "epsilon"), "Bits a token of the Gaussian code."),
    _told("code_switches", "bits", (*OF, "epsilon"), "Bits a token that say which latents are on."),
    _told("code_values", "bits", (*OF, "epsilon"), "Bits a token of their rounded values."),
    _told("code_residual", "bits", (*OF, "epsilon"), "Bits a token of what they leave."),
    _told("code_norm", "bits", (*OF, "epsilon"), "Bits a token of what a norm of each token takes from the state."),
    _told("code_dictionary", "bits", OF, "16 bits a decoder weight, a token; told beside, not subtracted."),
    _spec("ev_above_frozen", "fraction", OF, "ev less that of the frozen decoder; paired.", "higher"),
    _spec("code_gain_above_frozen", "bits", OF, "code_gain less that of the frozen decoder; paired.", "higher"),
    _spec("code_gain_above_twin", "bits", OF, "code_gain less that of the twin's own dictionary; paired.", "higher"),
)
"""Of description length, and of what baselines reach (sections 6 and 10)."""

CONVENTION: tuple[MetricSpec, ...] = (
    _count("convention_confirmed", OF, "1: no other reading of the supplied files explains the states better."),
    _told("convention_ev", "fraction", (*OF, "cell", "layer"), "EV of a reading: the declared one and the best."),
    _told("convention_l0", "count", (*OF, "cell", "layer"), "L0 of that reading."),
    _told("convention_ev_special", "fraction", OF, "EV as declared with special tokens kept; never ranked."),
)
"""Of how a supplied dictionary is read (section 4)."""

CONCEPTS: tuple[MetricSpec, ...] = (
    _count("concept_rows", ("site", "concept", "shift"), "Test statements of the concept."),
    _count("concept_groups", ("site", "concept", "shift"), "Groups that they come from."),
    _spec(
        "auroc", "1", (*CONCEPT, "probe", "shift"), "AUROC on test: dense, sparse_k, surface and residual.", "higher"
    ),
    _count("chosen_k", CONCEPT, "Latents of the sparse probe; chosen on val."),
    _count("chosen_latent", (*CONCEPT, "rank"), "Number of the latent at this rank of the choice; chosen on val."),
    _spec("delta_sae", "1", CONCEPT, "AUROC of the sparse probe of the chosen k less dense; paired.", "higher"),
    _spec("delta_blind", "1", CONCEPT, "AUROC of the largest sparse probe less dense; paired.", "higher"),
    _spec("delta_surface", "1", CONCEPT, "Better of dense and sparse less the best surface probe; paired.", "higher"),
    _spec("delta_frozen", "1", CONCEPT, "Sparse less the same on the frozen decoder; paired.", "higher"),
    _spec("concept_p", "1", CONCEPT, "Permutation p of the better of dense and sparse; its null is told. No interval."),
    _spec("concept_p_holm", "1", CONCEPT, "The same after Holm over the concepts. No interval."),
    _spec(
        "null_auroc", "1", ("site", "concept", "dictionary", "probe"), "Mean AUROC under permuted labels. No interval."
    ),
    _spec("power", "fraction", (*OF, "place", "amplitude", "probe"), "Share of plants detected; Wilson.", "higher"),
    _spec("power_auroc", "1", (*OF, "place", "amplitude", "probe"), "Mean AUROC of plants. No interval.", "higher"),
    _count("detected_at_zero", (*OF, "probe"), "Plants of amplitude 0 that were detected, of n."),
)
"""Of concepts (section 7), and of what the probes would have seen (section 10)."""

CAUSES: tuple[MetricSpec, ...] = (
    _count("contrast_rows", ("site", "concept"), "Contrasts behind the interventions."),
    _count("contrast_groups", ("site", "concept"), "Groups that they come from."),
    _count("contrast_left_out", ("site", "concept"), "Contrasts left out: the unedited margin has the wrong sign."),
    _spec("margin", "nats", (*CONCEPT, "edit"), "log p(target) - log p(foil) under an edit of the battery."),
    _spec("effect", "nats", CONCEPT, "Margin with the chosen latents at zero less unedited; null: matched latents."),
    _spec("relative_effect", "1", CONCEPT, "The same over the size of the unedited margin."),
    _spec("effect_p", "1", CONCEPT, "p of its size among matched latents. No interval."),
    _spec("effect_p_holm", "1", CONCEPT, "The same after Holm over the concepts. No interval."),
    _spec(
        "control_effect", "nats", (*CONCEPT, "edit"), "Mean effect of other edits: random (without interval), diffmean."
    ),
    _spec(
        "matched_share",
        "fraction",
        CONCEPT,
        "Control sets within .6 of the log mass of what they replace. No interval.",
    ),
    _spec("off_target_kl", "nats", CONCEPT, "KL per token that the same edit makes on neutral text.", "lower"),
    _spec("effect_per_nat", "1", CONCEPT, "Size of the effect per nat off target. No interval."),
    _spec("error_share", "1", CONCEPT, "(m(mean+e) - m(mean)) / (m(x) - m(mean)): what passes through the error."),
    _spec(
        "attribution_rho", "1", (*CONCEPT, "form"), "Spearman of attributed and exact effects. No interval.", "higher"
    ),
    _spec("attribution_pearson", "1", (*CONCEPT, "form"), "Their linear correlation. No interval.", "higher"),
    _spec("attribution_slope", "1", (*CONCEPT, "form"), "Slope of exact on attributed effects. No interval."),
    _spec("attribution_error", "nats", (*CONCEPT, "form"), "Attributed effect of the error term."),
    _spec("latent_effect", "nats", (*CONCEPT, "latent"), "Exact effect of one latent at zero."),
    _spec(
        "dose", "nats", (*CONCEPT, "edit", "amplitude"), "Margin with latents scaled or a direction added. No interval."
    ),
)
"""Of interventions (section 8). Edits of the battery: unedited, xhat, mean, mean_error, ablated, ablated_no_error,
only, only_no_error."""

DIFFING: tuple[MetricSpec, ...] = (
    _spec("diff_ev", "fraction", OF, "ev on the submitted model less ev on its base; paired."),
    _spec("diff_p", "1", (*CONCEPT, "form"), "Max-T p over latents, models swapped by group. No interval."),
    _spec("diff_p_holm", "1", (*CONCEPT, "form"), "The same after Holm over the concepts. No interval."),
    _count(
        "diff_swaps", (*CONCEPT, "form"), "Swaps of the two models behind diff_p, which is 1 / (1 + swaps) or more."
    ),
    _spec("diff_power", "fraction", (*CONCEPT, "amplitude"), "Share of planted rate changes that are called. Wilson."),
    _spec(
        "diff_rate", "fraction", (*CONCEPT, "form", "latent"), "Change of a latent's firing rate, submitted less base."
    ),
    _spec("diff_mean_on", "1", (*OF, "latent"), "Change of its mean contribution where it is on."),
    _spec("latent_scale", "1", (*OF, "latent", "model", "target"), "Least-squares scale of a latent. No interval."),
    _spec("latent_scale_ratio", "1", (*OF, "latent", "target"), "Base over submitted: small where new. No interval."),
)
"""Of a second model (section 8.4). Form: plain (all tokens), conditional (label 1 against 0 of a concept)."""

CONTROLS: tuple[MetricSpec, ...] = (
    _told(
        "ce_twin_excess", "nats", SITE, "Controls: CE of the twin less (CE + log V)/2; at least 0 where it is broken."
    ),
    _count(
        "frozen_rows_equal", OF, "Controls: 1 where the frozen decoder's rows are byte for byte those it began with."
    ),
    _spec(
        "planted_auroc",
        "1",
        (*OF, "probe"),
        "Controls: mean AUROC of in-dictionary plants at .5 R. No interval.",
        "higher",
    ),
)
"""Told of controls alone (section 10)."""

METRICS: tuple[MetricSpec, ...] = (
    *COUNTS,
    *FIDELITY,
    *OUTPUT,
    *CODE,
    *CONVENTION,
    *CONCEPTS,
    *CAUSES,
    *DIFFING,
    *CONTROLS,
)
