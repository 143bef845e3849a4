"""The in-toto Statement around a report: which files it is about, and of which type it is."""

from __future__ import annotations

from typing import Any

from assay import strict_json
from assay.errors import CouldNotTell, Malformed, Wrong, shown
from assay.manifest import FILE_NAME, Manifest
from assay.shape import (
    ANY,
    COUNT,
    FLAG,
    LABELS,
    MOMENT,
    OBJECT,
    SEED_MODE,
    SHA256,
    TEXT,
    Kind,
    Maybe,
    check,
)

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://assay.example/report/v1"
"""A reserved placeholder domain, here and nowhere else; the owner's replaces it before the first public release."""

SCHEMA_VERSION = "1.0"

BYTES_MAX = 8 * 1024 * 1024
"""Cap of a statement: about 15,000 metrics."""

_MEASURED = {
    "coverage": Kind(
        "an object of lists of strings",
        lambda value: (
            isinstance(value, dict)
            and all(isinstance(v, list) and all(isinstance(i, str) for i in v) for v in value.values())
        ),
    ),
    "metrics": [{"name": TEXT, "labels": LABELS}],
    "skipped": [{"item": TEXT, "reason": TEXT}],
}
_ANSWER = {
    "check": TEXT,
    "version": TEXT,
    "params": OBJECT,
    "code_sha256": SHA256,
    "catalogue_sha256": SHA256,
    "outcome": TEXT,
    "valid": FLAG,
    "reason": Maybe(TEXT),
    "measured": Maybe(_MEASURED),
    "controls": [{"name": TEXT, "held": FLAG}],
    "findings": [{"code": TEXT, "word": TEXT, "rests_on": [{"name": TEXT, "labels": LABELS}]}],
    "skipped": [{"item": TEXT, "reason": TEXT}],
    "artefacts": Maybe([{"name": TEXT, "sha256": SHA256, "size": COUNT}]),
}
_PREDICATE = {
    "schema_version": TEXT,
    "audit": {
        "name": TEXT,
        "nonce": SHA256,
        "submitted_at": MOMENT,
        "registered_at": MOMENT,
        "started_at": MOMENT,
        "ended_at": MOMENT,
        "composed_at": MOMENT,
    },
    "registration": {
        "log_origin": TEXT,
        "request_index": COUNT,
        "request_sha256": SHA256,
        "leaf_sha256": SHA256,
        "tree_size": COUNT,
        "root_sha256": SHA256,
        "seed_mode": SEED_MODE,
        "seed": COUNT,
        "tag_salt": SHA256,
    },
    "model": {"manifest_sha256": SHA256},
    "base": Maybe({"manifest_sha256": SHA256}),
    "access": {"derived": [TEXT]},
    "data": [{"role": TEXT, "sha256": SHA256}],
    "answers": [_ANSWER],
    "attempts": [
        {"job": TEXT, "n": COUNT, "started_at": MOMENT, "ended_at": MOMENT, "exit_class": TEXT, "result_sha256": ANY}
    ],
    "environment": OBJECT,
    "sandbox": {"cells": [OBJECT]},
    "policy": Maybe({"sha256": SHA256, "name": TEXT}),
    "verdict": Maybe({"outcome": TEXT, "assertions": [OBJECT], "counts": OBJECT}),
    "signer": {"profile": TEXT},
}
SHAPE = {"subject": [{"name": TEXT, "digest": {"sha256": SHA256}}], "predicate": _PREDICATE}
"""What verification leans on; `assay.predicate` is the full schema."""


def build(manifest: Manifest, predicate: dict[str, Any]) -> dict[str, Any]:
    """Return the statement of a report: the manifest itself as first subject, then every file of the model."""
    named = [(FILE_NAME, manifest.digest), *((file.path, file.sha256) for file in manifest.files)]
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in named],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }


def parse(payload: bytes) -> dict[str, Any]:
    """Read the verified bytes of a report, once.

    Raises:
        Wrong: it is no strict JSON, another type of statement or predicate, or a field is missing.
        CouldNotTell: its schema has a major version that this client does not know.
    """
    try:
        value = strict_json.loads(payload, BYTES_MAX)
        check(value, {"predicate": {"schema_version": TEXT}})
        for field, expected in (("_type", STATEMENT_TYPE), ("predicateType", PREDICATE_TYPE)):
            if value.get(field) != expected:
                raise Wrong(f"/{field} is {shown(value.get(field))}, expected {expected}")
        _check_version(value["predicate"]["schema_version"])
        check(value, SHAPE)
    except Malformed as error:
        raise Wrong(f"the signed statement is malformed: {error}") from None
    statement: dict[str, Any] = value
    return statement


def _check_version(version: str) -> None:
    major, _, minor = version.partition(".")
    if not (major.isdecimal() and minor.isdecimal() and version.isascii()):
        raise Wrong(f"/predicate/schema_version {shown(version)} is no version of the form 1.0")
    if major != SCHEMA_VERSION.partition(".")[0]:
        raise CouldNotTell(f"schema version {shown(version)} is newer than this client; update assay-client")
