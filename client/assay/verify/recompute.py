"""V12: every field obeys the schema, and `held` and `valid` follow from the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assay import canonical, isolation, shape
from assay.errors import CouldNotTell, Malformed, Wrong, shown
from assay.policy import fingerprint
from assay.statement import SCHEMA_VERSION
from assay.verify.case import Case
from assay.verify.schema import PREDICATE

ISOLATING = ("bubblewrap", isolation.BACKEND)
"""Backends that isolate; one that this client does not know proves nothing to it."""


def recompute(case: Case) -> str:
    """V12: hold the whole predicate against the schema, then recompute what follows from numbers."""
    predicate = case.predicate
    _check_keys(case)
    try:
        shape.check(predicate, PREDICATE, "/predicate")
    except Malformed as error:
        _refuse(predicate["schema_version"], f"{shown(error.at)}: {shown(error.message, 160)}")
    count = 0
    for index, answer in enumerate(predicate["answers"]):
        entry = case.entries.get(answer["catalogue_sha256"])
        promised = set(entry.controls) if entry else set()
        controls = answer.get("controls", ())
        # `held` against value and band is a rule of the value itself: it has been recomputed by now.
        present = {control["name"] for control in controls}
        valid = answer["outcome"] == "measured" and promised <= present and all(one["held"] for one in controls)
        if answer.get("valid", False) != valid:
            raise Wrong(f"/predicate/answers/{index}/valid is {answer.get('valid', False)}, its controls say {valid}")
        _check_fingerprints(answer, f"/predicate/answers/{index}/findings")
        count += len(controls)
    found = [(f"/predicate/sandbox/cells/{index}", cell) for index, cell in enumerate(predicate["sandbox"]["cells"])]
    for number, attempt in enumerate(predicate["attempts"]):
        cells = attempt.get("cells", ())
        found += [(f"/predicate/attempts/{number}/cells/{index}", cell) for index, cell in enumerate(cells)]
    for at, cell in found:
        _contained(cell, at)
        if predicate["signer"]["profile"] == "production":
            _isolated(cell, at)
    return f"{count} control values recomputed, every answer obeys the schema"


def _check_keys(case: Case) -> None:
    """Refuse a key outside of ASCII, also of an unknown field: two readers could sort it differently."""
    payload = case.bundle.payload if case.bundle else b"\\u"
    if not payload.isascii() or b"\\u" in payload:
        canonical.dumps(dict(case.predicate))


def _check_fingerprints(answer: Mapping[str, Any], at: str) -> None:
    """What names a finding in every report follows from it; a report of before fingerprints were told has none."""
    for index, finding in enumerate(answer.get("findings", ())):
        told = finding.get("fingerprint")
        owed = fingerprint.of_claim(answer["check"], finding["code"], tuple(finding.get("labels", {}).items()))
        if told is not None and told != owed:
            raise Wrong(f"{at}/{index}/fingerprint is {shown(told)}, its check, code and labels give {owed}")


def _isolated(cell: Mapping[str, Any], at: str) -> None:
    """A production report rests on cells alone; what ran as an ordinary process proves nothing about isolation."""
    if cell["backend"] not in ISOLATING or cell["network"] != "none" or "nothing_isolated" in cell["statements"]:
        raise Wrong(f"{at}: a production report, and its {shown(cell['backend'])} cell isolated nothing")


def _contained(cell: Mapping[str, Any], at: str) -> None:
    """What a seal says of a container is held against one rule, whoever signed; nothing else may claim a sentry."""
    if cell["backend"] == isolation.BACKEND:
        if missing := isolation.missing_layer(cell):
            raise Wrong(f"{at}: its container cell does not show {shown(missing)}")
    elif isolation.claims_container(cell):
        raise Wrong(f"{at}: its {shown(cell['backend'])} cell claims layers that only a container's sentry has")


def _refuse(version: str, problem: str) -> None:
    if version != SCHEMA_VERSION:
        raise CouldNotTell(f"schema {shown(version)} is newer than this client, which does not understand {problem}")
    raise Wrong(problem)
