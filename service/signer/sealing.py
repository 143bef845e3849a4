"""Sealing, in the order of the specification: state, evidence, claims, compose, persist, sign, check, hand over."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from assay import bundle, canonical, dsse, manifest, moments, request, statement
from assay.catalogue import ARTEFACT_MAX
from assay.tlog import proofs
from assay.verify import verify
from assay.verify.directory import ARTEFACTS

from service.signer import consent, judged, record, staged
from service.signer.claims import check_claims
from service.signer.compose import DataTold, Inputs, compose
from service.signer.desk import Desk
from service.signer.record import HostRecord
from service.signer.refusal import Refused
from service.signer.registration import Asked, Registered, read_asked, recall
from service.signer.repeating import repeated
from service.signer.rows import AttemptRow, AuditRow, ResultRow


def seal(desk: Desk, row: AuditRow, token: int) -> dict[str, Any]:
    """Make the report of an audit, or hand over the one that was made.

    Killed at any point and asked again, it gives the same statement bytes: they are persisted before they are
    signed, and the signature is a function of key and bytes.

    Raises:
        Refused: with the code of the first thing that is not as it must be.
    """
    # (1) The audit waits for exactly this seal.
    result = _check_state(desk, row, token)
    # (2) Everything is re-read by digest; (3) our own registration must match.
    asked, registered = _recall(desk, row)
    payload = desk.home.read(desk.home.statement(row.id))
    if payload is None:
        # (4) to (8): judge what the host says, compose, and persist before anything is signed.
        inputs = _gather(desk, asked, registered, result, row)
        composed = compose(inputs)
        check_claims(inputs, composed, desk.catalogue, desk.clock())
        for entry in inputs.entries:  # kept too: the installed catalogue may change before a retry
            desk.home.write(desk.home.report(row.id) / ARTEFACTS / entry.sha256, entry.data)
        for digest, content in inputs.handed_out.items():
            desk.home.write(desk.home.report(row.id) / ARTEFACTS / digest, content)
        payload = desk.home.write_once(desk.home.statement(row.id), composed)
    # (10) Sign, and write the report; a retry writes the same bytes again.
    # (9) Logged before it is signed; the first proof counts.
    logged = _log_report(desk, row.id, payload, registered)
    predicate = statement.parse(payload)["predicate"]
    artefacts = {a["catalogue_sha256"] for a in predicate["answers"]}
    artefacts |= {one["sha256"] for a in predicate["answers"] for one in a.get("artefacts") or ()}
    proven = {**logged, **repeated(desk, row.id, payload, asked, registered)}
    written = _write_report(
        desk, row.id, payload, asked, {**proven, proofs.REQUEST_PROOF: registered.receipt}, artefacts
    )
    # (11) Hand over only what our own client verifies.
    _check_report(desk, row.id)
    return {
        "directory": str(desk.home.report(row.id)),
        "files": written,
        "key_id": desk.key_id,
        "composed_at": predicate["audit"]["composed_at"],
    }


def void(desk: Desk, row: AuditRow, reason: str) -> None:
    """Log that a registered audit ended without a report.

    Raises:
        Refused: NOT_REGISTERED, ALREADY_SEALED, WRONG_STATE.
    """
    registered = recall(row.id, desk.home)
    if registered is None:
        raise Refused("NOT_REGISTERED", f"audit {row.id} was never registered here")
    if desk.home.statement(row.id).exists():
        raise Refused("ALREADY_SEALED", f"audit {row.id} has a report; a report is withdrawn, not voided")
    if row.state not in ("FAILED", "CANCELLED"):
        raise Refused("WRONG_STATE", f"audit {row.id} is {row.state}; only an ended audit is voided")
    note = {"schema": "assay-void/v1", "audit": row.id, "ended": row.state.lower(), "reason": reason}
    tried = desk.home.voided(row.id).exists()
    data = json.dumps(note, sort_keys=True, separators=(",", ":")).encode()
    # What was written first counts: a killed try may have logged it, and one leaf is never logged again otherwise.
    note = json.loads(desk.home.write_once(desk.home.voided(row.id), data))
    if desk.home.ended(row.id).exists():
        return
    proof = desk.journal.note(
        "void",
        registered.index + 1 if tried else None,
        commit=registered.request_sha256,
        tag=registered.tag,
        prev=registered.index,
        reason=_void_reason(note["ended"], note["reason"]),
    )
    desk.home.write_once(desk.home.ended(row.id), proof)


_WORDS = {("cancelled", "APPROVAL_REVOKED"): "revoked", ("failed", "POISONED"): "poisoned"}
"""Words of a void leaf (specification, section 4.4) that tell more than the state, by state and `state_reason`."""


def _void_reason(ended: str, reason: str) -> str:
    """Return the log's word for why an audit ended without a report; the state alone, where the reason is no other."""
    return _WORDS.get((ended, reason), ended)


