"""A replication as a statement that a signer signs and logs, written and read.

The statement names both reports by the digests of their signed bytes. What cannot be judged is said with its reason
and the outcome "cannot_tell": the run itself was measured all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from assay import canonical, statement, strict_json
from assay.compare.agreement import unusable
from assay.compare.metrics import file_names
from assay.compare.replicate import PREDICATE_TYPE, SCHEMA, SCHEMA_VERSION, Replication, outcome_of
from assay.compare.sides import Side
from assay.errors import CouldNotTell, Malformed, Wrong, shown
from assay.shape import FLAG, LABELS, OBJECT, SHA256, TEXT, Maybe, check

BYTES_MAX = statement.BYTES_MAX
"""A statement's own cap: 15,000 rows of both reports."""

REASON_MAX = 512
"""Characters of a reason (specification, section 3: free text)."""

_ROW = {"check": TEXT, "item": Maybe(TEXT), "labels": LABELS, "rule": TEXT, "word": TEXT, "reason": TEXT}
_PREDICATE = {
    "schema": TEXT,
    "schema_version": TEXT,
    "first": {"statement_sha256": SHA256, "bundle_sha256": SHA256, "key_id": Maybe(SHA256), "own_key": FLAG},
    "second": {"statement_sha256": SHA256, "audit": TEXT, "model_sha256": SHA256},
    "outcome": TEXT,
    "reason": Maybe(TEXT),
    "counts": OBJECT,
    "results": [_ROW],
    "environment_differences": [OBJECT],
    "notes": [TEXT],
}
_SHAPE = {"subject": [{"name": TEXT, "digest": {"sha256": SHA256}}], "predicate": _PREDICATE}


@dataclass(frozen=True, kw_only=True)
class FirstReport:
    """The report that was repeated, as the request names it and as its bundle says."""

    statement_sha256: str
    bundle_sha256: str
    key_id: str | None = None
    """The key that its bundle claims; None where the bundle could not be read. Nobody has verified it here."""
    own_key: bool = False
    """Whether the signer of the replication has signed it too: then the signature was verified."""

    def to_json(self) -> dict[str, Any]:
        """Return the plain JSON form."""
        return {
            "statement_sha256": self.statement_sha256,
            "bundle_sha256": self.bundle_sha256,
            "key_id": self.key_id,
            "own_key": self.own_key,
        }


def items_of(predicate: Mapping[str, Any]) -> dict[str, int]:
    """Return the per-item results that judging a replication of a report reads: size in bytes by digest.

    Only numbers that declare a margin are held against each other item by item.
    """
    needed: dict[str, int] = {}
    for answer in predicate["answers"]:
        if unusable(answer):
            continue
        files = {one["name"]: one for one in answer.get("artefacts") or ()}
        sizes = {one["sha256"]: one["size"] for one in files.values()}
        for metric in answer["measured"]["metrics"]:
            if metric.get("margin") is None:
                continue
            named = [files[name]["sha256"] for name in file_names(metric["name"]) if name in files]
            digest = metric.get("items_sha256") or next(iter(named), "")
            if digest in sizes:
                needed[digest] = sizes[digest]
    return needed


def first_side(told: Mapping[str, Any], statement_sha256: str, read: Callable[[str], bytes | None]) -> Side:
    """Return the side of a first report; its request is not looked at, and of its artefacts only the items.

    Args:
        told: its parsed statement.
        statement_sha256: of the signed bytes.
        read: returns an artefact by digest, hashed; None where it is absent.
    """
    needed = items_of(told["predicate"])

    def artefact(digest: str) -> bytes | None:
        return read(digest) if digest in needed else None

    return Side(statement=told, statement_sha256=statement_sha256, request={}, artefact=artefact)


def judged(made: Replication, first: FirstReport) -> dict[str, Any]:
    """Return the statement of a replication that was judged."""
    told = made.statement()
    predicate = told["predicate"]
    predicate["first"] = {**predicate["first"], **first.to_json()}
    predicate["reason"] = None
    return told


def unjudged(first: FirstReport, second: Side, reason: str) -> dict[str, Any]:
    """Return the statement of a replication that cannot be judged, with the reason.

    Args:
        first: the report that was to be repeated.
        second: the run that was to repeat it.
        reason: printable text; cut at 512 characters.
    """
    return {
        "_type": statement.STATEMENT_TYPE,
        "subject": [dict(one) for one in second.statement["subject"]],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "first": first.to_json(),
            "second": second.to_json(),
            "outcome": "cannot_tell",
            "reason": reason[:REASON_MAX],
            "counts": {},
            "results": [],
            "environment_differences": [],
            "notes": [],
        },
    }


def write(told: Mapping[str, Any], first: FirstReport, second: Side) -> bytes:
    """Return the canonical bytes of a replication's statement; one that would be too large is not judged."""
    data = canonical.dumps(told)
    if len(data) > BYTES_MAX:
        data = canonical.dumps(unjudged(first, second, f"the comparison has more than {BYTES_MAX} bytes"))
    return data


def parse(payload: bytes) -> dict[str, Any]:
    """Read the verified bytes of a replication, once.

    Raises:
        Wrong: no strict JSON, another type, a field is missing, or the outcome does not follow from the rows.
        CouldNotTell: its schema has a major version that this client does not know.
    """
    try:
        value = strict_json.loads(payload, BYTES_MAX)
        check(value, {"predicate": {"schema_version": TEXT}})
        for field, expected in (("_type", statement.STATEMENT_TYPE), ("predicateType", PREDICATE_TYPE)):
            if value.get(field) != expected:
                raise Wrong(f"/{field} is {shown(value.get(field))}, expected {expected}")
        version = value["predicate"]["schema_version"]
        if version.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
            raise CouldNotTell(f"replications of schema version {shown(version)} are newer than this client")
        check(value, _SHAPE)
    except Malformed as error:
        raise Wrong(f"the signed replication is malformed: {error}") from None
    predicate = value["predicate"]
    owed = outcome_of(row["word"] for row in predicate["results"])
    if predicate["outcome"] != owed:
        raise Wrong(f"/predicate/outcome is {shown(predicate['outcome'])}, its rows amount to {owed}")
    told: dict[str, Any] = value
    return told


def differs(told: Mapping[str, Any], made: Replication) -> str | None:
    """Return where a signed predicate says something else than a replication that was judged again; None nowhere."""
    if told["outcome"] != made.outcome:
        return "/predicate/outcome"
    rows = [_said(row) for row in told["results"]]
    again = [_said(row.to_json()) for row in made.rows]
    if len(rows) != len(again):
        return "/predicate/results"
    return next(
        (f"/predicate/results/{n}" for n, pair in enumerate(zip(rows, again, strict=True)) if len({*pair}) > 1), None
    )


def _said(row: Mapping[str, Any]) -> tuple[Any, ...]:
    labels = tuple(sorted(row["labels"].items()))
    return (row["check"], row["item"], labels, row["word"], row.get("first"), row.get("second"))
