"""A conclusion as text for a reader, and as one JSON document (contamination, 9)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from checks.contamination.conclude import Conclusion
from checks.contamination.evidence_rows import FlaggedRow, row_json
from checks.contamination.findings_claims import bounds, number
from checks.contamination.planning import Prepared
from checks.contamination.sketch import Sketch

NOTE = "unsigned: made on this machine; shards were read by whoever ran the scan, and nobody vouches for them"
COUNTS_ONLY = "counts only: no commitment key, or no corpus to read spans from"

COUNTS_NONE = "counts only: the plan was asked with evidence none"

SHOWN = 20
"""Flagged items in the table for readers; the JSON document holds them all (9.1: 2000)."""


def document(told: Conclusion, prepared: Prepared, sketch: Sketch, evidence: Mapping[str, Any]) -> str:
    """Return everything as one JSON document; text of the corpus is in it only where evidence is `reveal`."""
    commitments = _commitments(evidence)
    return json.dumps(
        {
            "schema": "assay-contamination-conclusion/v1",
            "note": NOTE,
            "plan_sha256": sketch.plan_sha256,
            "digests": dict(prepared.plan.digests),
            "evidence": dict(evidence),
            "findings": [one.to_json() for one in told.findings],
            "controls": [one.to_json() for one in told.controls],
            "missed": list(told.missed),
            "measured": told.measured.to_json(),
            "flagged": [dict(row_json(row, commitments.get(row.item))) for row in _rows(told, prepared)],
            "flagged_short": told.flagged.short,
            "flagged_more": told.flagged.more,
            "not_searched": [
                {"source": one.source, "planted": one.planted, "found": one.found} for one in told.not_searched
            ],
            "identical_questions": [list(names) for names in told.duplicates],
        },
        sort_keys=True,
        indent=1,
    )


def table(told: Conclusion, prepared: Prepared, sketch: Sketch, evidence: Mapping[str, Any]) -> str:
    """Return everything as text."""
    return "\n".join(_lines(told, prepared, sketch, evidence))


def _lines(told: Conclusion, prepared: Prepared, sketch: Sketch, evidence: Mapping[str, Any]) -> Iterator[str]:
    read = {one.name: one for one in told.measured.metrics if not one.labels}
    yield f"plan {sketch.plan_sha256}"
    yield "read: " + ", ".join(
        f"{number(read.get(name))} {name.replace('_', ' ')}"
        for name in ("docs", "words", "words_embedded", "words_other_language", "bad_records", "shards_missing")
    )
    for one in told.findings:
        why = f" ({one.labels['reason']})" if "reason" in one.labels else ""
        yield f"{one.labels['benchmark']:<20} {one.code:<15} {one.word}{why} [{one.severity}]"
        yield f"    {one.claim}"
    yield from _recall(told)
    yield from _flagged(told, _rows(told, prepared), _commitments(evidence))
    for source in evidence.get("sources", ()):
        yield f"source {source['source']}: {source['matches']} matches, {source['copies']} copies"
    for control in told.controls:
        of = f" of {control.labels['benchmark']}" if "benchmark" in control.labels else ""
        word = "held" if control.held else "MISSED"
        yield f"control {control.name}{of}: {control.value}, {word} ({control.band.low} to {control.band.high})"
    for missing in told.not_searched:
        yield f"not searched for: {missing.source}, {missing.found} of {missing.planted} planted copies found"
    for names in told.duplicates:
        yield f"identical questions: {', '.join(names)}"
    if evidence["commitment_key_sha256"]:
        yield f"commitment key {evidence['commitment_key_sha256']}"
    yield f"evidence: {_evidence(evidence)}"
    yield f"note: {NOTE}"


def _recall(told: Conclusion) -> Iterator[str]:
    for one in told.measured.named("recall"):
        if one.labels["placement"] == "all":
            yield (
                f"recall of {one.labels['benchmark']}, depth {one.labels['depth']}, {one.labels['source']} rewording: "
                f"{bounds(one)} of {one.n} planted"
            )


def _flagged(told: Conclusion, rows: Sequence[FlaggedRow], commitments: Mapping[str, str]) -> Iterator[str]:
    for row in rows[:SHOWN]:
        p = "identity" if row.p is None else f"p {row.p:.2g}"
        committed = commitments.get(row.item)
        also = f", span {committed[:16]}" if committed else ""
        yield f"flagged {row.item}: {row.tier}, score {row.score}, {p}, {row.copies} copies{also}"
    more = max(0, len(told.flagged.rows) - SHOWN) + told.flagged.more
    if more:
        yield f"and {more} flagged items more"
    if told.flagged.short:
        yield f"and {told.flagged.short} flagged items under 8 tokens, which are only counted"


def _rows(told: Conclusion, prepared: Prepared) -> Sequence[FlaggedRow]:
    return () if prepared.asked.evidence == "none" else told.flagged.rows


def _commitments(evidence: Mapping[str, Any]) -> Mapping[str, str]:
    return {row["item"]: row["commitment"] for row in evidence["rows"] if row["commitment"] is not None}


def _evidence(evidence: Mapping[str, Any]) -> str:
    committed = len(_commitments(evidence))
    if committed:
        return f"{committed} spans committed"
    return COUNTS_NONE if evidence["why_counts"] == "parameter" else COUNTS_ONLY
