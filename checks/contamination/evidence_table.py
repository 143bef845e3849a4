"""What an auditor may have of each match, as one JSON document (contamination, 9.1, 9.3).

No text of a corpus is in it unless the audit was asked with `evidence: reveal` and the corpus's owner gave a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from checks.contamination.commitments import Place, commit, key_digest, revealed
from checks.contamination.evidence_rows import FlaggedRow, sources_by_hits
from checks.contamination.highlights import highlights
from checks.contamination.plan import NAMED_MIN
from checks.contamination.planning import Prepared
from checks.contamination.sketch import TIERS
from checks.quantise import decimal, p_value

if TYPE_CHECKING:
    from checks.contamination.conclude import Conclusion

SCHEMA = "assay-contamination-flagged/v1"

COUNTS = "counts"
"""What is told where evidence is `none`, or nobody gave a key: how many, and no item by name."""


REVEALED_MAX = 1_000_000
"""Characters of a corpus in one table: 2000 rows of the default length fit in, and a grant of single matches is none of
a corpus."""


def evidence_table(
    conclusion: Conclusion,
    prepared: Prepared,
    spans: Mapping[Place, bytes] | None,
    key: bytes | None,
    sources: Mapping[Place, str] | None = None,
) -> dict[str, Any]:
    """Return the table of flagged items: integers, names, decimal strings; fit for canonical JSON.

    Args:
        conclusion: of the audit.
        prepared: its plan; `asked.evidence` and `asked.reveal_chars` decide what is told.
        spans: bytes of matches as `commitments.spans` reads them; rows whose span is not there say `unread`.
        key: the corpus owner's; None: counts only.
        sources: `source` of the records at the places of `Conclusion.hits`; None: not told. By name only under `reveal`
            or where the auditor named it in `always_embed`, else as a keyed hash: a name may say what a corpus holds.
    """
    asked = prepared.asked
    whole = asked.evidence != "none" and key is not None
    held = spans or {}
    questions = {probe.id: probe.text for probe in prepared.plan.probes}
    limit = asked.reveal_chars if asked.evidence == "reveal" else None
    rows = conclusion.flagged.rows if whole else ()
    if limit is not None and rows:
        limit = min(limit, REVEALED_MAX // len(rows))
    told: dict[str, Any] = {
        "schema": SCHEMA,
        "plan_sha256": prepared.plan.plan_sha256,
        "evidence": asked.evidence if whole else COUNTS,
        "why_counts": None if whole else "parameter" if asked.evidence == "none" else "no_key",
        "commitment_key_sha256": key_digest(key) if key is not None and whole else None,
        "flagged": _counts(conclusion),
        "rows": [_row(row, held.get(_place(row)), key, questions.get(row.probe, ""), limit) for row in rows],
        "short": {"items": conclusion.flagged.short, "under_tokens": NAMED_MIN},
        "more": conclusion.flagged.more,
        "unread": sum(_place(row) not in held for row in rows),
    }
    if whole and sources is not None:
        named = None if asked.evidence == "reveal" else key
        told["sources"] = [
            {"source": one.source, "matches": one.matches, "copies": one.copies}
            for one in sources_by_hits(conclusion.hits, sources, named, prepared.plan.parameters.always_embed)
        ]
    return told


def _row(row: FlaggedRow, span: bytes | None, key: bytes | None, question: str, limit: int | None) -> dict[str, Any]:
    told: dict[str, Any] = {
        "item": row.item,
        "tier": row.tier,
        "score": row.score,
        "p": None if row.p is None else p_value(row.p),
        "q_value": None if row.q_value is None else decimal(row.q_value),
        "identity": row.identity,
        "copies": row.copies,
        "answer_near": row.answer_near,
        "bytes": row.length,
        "commitment": None,
        "highlights": None,
    }
    if span is None or key is None:
        return told
    told["commitment"] = commit(key, row.entry, span)
    told["highlights"] = [list(one) for one in highlights(question, span, row.tier)]
    if limit is not None:
        told["revealed"] = revealed(span, limit)
    return told


def _counts(conclusion: Conclusion) -> list[dict[str, Any]]:
    """Return flagged items by benchmark and gating tier of the best match, short ones too."""
    return [
        {"benchmark": one.benchmark, "tier": tier, "items": one.tiers().count(tier)}
        for one in conclusion.benchmarks
        for tier in TIERS
        if tier in one.gating and tier in one.tiers()
    ]


def _place(row: FlaggedRow) -> Place:
    return row.entry.shard, row.entry.doc, row.entry.start, row.entry.end