def _log_report(desk: Desk, audit: str, payload: bytes, registered: Registered) -> dict[str, bytes]:
    """Append the report's leaf, unless it is there, and return the files that prove it."""
    data = desk.home.read(desk.home.logged(audit))
    if data is None:
        proof, consistency = desk.journal.note_with_consistency(
            "report",
            # A killed try may have left the leaf; looking costs one entry for each one since the request.
            registered.index + 1,
            registered.size,
            commit=hashlib.sha256(dsse.pae(dsse.PAYLOAD_TYPE, payload)).hexdigest(),
            tag=registered.tag,
            key=desk.key_id,
            prev=registered.index,
        )
        both = {proofs.REPORT_PROOF: proof.decode(), proofs.CONSISTENCY: consistency.decode()}
        data = desk.home.write_once(desk.home.logged(audit), canonical.dumps(both))
    told = canonical.loads_canonical(data, 2 * proofs.PROOF_MAX)
    return {name: told[name].encode() for name in (proofs.REPORT_PROOF, proofs.CONSISTENCY)}


def _check_state(desk: Desk, row: AuditRow, token: int) -> ResultRow:
    if desk.home.voided(row.id).exists():
        raise Refused("VOIDED", f"audit {row.id} was voided")
    # COMPLETED: the scheduler asks again because it did not hear the first answer.
    sealed = row.state == "COMPLETED" and desk.home.statement(row.id).exists()
    if row.state != "SIGNING" and not sealed:
        raise Refused("WRONG_STATE", f"audit {row.id} is {row.state}, not SIGNING")
    result = desk.rows.result(row.id)
    if result.token != token:
        raise Refused("STALE_TOKEN", f"the result of audit {row.id} was stored under token {result.token}, not {token}")
    return result


def _recall(desk: Desk, row: AuditRow) -> tuple[Asked, Registered]:
    registered = recall(row.id, desk.home)
    if registered is None:
        raise Refused("NOT_REGISTERED", f"audit {row.id} was never registered here")
    try:
        stored = json.loads(row.registration_json or "null")
    except ValueError:
        stored = None
    if stored != registered.public() or row.request_sha256 != registered.request_sha256:
        raise Refused("REGISTRATION_DIFFERS", f"the database's registration of audit {row.id} is not what was drawn")
    asked = read_asked(row, desk.evidence)
    desk.evidence.weigh(asked.files, registered.weights)
    return asked, registered


def _gather(desk: Desk, asked: Asked, registered: Registered, result: ResultRow, row: AuditRow) -> Inputs:
    told = record.parse(desk.evidence.read(result.sha256, record.BYTES_MAX, "the host's record"))
    if (told.audit, told.token) != (row.id, result.token):
        raise Refused("RECORD_REJECTED", "the host's record is about another audit or lease")
    entries = record.check_answers(told, asked.content["checks"], desk.catalogue)
    record.check_base(told, asked.base is not None)
    attempts = desk.rows.attempts(row.id)
    _check_attempts(attempts, result, asked)
    planned = any(entry.shard_role is not None for entry in entries)
    record.check_cells(told, desk.profile, base=asked.base is not None, planned=planned)
    scans = staged.check_jobs(attempts, desk.profile, base=asked.base is not None, planned=planned)
    record.check_dead(told, desk.catalogue, scans.dead)
    types = {role["name"]: str(role["media_type"]) for entry in entries for role in entry.raw["data_roles"]}
    data = []
    for item in asked.content["data"]:
        rows = desk.evidence.rows_of(item["sha256"], f"data of role {item['role']}")
        media_type = types.get(item["role"])
        data.append(DataTold(media_type=media_type, rows=rows if _is_lines(media_type or "") else None))
    return Inputs(
        asked=asked,
        registered=registered,
        record=told,
        entries=entries,
        attempts=attempts,
        scans=scans,
        result=result,
        consent=consent.read(desk.rows.consent(asked.content["audit"]), asked.content, entries),
        data=data,
        handed_out=_handed_out(desk, told),
        profile=desk.profile,
        composed_at=_now(desk.clock, attempts, registered),
    )


