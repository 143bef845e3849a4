"""Sealing a replication: the first report is read as hostile, compared, and what came out is signed and logged.

It never holds back the report that repeats: what cannot be judged is signed as "cannot_tell", with its reason.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from assay import bundle, canonical, dsse, statement
from assay.bundle import Bundle
from assay.catalogue import ARTEFACT_MAX
from assay.compare import signed
from assay.compare.replicate import replicate
from assay.compare.sides import Side
from assay.compare.signed import FirstReport
from assay.errors import AssayError, shown
from assay.predicate import Predicate
from assay.tlog import proofs
from assay.verify.directory import ARTEFACTS
from pydantic import ValidationError

from service.signer.desk import Desk
from service.signer.refusal import Refused
from service.signer.registration import Asked, Registered

log = logging.getLogger(__name__)


def repeated(desk: Desk, audit: str, payload: bytes, asked: Asked, registered: Registered) -> dict[str, bytes]:
    """Return the files of an audit's replication: its bundle and its proof. Nothing where it repeats no report.

    The statement is persisted before its leaf is appended, and the first proof counts: killed at any point and asked
    again, there is one leaf.

    Args:
        desk: what sealing works with.
        audit: the audit that repeats.
        payload: the persisted statement of its report.
        asked: its request.
        registered: where the request stands in the log.

    Raises:
        Refused: BLOB_MISSING, BLOB_CORRUPT, STORAGE_FAILED and what appending to the log raises; nothing for a first
            report that cannot be judged.
    """
    named = asked.content.get("first")
    if named is None:
        return {}
    told = desk.home.read(desk.home.replication(audit))
    if told is None:
        told = desk.home.write_once(desk.home.replication(audit), _compose(desk, audit, payload, asked))
    proof = desk.home.read(desk.home.replicated(audit))
    if proof is None:
        found = desk.journal.note(
            "replication",
            registered.index + 1,
            commit=hashlib.sha256(dsse.pae(dsse.PAYLOAD_TYPE, told)).hexdigest(),
            tag=registered.tag,
            key=desk.key_id,
            prev=registered.index,
        )
        proof = desk.home.write_once(desk.home.replicated(audit), found)
    return {bundle.REPLICATION_FILE_NAME: desk.sign(told), proofs.REPLICATION_PROOF: proof}


def _compose(desk: Desk, audit: str, payload: bytes, asked: Asked) -> bytes:
    """Return the bytes of the statement; a function of both reports."""
    named = asked.content["first"]
    first = FirstReport(statement_sha256=named["statement_sha256"], bundle_sha256=named["bundle_sha256"])
    second = _second(desk, audit, payload, asked)
    data = desk.evidence.read(first.bundle_sha256, bundle.BYTES_MAX, "the first report")
    try:
        carried = bundle.read(data)
        first = FirstReport(
            statement_sha256=first.statement_sha256,
            bundle_sha256=first.bundle_sha256,
            key_id=carried.key_id,
            own_key=_is_own(desk, carried),
        )
        made = replicate(_first(desk, carried.payload, first), second)
        return signed.write(signed.judged(made, first), first, second)
    except Refused:
        raise  # the disk or the database: a retry may find what is missing
    except AssayError as error:
        return signed.write(signed.unjudged(first, second, shown(str(error), signed.REASON_MAX)), first, second)
    except Exception as error:
        # What a stranger wrote must not keep a report unsigned for ever; the trace goes to the operator.
        log.exception("the replication of audit %s could not be judged", audit)
        reason = f"the comparison failed: {type(error).__name__}"
        return signed.write(signed.unjudged(first, second, reason), first, second)


def _is_own(desk: Desk, carried: Bundle) -> bool:
    if carried.key_id != desk.key_id:
        return False
    return dsse.verify(desk.private.public_key(), dsse.PAYLOAD_TYPE, carried.payload, carried.signature)


def _first(desk: Desk, payload: bytes, first: FirstReport) -> Side:
    """Return the first report's side: strictly parsed, held against the full schema, believed by its digest alone.

    Raises:
        AssayError: it is no report of this schema, or another than the request names.
    """
    if hashlib.sha256(payload).hexdigest() != first.statement_sha256:
        raise CannotJudge("the bundle carries another statement than the request names")
    told = statement.parse(payload)
    try:
        # Text of a stranger goes into a statement of ours: only what this release could have signed itself.
        Predicate.model_validate_json(canonical.dumps(told["predicate"]))
    except ValidationError as error:
        at = "/".join(str(part) for part in error.errors(include_url=False, include_input=False)[0]["loc"])
        raise CannotJudge(f"the first report does not obey this release's schema at /predicate/{shown(at)}") from error
    return signed.first_side(
        told,
        first.statement_sha256,
        lambda digest: desk.evidence.read(digest, ARTEFACT_MAX, "items of the first report"),
    )


def _second(desk: Desk, audit: str, payload: bytes, asked: Asked) -> Side:
    told: dict[str, Any] = statement.parse(payload)

    def artefact(digest: str) -> bytes | None:
        return desk.home.read(desk.home.report(audit) / ARTEFACTS / digest)

    return Side(
        statement=told,
        statement_sha256=hashlib.sha256(payload).hexdigest(),
        request=asked.content,
        artefact=artefact,
    )


class CannotJudge(AssayError):
    """The first report cannot be held against the second; the message says why."""
