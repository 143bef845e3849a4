"""The table of matches that the corpus side hands out (contamination, 9.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from assay import canonical

from checks.check import Evidence, Refusal
from checks.contamination.commitments import KEY_BYTES, Place, spans
from checks.contamination.corpus_side import Concluded, concluded, here
from checks.contamination.evidence_table import evidence_table

if TYPE_CHECKING:
    from checks.contamination.check import Contamination


def matches(check: Contamination, evidence: Evidence) -> bytes:
    """Return canonical JSON of the flagged items; commitments where a key and the corpus are at hand.

    Raises:
        Refusal: `key_invalid`: the key has not 32 bytes.
    """
    told = concluded(check, evidence)
    key = evidence.blob("commitment_key") if "commitment_key" in evidence.roles() else None
    if key is not None and len(key) != KEY_BYTES:
        raise Refusal("key_invalid", (f"commitment_key:bytes:{len(key)}",))
    wanted = check.evidence == "reveal" or (check.evidence == "commit" and key is not None)
    found = _spans(check, told) if wanted and told.files else None
    return canonical.dumps(evidence_table(told.conclusion, told.prepared, found, key))


def _spans(check: Contamination, told: Concluded) -> Mapping[Place, bytes]:
    entries = [row.entry for row in told.conclusion.flagged.rows]
    return spans(entries, here(told.prepared, told.files), check.text_field)
