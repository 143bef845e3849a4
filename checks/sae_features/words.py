"""Every word, tag and reason that a finding may use. Specification: section 12."""

from __future__ import annotations

INCONCLUSIVE = "inconclusive"

LOSSY, NOT_ABOVE_BASELINE, USABLE = "lossy", "not_above_baseline", "usable"
"""Of a dictionary, in the order of the table."""

NOT_DETECTED, SURFACE_EXPLAINS = "not_detected", "surface_explains"
DENSE_CARRIES, SAE_ADDS = "dense_carries", "sae_adds"
"""Of a concept, in the order of the table."""

THROUGH_ERROR, NO_EFFECT, THROUGH_LATENTS = "through_error", "no_effect_beyond_controls", "through_latents"
"""Of what a concept's latents do to the behaviour."""

VALIDATED, EXACT_ONLY = "validated", "exact_only"
"""Of attribution by gradients."""

SUPPLIED_DISAGREES, SUPPLIED_AGREES = "supplied_disagrees", "supplied_agrees"
"""Of a supplied dictionary beside those that the audit trained."""

CHANGED, NO_CHANGE_DETECTED = "changed", "no_change_detected"
"""Of two models."""

WORDS = (
    INCONCLUSIVE,
    LOSSY,
    NOT_ABOVE_BASELINE,
    USABLE,
    NOT_DETECTED,
    SURFACE_EXPLAINS,
    DENSE_CARRIES,
    SAE_ADDS,
    THROUGH_ERROR,
    NO_EFFECT,
    THROUGH_LATENTS,
    VALIDATED,
    EXACT_ONLY,
    SUPPLIED_DISAGREES,
    SUPPLIED_AGREES,
    CHANGED,
    NO_CHANGE_DETECTED,
)
"""Every word of a finding of this check."""

WATCHED = frozenset({DENSE_CARRIES, SAE_ADDS, THROUGH_ERROR, THROUGH_LATENTS})
"""Words that are a concern where the concept is watched (section 12); of the others none says that it is there."""

WEAKENING = frozenset({LOSSY, NOT_ABOVE_BASELINE, SURFACE_EXPLAINS, NO_EFFECT})
"""Words that may stand in `also` beside any word: they only take away from what is claimed."""

ASIDE = WEAKENING | {DENSE_CARRIES}
"""Words that may stand in `also` beside a word that was decided."""

CODES = ("dictionary", "concept", "causal", "attribution", "provenance", "diff")
"""Codes of findings, in the order of the table."""

TAGS = ("sae_blind", "seed_dependent", "poorly_matched", "dce_not_measured", "epsilon_above_residual")
"""What is noted beside a word (sections 6, 10, 12)."""

WHY = (
    "above_baselines", "adds_to_dense", "attribution", "battery_incomplete", "behaviour_absent", "blind",
    "code_gain", "code_gain_above_frozen", "code_gain_above_twin", "control_missed", "convention_unconfirmed",
    "dce_share", "delta_frozen", "delta_sae", "delta_surface", "dictionary_not_usable", "effect_holds",
    "effect_reversed", "error_share", "error_share_undecided", "ev", "ev_above_frozen", "gradient", "ig",
    "latents_do_not_read", "no_conditional_rates", "no_reference", "no_separation", "not_measured",
    "nothing_detected", "p_above_alpha", "p_below_alpha", "p_resolution", "power_too_low", "same_on_both",
    "seed_dependent", "short_stream", "too_few_controls", "too_small", "too_wide",
)  # fmt: skip
"""Reasons of words, besides those of `reasons.REASONS` that a concept was left out for."""

BANNED = ("absent", "clean", "removed", "the feature for")
"""What no text of a finding says (section 12): silence is not absence, and a latent is not the concept."""
