"""Withdrawing: a report that must not be relied on is taken back in the log, where every reader looks (V15)."""

from __future__ import annotations

from assay import canonical
from assay.tlog import entries, proofs

from service.signer.desk import Desk
from service.signer.refusal import Refused
from service.signer.rows import AuditRow

NOTE_MAX = 4096
"""Bytes of our own note; an honest one has about 150."""


def withdraw(desk: Desk, row: AuditRow, reason: str) -> None:
    """Log that the report of an audit was taken back.

    Killed at any point and asked again, there is one leaf, and it has the reason that was asked first.

    Raises:
        Refused: NOT_SEALED: nothing of this audit is in the log that could be taken back.
    """
    logged = desk.home.read(desk.home.logged(row.id))
    if logged is None:
        raise Refused("NOT_SEALED", f"audit {row.id} has no report here; there is nothing to withdraw")
    proof = proofs.read_proof(canonical.loads_canonical(logged, 2 * proofs.PROOF_MAX)[proofs.REPORT_PROOF].encode())
    report = entries.parse(proof.entry)
    note = {"schema": "assay-withdrawal/v1", "audit": row.id, "reason": reason}
    tried = desk.home.withdrawn(row.id).exists()
    # What was written first counts: a killed try may have logged it.
    kept = canonical.loads_canonical(desk.home.write_once(desk.home.withdrawn(row.id), canonical.dumps(note)), NOTE_MAX)
    if desk.home.taken_back(row.id).exists():
        return
    proven = desk.journal.note(
        "withdrawal",
        proof.index + 1 if tried else None,
        commit=report.commit,
        tag=report.tag,
        prev=proof.index,
        reason=kept["reason"],
    )
    desk.home.write_once(desk.home.taken_back(row.id), proven)
