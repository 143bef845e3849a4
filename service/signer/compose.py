"""Composing a report: a pure function of re-read evidence to bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from assay import canonical, moments, promise, statement
from assay.catalogue import CheckEntry
from assay.errors import Malformed, shown
from assay.policy import fingerprint
from assay.predicate import Predicate, ReportAnswer
from pydantic import ValidationError

from service.signer import judged
from service.signer.consent import Consent
from service.signer.record import HostRecord
from service.signer.refusal import Refused
from service.signer.registration import Asked, Registered
from service.signer.rows import AttemptRow, ResultRow
from service.signer.staged import Scans, numbered


@dataclass(frozen=True, kw_only=True)
class DataTold:
    """What the signer found out about one data set."""

    media_type: str | None
    """As the catalogue says; None where no answered check declares the role."""
    rows: int | None
    """Lines that hold something; None where the role is no JSON Lines."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """All that a report follows from."""

    asked: Asked
    registered: Registered
    record: HostRecord
    entries: Sequence[CheckEntry]
    """Catalogue entries of the answers."""
    attempts: Sequence[AttemptRow]
    scans: Scans
    """What cells before the deciding attempt have done, where data was read in shards."""
    result: ResultRow
    consent: Consent
    data: Sequence[DataTold]
    """Of each data set, in the order of the request."""
    handed_out: Mapping[str, bytes]
    """Files that answers hand out, by digest; they travel with the report."""
    profile: str
    composed_at: str


def compose(inputs: Inputs) -> bytes:
    """Return the canonical bytes of the statement.

    Raises:
        Refused: RECORD_REJECTED if the whole does not obey the predicate's schema.
    """
    asked, registered, record = inputs.asked.content, inputs.registered, inputs.record
    predicate = {
        "schema_version": statement.SCHEMA_VERSION,
        "audit": {
            "name": f"audits/{asked['audit']}",
            "nonce": asked["nonce"],
            "submitted_at": asked["submitted_at"],
            "registered_at": registered.registered_at,
            "started_at": moments.from_ms(min(row.started_at for row in inputs.attempts)),
            "ended_at": moments.from_ms(max(row.ended_at or row.started_at for row in inputs.attempts)),
            "composed_at": inputs.composed_at,
        },
        "registration": registered.claims(),
        "model": {
            "manifest_sha256": inputs.asked.manifest.digest,
            "ingest": record.ingest.to_json() if record.ingest else None,
        },
        "base": _base(inputs),
        "parties": inputs.consent.parties(),
        "access": {
            "derived": promise.access(inputs.entries),
            "granted": (asked.get("access") or {}).get("granted"),
            "grant": inputs.consent.grant,
        },
        "data": [
            {"role": item["role"], "sha256": item["sha256"], "rows": told.rows, "media_type": told.media_type}
            for item, told in zip(asked["data"], inputs.data, strict=True)
        ],
        "answers": [_answer(answer) for answer in record.answers],
        "facts": record.facts.to_json() if record.facts else None,
        "attempts": _attempts(inputs),
        "environment": record.environment.to_json(),
        "sandbox": {
            **record.sandbox.to_json(),
            "lifetime_output": _lifetime(inputs.result.lifetime_bytes, inputs.result.lifetime_cap),
        },
        "signer": {"profile": inputs.profile},
    }
    predicate |= judged.judgement(inputs.asked.rules, predicate, asked, inputs.entries)
    try:
        Predicate.model_validate_json(canonical.dumps(predicate))
        return canonical.dumps(statement.build(inputs.asked.manifest, predicate))
    except Malformed as error:
        raise Refused("RECORD_REJECTED", f"the composed report: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        at = "/" + "/".join(str(part) for part in first["loc"])
        raise Refused("RECORD_REJECTED", f"the composed report: {shown(at)}: {shown(first['msg'], 160)}") from error


def _answer(told: ReportAnswer) -> dict[str, Any]:
    """Return an answer, each finding under the fingerprint that follows from it, whatever the host's record says."""
    answer = told.to_json()
    for finding in answer["findings"]:
        finding["fingerprint"] = fingerprint.of_claim(told.check, finding["code"], tuple(finding["labels"].items()))
    return answer


def _attempts(inputs: Inputs) -> list[dict[str, object]]:
    """Return all attempts in the order in which they were leased, each with its number within its job."""
    numbers = numbered(row.job for row in inputs.attempts)
    return [
        {
            "job": row.job,
            "n": number,
            "started_at": moments.from_ms(row.started_at),
            "ended_at": moments.from_ms(row.ended_at or row.started_at),
            "exit_class": row.exit_class,
            "result_sha256": row.result_sha256,
            **({"cells": [one.to_json() for one in cells]} if (cells := inputs.scans.cells.get(row.n)) else {}),
        }
        for number, row in zip(numbers, inputs.attempts, strict=True)
    ]


def _base(inputs: Inputs) -> dict[str, Any] | None:
    """Return what is said of the second model: the digest that was registered, re-read by it."""
    if inputs.asked.base is None:
        return None
    told, result = inputs.record.base_ingest, inputs.result
    return {
        "manifest_sha256": inputs.asked.base.digest,
        "ingest": told.to_json() if told else None,
        "lifetime_output": _lifetime(result.base_lifetime_bytes, result.base_lifetime_cap),
    }


def _lifetime(bytes_: int | None, cap: int | None) -> dict[str, int] | None:
    """Return what the ledger said in the transaction that released the result; the host's record cannot say it."""
    return None if bytes_ is None or cap is None else {"bytes": bytes_, "cap": cap}
