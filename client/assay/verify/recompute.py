"""V12: every field obeys the schema, and `held` and `valid` follow from the numbers.

The only step that imports pydantic: about 0.2 s.
"""

from __future__ import annotations

from typing import Any

from assay import canonical, isolation
from assay.errors import CouldNotTell, Wrong, shown
from assay.statement import SCHEMA_VERSION
from assay.verify.case import Case

ISOLATING = ("bubblewrap", isolation.BACKEND)
"""Backends that isolate; one that this client does not know proves nothing to it."""

_ROUNDS = 8
"""An unknown field may hide in an object that itself was unknown; our schema nests fewer objects than this."""


def recompute(case: Case) -> str:
    """V12: validate the whole predicate, then recompute what follows from numbers."""
    predicate = _obeying(dict(case.predicate))
    count = 0
    for index, answer in enumerate(predicate.answers):
        entry = case.entries.get(answer.catalogue_sha256)
        promised = set(entry.controls) if entry else set()
        # `held` against value and band is a rule of the value itself: it has been recomputed by now.
        present = {control.name for control in answer.controls}
        valid = answer.outcome == "measured" and promised <= present and all(c.held for c in answer.controls)
        if answer.valid != valid:
            raise Wrong(f"/predicate/answers/{index}/valid is {answer.valid}, its controls say {valid}")
        count += len(answer.controls)
    found = [(f"/predicate/sandbox/cells/{index}", cell) for index, cell in enumerate(predicate.sandbox.cells)]
    for number, attempt in enumerate(predicate.attempts):
        found += [(f"/predicate/attempts/{number}/cells/{index}", cell) for index, cell in enumerate(attempt.cells)]
    for at, cell in found:
        _contained(cell, at)
        if predicate.signer.profile == "production":
            _isolated(cell, at)
    return f"{count} control values recomputed, every answer obeys the schema"


def _isolated(cell: Any, at: str) -> None:
    """A production report rests on cells alone; what ran as an ordinary process proves nothing about isolation."""
    if cell.backend not in ISOLATING or cell.network != "none" or "nothing_isolated" in cell.statements:
        raise Wrong(f"{at}: a production report, and its {shown(cell.backend)} cell isolated nothing")


def _contained(cell: Any, at: str) -> None:
    """What a seal says of a container is held against one rule, whoever signed; nothing else may claim a sentry."""
    if cell.backend == isolation.BACKEND:
        if missing := isolation.missing_layer(cell):
            raise Wrong(f"{at}: its container cell does not show {shown(missing)}")
    elif isolation.claims_container(cell):
        raise Wrong(f"{at}: its {shown(cell.backend)} cell claims layers that only a container's sentry has")


def _obeying(value: dict[str, Any]) -> Any:
    """Validate without the unknown fields: readers ignore what they do not know."""
    from pydantic import ValidationError

    from assay.predicate import Predicate

    for _ in range(_ROUNDS):
        try:
            return Predicate.model_validate_json(canonical.dumps(value))
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
        unknown = [problem["loc"] for problem in problems if problem["type"] == "extra_forbidden"]
        if not unknown:
            at = "/" + "/".join(str(part) for part in problems[0]["loc"])
            _refuse(str(value["schema_version"]), f"{shown(at)}: {shown(problems[0]['msg'], 160)}")
        value = _without(value, unknown)
    raise CouldNotTell("unknown fields are nested deeper than this client looks; update assay-client")


def _refuse(version: str, problem: str) -> None:
    if version != SCHEMA_VERSION:
        raise CouldNotTell(f"schema {shown(version)} is newer than this client, which does not understand {problem}")
    raise Wrong(problem)


def _without(value: dict[str, Any], places: list[tuple[int | str, ...]]) -> dict[str, Any]:
    copy: dict[str, Any] = _copied(value)
    for *path, last in places:
        inner: Any = copy
        for part in path:
            inner = inner[part]
        del inner[last]
    return copy


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(child) for key, child in value.items()}
    return [_copied(child) for child in value] if isinstance(value, list) else value
