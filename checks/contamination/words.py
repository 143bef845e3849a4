"""Every word of a finding, and what a sentence of this check never says (contamination, 9.2)."""

from __future__ import annotations

DETECTED, INDICATED, NOT_DETECTED = "detected", "indicated", "not_detected"
INCONCLUSIVE, INVALID, NOT_ASKED = "inconclusive", "invalid", "not_asked"

WORDS = (DETECTED, INDICATED, NOT_DETECTED, INCONCLUSIVE, INVALID, NOT_ASKED)
"""In the order of the table. Policies read every word but the first and the third as inconclusive."""

CLAIMS = frozenset({DETECTED, INDICATED, NOT_DETECTED})
"""Words that say something of the corpus; all others only say why nothing is said."""

LEAK = "leak"
LEAK_CODES = (LEAK, "leak.exact", "leak.near", "leak.semantic", "leak.template")
"""Codes of the corpus side, in the order of the table."""

BANNED = ("clean", "honest", "uncontaminated")
"""What no text of a finding says (section 1)."""
