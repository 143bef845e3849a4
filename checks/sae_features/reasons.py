"""Every reason code of a refusal or of something left out. Specification: sections 2 to 8.

Those of supplied files are those of `dictionary.formats.REASONS`; they are written again here because that module loads
torch, and a judge and a catalogue do without. A test holds the two against each other.
"""

from __future__ import annotations

ROLES = (
    "concept_unknown", "contrast_without_concept", "dictionary_missing", "dictionary_not_asked", "k_over_latents",
    "role_invalid", "site_unknown", "too_many_concepts",
)  # fmt: skip
"""Of roles and parameters."""

STATES = (
    "constant_site", "non_finite", "not_finite", "outlier_row", "row_lost", "short_stream",
    "stream_ended",
    "too_few_groups", "too_few_tokens",
)  # fmt: skip
"""Of states and groups."""

FILES = (
    "config_value", "convention_unconfirmed", "missing_tensor", "not_finite", "pickle_format",
    "sae_config",
    "scale_missing", "scaling_factor", "site_mismatch", "tensor_dtype", "threshold_unset", "too_few_vectors",
    "unknown_architecture", "unknown_format", "unknown_tensor", "weights_unreadable", "wrong_shape", "wrong_width",
)  # fmt: skip
"""Of a supplied dictionary."""

EDITS = (
    "behaviour_absent", "contrasts_lost", "margin_not_finite", "no_replay", "site_harmless_when_averaged",
    "too_few_latents", "undefined",
)  # fmt: skip
"""Of edits: no model to run, no behaviour to explain, a share whose denominator is next to nothing."""

TOLD = ("config_key_dropped",)
"""Of a supplied dictionary that is read: keys of the peer's configuration that no rule reads."""

COMPARED = ("no_live_latents", "not_measured", "nothing_held", "tokens_differ")
"""Of a second model, and of what was owed and is not there."""

REASONS = tuple(sorted({*ROLES, *STATES, *FILES, *TOLD, *EDITS, *COMPARED}))
"""Every reason of this check; the runtime's own come on top."""
