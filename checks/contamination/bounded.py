"""The table of matches within what an audit may hand out (contamination, 9.1, 9.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assay import canonical

MATCHES_MAX = 2**15
"""Bytes of `matches.json`: half of what an audit may hand out in all (65 536; service specification, section 14), so
that answers and table fit together. A row has some 260 bytes: about 110 rows."""

SPARE = 16
"""Bytes by which the numbers of rows left out may grow."""


def bounded(table: Mapping[str, Any], limit: int = MATCHES_MAX) -> bytes:
    """Return a table of evidence as canonical JSON of at most so many bytes; `more` counts rows that do not fit.

    Args:
        table: as `evidence_table` returns it, best rows first; what it tells besides rows must fit.
        limit: bytes.
    """
    rows = table["rows"]
    left = limit - SPARE - len(canonical.dumps({**table, "rows": []}))
    kept = []
    for row in rows:
        size = len(canonical.dumps(row)) + 1  # with a comma
        if size <= left:  # a long row of many stretches does not hide those behind it
            kept.append(row)
            left -= size
    told = {
        **table,
        "rows": kept,
        "more": table["more"] + len(rows) - len(kept),
        "unread": sum(row["commitment"] is None for row in kept),
    }
    return canonical.dumps(told)
