"""What was handed out before this start: proofs in the database, which the log must still be able to stand for."""

from __future__ import annotations

import json
from collections.abc import Iterator

from assay.tlog import proofs

from service.signer.evidence import Evidence
from service.signer.refusal import CannotServe, Refused
from service.signer.rows import Rows


def handed_out(rows: Rows, evidence: Evidence) -> Iterator[tuple[str, bytes]]:
    """Yield who carries a proof, and the proof: every receipt and every report that the database knows.

    Raises:
        CannotServe: the database or a proof cannot be read, so nobody can tell whether the log is the newest copy.
    """
    try:
        for audit, stored in rows.receipts():
            yield f"the receipt of audit {audit}", str(json.loads(stored)["receipt"]).encode()
        for audit, stored in rows.report_files():
            for file in json.loads(stored):
                if file["path"] in (proofs.REPORT_PROOF, proofs.REPLICATION_PROOF):
                    what = f"{file['path']} of audit {audit}"
                    yield what, evidence.read(file["sha256"], proofs.PROOF_MAX, what)
    except Refused as refused:
        raise CannotServe(f"what was handed out before cannot be read: {refused}") from refused
    except (ValueError, KeyError, TypeError) as error:
        raise CannotServe("a registration or a report in the database has no readable proof") from error
