"""The table of matches that the corpus side hands out (contamination, 9.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from checks.check import Evidence
from checks.contamination.bounded import bounded
from checks.contamination.commitments import Held, Place, held
from checks.contamination.corpus_side import Concluded, concluded, here, key_of
from checks.contamination.evidence_table import evidence_table

if TYPE_CHECKING:
    from checks.contamination.check import Contamination


def matches(check: Contamination, evidence: Evidence) -> bytes:
    """Return canonical JSON of the flagged items that fit; commitments where a key and the corpus are at hand."""
    told = concluded(check, evidence)
    key = key_of(evidence)
    found = _held(check, told) if check.evidence != "none" and key is not None and told.files else {}
    spans = {place: one.span for place, one in found.items()}
    sources = {place: one.source for place, one in found.items()}
    return bounded(evidence_table(told.conclusion, told.prepared, spans, key, sources))


def _held(check: Contamination, told: Concluded) -> Mapping[Place, Held]:
    return held(told.conclusion.places(), here(told.prepared, told.files), check.text_field)
