"""One side of a comparison: a verified statement, and the artefacts that it names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay import bundle, request, statement
from assay.errors import CouldNotTell
from assay.verify.directory import ReportFiles
from assay.verify.outcome import Verification


@dataclass(frozen=True, kw_only=True)
class Side:
    """A report whose signature, request and answers were verified."""

    statement: Mapping[str, Any]
    statement_sha256: str
    request: Mapping[str, Any]
    artefact: Callable[[str], bytes | None]
    """Bytes of an artefact by digest; None where the report does not carry it."""

    @property
    def predicate(self) -> Mapping[str, Any]:
        """The report itself."""
        predicate: Mapping[str, Any] = self.statement["predicate"]
        return predicate

    def to_json(self) -> dict[str, Any]:
        """Return what names this side."""
        return {
            "statement_sha256": self.statement_sha256,
            "audit": self.predicate["audit"]["name"],
            "model_sha256": self.predicate["model"]["manifest_sha256"],
        }


def load(report: Path, seen: Verification) -> Side:
    """Return a side from a report that was verified.

    Args:
        report: the report directory, or its bundle.
        seen: what verification said of it.

    Raises:
        CouldNotTell: it was not verified, or its files have changed since.
    """
    if seen.outcome != "verified":
        raise CouldNotTell("only a verified report can be compared")
    files = ReportFiles(Path(report))
    payload = bundle.read(files.bundle()).payload
    if hashlib.sha256(payload).hexdigest() != seen.statement_sha256:
        raise CouldNotTell(f"{bundle.FILE_NAME} changed after it was verified")
    told = statement.parse(payload)
    asked = files.read(request.FILE_NAME, request.BYTES_MAX)
    if hashlib.sha256(asked).hexdigest() != told["predicate"]["registration"]["request_sha256"]:
        raise CouldNotTell(f"{request.FILE_NAME} changed after it was verified")

    return Side(
        statement=told,
        statement_sha256=str(seen.statement_sha256),
        request=request.parse(asked),
        artefact=files.artefact,
    )
