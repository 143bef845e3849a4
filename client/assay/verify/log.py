"""V05 and V15: the report's leaf under a trusted log key, and the whole log where the reader has a copy."""

from __future__ import annotations

import hashlib
from pathlib import Path

from assay import dsse
from assay.errors import CouldNotTell, Wrong
from assay.tlog import proofs, tiles, watch
from assay.tlog.leaves import Leaf, verify_leaf
from assay.verify.case import Case, NotAsked

LOG = "log"
"""Kind under which the newest checkpoint of a log is remembered (`assay.trust.memory`)."""


def find_log_proof(case: Case) -> str:
    """V05: the report's leaf says what it must, is in a trusted log, and names a key that was good when it was logged.

    With nothing but a pinned report key there is no log key to check under, which is listed; a trust root without a
    log leaves the question open.
    """
    assert case.bundle is not None
    assert case.trust is not None
    if not case.trust.logs:
        if case.trust.version is not None:
            raise CouldNotTell("the trust root names no log, so nothing says when the report was signed")
        raise NotAsked("log proof not checked: no log key given (pass --log-vkey V, or --trust-root F)")
    data = case.files.read(proofs.REPORT_PROOF, proofs.PROOF_MAX)
    leaf = verify_leaf(
        data,
        "report",
        hashlib.sha256(dsse.pae(dsse.PAYLOAD_TYPE, case.bundle.payload)).hexdigest(),
        case.trust.logs,
        now=case.now,
        key=case.signed_by,
        prev=case.predicate["registration"]["request_index"],
    )
    assert leaf.entry.key is not None
    said = case.trust.check_key(leaf.entry.key, leaf.at)
    case.leaf = leaf
    return f"entry {leaf.index} of log {leaf.origin}, logged at {leaf.entry.at}; {said}"


def check_log(case: Case) -> str:
    """V15: the report's checkpoint is a past of the log as it is now, and nothing in it speaks against the report."""
    if case.log_dir is None:
        raise NotAsked("the log itself was not looked at: withdrawals would not be seen (pass --log DIR)")
    assert case.trust is not None
    if not case.trust.logs:
        raise CouldNotTell("a log cannot be checked without its key: pass --log-vkey V, or --trust-root F")
    if case.leaf is None:
        raise CouldNotTell("depends on V05")
    folder, leaf = case.log_dir, case.leaf
    if case.memory is None:
        newest = _look(case, folder, leaf, None)
        return f"log of {newest.head.size} entries extends the report's checkpoint (nothing is remembered)"
    sizes: list[int] = []

    def change(before: bytes | None) -> bytes:
        known = None if before is None else watch.load_state(before)
        found = _look(case, folder, leaf, known)
        sizes.append(found.head.size)
        return watch.dump_state(found)

    case.memory.update(LOG, leaf.origin, change)
    return f"log of {sizes[0]} entries extends the report's checkpoint and the newest one remembered"


def _look(case: Case, folder: Path, leaf: Leaf, known: watch.Remembered | None) -> watch.Remembered:
    assert case.trust is not None
    try:
        return watch.check_report(tiles.folder(folder), case.trust.logs, leaf, known)
    except tiles.Absent as error:
        raise CouldNotTell(str(error)) from None
    except watch.Forked as error:
        raise Wrong(f"{error}; keep both copies of the log, they convict its operator") from None
