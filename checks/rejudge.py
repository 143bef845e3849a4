"""Read a report and form its verdicts again: the same numbers and controls must give the same findings.

Nothing here looks at a model, and nothing says who signed: `assay verify` does that. What is found out is whether the
words of a report follow from its numbers by the rules of this build.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from assay.result import Answer, Finding
from pydantic import ValidationError

from checks.check import Check
from checks.errors import ChecksError
from sandbox.reader import strict_json
from sandbox.reader.error import ReaderError

NOTE = "no signature was checked: `assay verify REPORT` tells who signed these numbers"

FILE_NAME = "report.sigstore.json"
BUNDLE_CAP, STATEMENT_CAP = 16 * 2**20, 8 * 2**20
"""Bytes of a bundle and of the statement in it: the report format's own caps."""

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://assay.example/report/v1"
SCHEMA_MAJOR = "1"

SHOWN_MAX = 200
"""Letters shown of a differing value."""

SAME, DIFFERENT, CANNOT = 0, 1, 2
"""Exit codes."""


class CannotRejudge(ChecksError):
    """A report, or one answer of it, whose verdicts cannot be formed again here; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Rejudged:
    """What became of one answer."""

    check: str
    version: str
    outcome: str
    """The report's: measured, refused or failed."""
    state: Literal["same", "different", "cannot", "not_measured"]
    findings: int
    """How many the report has."""
    said: str
    """One line for people."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return dict(vars(self))


def rejudge(report: Path, catalogue: Mapping[str, type[Check]]) -> tuple[Rejudged, ...]:
    """Form the verdicts of every answer again, in report order.

    Args:
        report: a report's folder, or its `report.sigstore.json`.
        catalogue: the checks of this build, by name.

    Raises:
        CannotRejudge: the file is absent, or is no report.
    """
    return tuple(_rejudged(one, catalogue) for one in read_answers(report))


def exit_code(told: Sequence[Rejudged]) -> int:
    """Return 0 where all findings are the same, 1 where any differs, 2 where some (or all) could not be formed."""
    states = {one.state for one in told}
    if "different" in states:
        return DIFFERENT
    return SAME if "same" in states and "cannot" not in states else CANNOT


def document(told: Sequence[Rejudged]) -> dict[str, Any]:
    """Return the outcome as plain JSON values."""
    answers = [one.to_json() for one in told]
    return {"schema": "assay-rejudge/v1", "note": NOTE, "answers": answers, "exit": exit_code(told)}


def read_answers(report: Path) -> list[dict[str, Any]]:
    """Return the answers of a report, as they stand in its statement; its signature is not looked at.

    Raises:
        CannotRejudge: the file is absent, not strict JSON, or no report.
    """
    file = report / FILE_NAME if report.is_dir() else report
    try:
        with file.open("rb") as stream:
            data = stream.read(BUNDLE_CAP + 1)
        bundle = strict_json.loads(data, cap=BUNDLE_CAP)
        statement = strict_json.loads(_payload(bundle), cap=STATEMENT_CAP)
    except OSError as error:
        raise CannotRejudge(f"cannot read {str(file)!r}: {error.strerror}") from None
    except ReaderError as error:
        raise CannotRejudge(f"{str(file)!r} is no report: {error}") from None
    for field, expected in (("_type", STATEMENT_TYPE), ("predicateType", PREDICATE_TYPE)):
        if _at(statement, field) != expected:
            raise CannotRejudge(f"/{field} of the statement is not {expected}")
    version = _at(statement, "predicate", "schema_version")
    if not isinstance(version, str) or version.partition(".")[0] != SCHEMA_MAJOR:
        raise CannotRejudge(f"this build reads reports of schema {SCHEMA_MAJOR}.x, this one has {_shown(version)}")
    answers = _at(statement, "predicate", "answers")
    if not isinstance(answers, list) or not all(isinstance(one, dict) for one in answers):
        raise CannotRejudge("/predicate/answers is no list of answers")
    return answers


def _payload(bundle: Any) -> bytes:
    """Return the signed bytes of a bundle."""
    if _at(bundle, "dsseEnvelope", "payloadType") != PAYLOAD_TYPE:
        raise CannotRejudge(f"/dsseEnvelope/payloadType is not {PAYLOAD_TYPE}")
    text = _at(bundle, "dsseEnvelope", "payload")
    if not isinstance(text, str):
        raise CannotRejudge("/dsseEnvelope/payload is missing")
    try:
        return base64.b64decode(
            text.encode("ascii"), altchars=b"-_" if "-" in text or "_" in text else None, validate=True
        )
    except (UnicodeEncodeError, binascii.Error):
        raise CannotRejudge("/dsseEnvelope/payload is not base64") from None


def _at(value: Any, *path: str) -> Any:
    for field in path:
        value = value.get(field) if isinstance(value, dict) else None
    return value


def _rejudged(raw: dict[str, Any], catalogue: Mapping[str, type[Check]]) -> Rejudged:
    name, version = str(raw.get("check")), str(raw.get("version"))
    findings = raw.get("findings")
    count = len(findings) if isinstance(findings, list) else 0
    label = name if name in catalogue else _shown(name)

    def told(state: Literal["same", "different", "cannot", "not_measured"], said: str) -> Rejudged:
        outcome = str(raw.get("outcome"))
        line = f"{label}: {said}"
        return Rejudged(check=name, version=version, outcome=outcome, state=state, findings=count, said=line)

    try:
        answer = _answer(raw)
        if answer.outcome != "measured":
            if answer.findings:
                return told("different", f"{answer.outcome}, and yet {count} findings stand in the report")
            return told("not_measured", f"{answer.outcome} ({answer.reason}), so there is nothing to recompute")
        again = _again(answer, catalogue)
    except CannotRejudge as error:
        return told("cannot", f"cannot be recomputed: {error}")
    difference = _difference(answer.findings, again)
    if difference:
        return told("different", difference)
    return told("same", f"{len(again)} of {count} findings recomputed")


def _answer(raw: dict[str, Any]) -> Answer:
    # A report's answer has more fields than a check's (digests of code and catalogue), and so have its findings (a
    # fingerprint, which `assay verify` computes again); readers ignore what they add.
    known = {field: value for field, value in raw.items() if field in Answer.model_fields}
    findings = known.get("findings")
    if isinstance(findings, list):
        known["findings"] = [_known_finding(one) for one in findings]
    try:
        return Answer.model_validate_json(json.dumps(known))
    except ValidationError as error:
        raise CannotRejudge(f"no answer that this build can read: {_first(error)}") from None


def _known_finding(raw: Any) -> Any:
    return {field: raw[field] for field in raw if field in Finding.model_fields} if isinstance(raw, dict) else raw


def _again(answer: Answer, catalogue: Mapping[str, type[Check]]) -> tuple[Finding, ...]:
    """Return the findings that this build's check reads off the numbers."""
    kind = catalogue.get(answer.check)
    if kind is None:
        raise CannotRejudge(f"this build has no such check; it has {', '.join(sorted(catalogue)) or 'none'}")
    if kind.version != answer.version:
        raise CannotRejudge(
            f"the report's version is {answer.version}, this build has {kind.version}; use the build of that version"
        )
    try:
        check = kind.model_validate_json(json.dumps(answer.params))
    except ValidationError as error:
        raise CannotRejudge(f"its parameters are not those of the check: params.{_first(error)}") from None
    assert answer.measured is not None
    try:
        return check.judge(answer.measured, answer.controls)
    except Exception as error:
        # A report may hold what no run would have given; that is no reason to end without a word.
        raise CannotRejudge(f"its numbers cannot be judged ({type(error).__name__}: {_shown(error)})") from None


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(_plain, first['loc']))}: {_plain(first['msg'])}"


def _difference(reported: Sequence[Finding], again: Sequence[Finding]) -> str | None:
    """Return the first difference between two lists of findings in one line, or None."""
    counts = f"{len(again)} findings recomputed, {len(reported)} reported; "
    lead = counts if len(reported) != len(again) else ""
    for number, (old, new) in enumerate(zip_longest(reported, again), start=1):
        if old is None or new is None:
            one = old or new
            side = "reported alone" if new is None else "recomputed alone"
            return f"{lead}finding {number} is {side}: {_named(one)}"
        for field in Finding.model_fields:
            before, after = getattr(old, field), getattr(new, field)
            if before != after:
                what = f"{field}: reported {_shown(before)}, recomputed {_shown(after)}"
                return f"{lead}finding {number} of {len(reported)} ({_named(old)}) differs in {what}"
    return None


def _named(finding: Finding) -> str:
    return " ".join((finding.code, finding.word, *(f"{key}={value}" for key, value in finding.labels.items())))[
        :SHOWN_MAX
    ]


def _shown(value: object) -> str:
    """Return a value for a terminal: nothing in it is obeyed by one."""
    text = ascii(value)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}..."


def _plain(value: object) -> str:
    return ascii(str(value))[1:-1][:SHOWN_MAX]
