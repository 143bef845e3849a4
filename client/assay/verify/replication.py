"""V14, second half: the replication beside a report that repeats another one.

Its comparison is imported where it is used: a report that repeats nothing does not pay for it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

from assay import bundle, dsse
from assay.errors import CouldNotTell, Malformed, Wrong, shown
from assay.tlog import proofs
from assay.tlog.leaves import verify_leaf
from assay.verify.case import Case

_FILE = bundle.REPLICATION_FILE_NAME


def check_replication(case: Case) -> str | None:
    """Check the replication that lies beside a report; None where none does.

    Raises:
        Wrong: not signed by a trusted report key, about other reports, not logged so, or of another outcome than the
            first report gives.
        CouldNotTell: its proof or an artefact of the first report is absent, or V06 did not read the request.
    """
    if not os.path.lexists(case.files.place / _FILE):
        if case.request.get("first") is not None:
            case.open_questions.append("the report repeats another one, and no signed replication lies beside it")
        if case.first is not None:
            raise CouldNotTell(f"{_FILE} is absent: nothing says what repeating the report given by --first came to")
        return None
    if not case.request:
        raise CouldNotTell("depends on V06")
    told, key_id, payload = _signed(case)
    predicate = told["predicate"]
    _check_names(case, predicate)
    logged = _check_leaf(case, key_id, payload)
    again = _judged_again(case, predicate)
    case.replication, case.replicated = predicate["outcome"], predicate
    why = f" ({shown(predicate['reason'], 200)})" if predicate.get("reason") else ""
    return f"{_FILE}: {predicate['outcome']}{why}, {logged}{again}"


def _signed(case: Case) -> tuple[dict[str, Any], str, bytes]:
    """Return the statement, the key that signed it, and the verified bytes."""
    from assay.compare import signed

    try:
        carried = bundle.read(case.files.read(_FILE, bundle.BYTES_MAX))
    except Malformed as error:
        raise Wrong(f"{_FILE} is malformed: {error}") from None
    assert case.trust is not None
    for key in case.trust.report_keys:
        if dsse.verify(key.public, dsse.PAYLOAD_TYPE, carried.payload, carried.signature):
            try:
                return signed.parse(carried.payload), key.id, carried.payload
            except Wrong as error:
                raise Wrong(f"{_FILE}: {error}") from None
    raise Wrong(f"{_FILE}: no trusted key verifies the signature; it claims key {carried.key_id[:8]}…")


def _check_names(case: Case, predicate: Mapping[str, Any]) -> None:
    """The replication is of the report that the request names, and by the report that it lies beside."""
    named = case.request.get("first")
    if named is None:
        raise Wrong(f"{_FILE} lies beside a report whose request names no first report")
    assert case.bundle is not None
    pairs = (
        ("first/statement_sha256", predicate["first"]["statement_sha256"], named["statement_sha256"]),
        ("first/bundle_sha256", predicate["first"]["bundle_sha256"], named["bundle_sha256"]),
        (
            "second/statement_sha256",
            predicate["second"]["statement_sha256"],
            hashlib.sha256(case.bundle.payload).hexdigest(),
        ),
        ("second/audit", predicate["second"]["audit"], case.predicate["audit"]["name"]),
        ("second/model_sha256", predicate["second"]["model_sha256"], case.predicate["model"]["manifest_sha256"]),
    )
    for field, told, owed in pairs:
        if told != owed:
            raise Wrong(f"{_FILE}: /predicate/{field} is {shown(told, 24)}, expected {shown(owed, 24)}")


def _check_leaf(case: Case, key_id: str, payload: bytes) -> str:
    assert case.trust is not None
    if not case.trust.logs:
        case.open_questions.append("the replication's place in the log was not checked: no log key given")
        return "not checked against a log"
    if case.leaf is None:
        raise CouldNotTell("depends on V05")
    leaf = verify_leaf(
        case.files.read(proofs.REPLICATION_PROOF, proofs.PROOF_MAX),
        "replication",
        hashlib.sha256(dsse.pae(dsse.PAYLOAD_TYPE, payload)).hexdigest(),
        case.trust.logs,
        now=case.now,
        key=key_id,
        prev=case.predicate["registration"]["request_index"],
        name=proofs.REPLICATION_PROOF,
    )
    case.trust.check_key(key_id, leaf.at)
    if leaf.origin != case.leaf.origin or leaf.entry.tag != case.leaf.entry.tag:
        raise Wrong(f"{proofs.REPLICATION_PROOF}: the leaf is in another log than the report's, or of another model")
    if leaf.index <= case.leaf.index:
        raise Wrong(f"the replication is entry {leaf.index}, not after its report, entry {case.leaf.index}")
    return f"entry {leaf.index} of the log"


def _judged_again(case: Case, predicate: Mapping[str, Any]) -> str:
    """Judge the replication again, where the reader has the first report."""
    if case.first is None:
        case.open_questions.append("the replication was not judged again: the first report was not given (--first F)")
        return ""
    if predicate.get("reason") is not None:
        case.open_questions.append("the replication was signed as one that cannot be judged, and was not judged again")
        return ""
    from assay.compare import signed
    from assay.compare.replicate import replicate
    from assay.compare.sides import Side
    from assay.errors import AssayError

    first = first_side(case, str(predicate["first"]["statement_sha256"]))
    digest = str(predicate["second"]["statement_sha256"])
    second = Side(statement=case.statement, statement_sha256=digest, request=case.request, artefact=case.files.artefact)
    for digest in signed.items_of(case.predicate):
        if case.files.artefact(digest) is None:
            raise CouldNotTell(f"this report lacks artefact {digest[:16]}…, which judging its replication again reads")
    try:
        made = replicate(first, second)
    except AssayError as error:
        raise Wrong(f"{_FILE} tells numbers, and the reports cannot be held against each other: {error}") from None
    if at := signed.differs(predicate, made):
        raise Wrong(f"{_FILE}: {at} is not what both reports give; judged again: {made.outcome}")
    case.open_questions.append("the first report's own signature: verify it by itself")
    return ", judged again with the first report"


def first_side(case: Case, statement_sha256: str) -> Any:
    """Return the side of the first report that the reader gave.

    Raises:
        Wrong: it is another report than the replication names.
        CouldNotTell: it, or an artefact that judging needs, cannot be read.
    """
    from assay import statement
    from assay.compare import signed

    assert case.first is not None
    try:
        payload = bundle.read(case.first.bundle()).payload
    except Malformed as error:
        raise CouldNotTell(f"the report given by --first cannot be read: {error}") from None
    if hashlib.sha256(payload).hexdigest() != statement_sha256:
        raise Wrong(f"{_FILE} repeats report {statement_sha256[:16]}…, which is not the one given by --first")
    told = statement.parse(payload)
    for digest in signed.items_of(told["predicate"]):
        if case.first.artefact(digest) is None:
            raise CouldNotTell(f"the report given by --first lacks artefact {digest[:16]}…, which judging reads")
    return signed.first_side(told, statement_sha256, case.first.artefact)