def _handed_out(desk: Desk, told: HostRecord) -> dict[str, bytes]:
    """Return the files that answers hand out, re-read by digest.

    Raises:
        Refused: RECORD_REJECTED, BLOB_MISSING, BLOB_CORRUPT.
    """
    found: dict[str, bytes] = {}
    for digest, size in record.check_handed_out(told, desk.catalogue).items():
        content = desk.evidence.read(digest, ARTEFACT_MAX, "the artefact")
        if len(content) != size:
            raise Refused(
                "RECORD_REJECTED", f"artefact {digest[:16]}… has {len(content)} bytes, the record says {size}"
            )
        found[digest] = content
    return found


def _is_lines(media_type: str) -> bool:
    return "jsonl" in media_type or "ndjson" in media_type


def _check_attempts(attempts: Sequence[AttemptRow], result: ResultRow, asked: Asked) -> None:
    if [attempt.n for attempt in attempts] != list(range(1, len(attempts) + 1)) or not attempts:
        raise Refused("RECORD_REJECTED", "attempts are not numbered 1 to k")
    for job, count in Counter(attempt.job for attempt in attempts).items():
        if count > asked.content["limits"]["attempts_max"]:
            raise Refused("RECORD_REJECTED", f"{count} attempts at job {job} were made, the request allows fewer")
    if any(attempt.ended_at is None or attempt.exit_class is None for attempt in attempts):
        raise Refused("RECORD_REJECTED", "an attempt has not ended")
    last = attempts[-1]
    if (last.token, last.result_sha256) != (result.token, result.sha256):
        raise Refused("RECORD_REJECTED", "the last attempt is not the one that stored the result")


def _now(clock: Callable[[], datetime], attempts: Sequence[AttemptRow], registered: Registered) -> str:
    """Return the moment of composing, if clocks agree on the order of what happened.

    Raises:
        Refused: CLOCK_SKEW.
    """
    now = clock().astimezone(UTC).replace(microsecond=0)
    started = min(moments.parse(moments.from_ms(attempt.started_at)) for attempt in attempts)
    ended = max(moments.parse(moments.from_ms(attempt.ended_at or 0)) for attempt in attempts)
    if not moments.parse(registered.registered_at) <= started <= ended <= now:
        raise Refused("CLOCK_SKEW", "registered, started, ended and now are out of order: the hosts' clocks disagree")
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def _write_report(
    desk: Desk, audit: str, payload: bytes, asked: Asked, proven: Mapping[str, bytes], artefacts: set[str]
) -> list[dict[str, Any]]:
    content = {
        bundle.FILE_NAME: desk.sign(payload),
        request.FILE_NAME: asked.data,
        manifest.FILE_NAME: asked.manifest.data,
        **proven,
    }
    content |= judged.beside(
        asked.rules,
        statement.parse(payload)["predicate"],
        asked.content,
        content[bundle.FILE_NAME],
        desk.private,
        lambda digest: desk.home.read(desk.home.report(audit) / ARTEFACTS / digest) or b"",
    )
    for path, data in content.items():
        desk.home.write(desk.home.report(audit) / path, data)
    for name in artefacts:
        content[f"{ARTEFACTS}/{name}"] = desk.home.read(desk.home.report(audit) / ARTEFACTS / name) or b""
    return [
        {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for path, data in sorted(content.items())
    ]


def _check_report(desk: Desk, audit: str) -> None:
    seen = verify(
        desk.home.report(audit),
        keys=[desk.public_file],
        log_vkeys=[desk.journal.vkey.text],
        catalogue=desk.catalogue,
        now=desk.clock(),
    )
    if seen.outcome != "verified":
        step = next(step for step in seen.steps if step.status == seen.outcome)
        raise Refused("SELF_CHECK_FAILED", f"the report of audit {audit} does not verify: {step.id}: {step.detail}")
