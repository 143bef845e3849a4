"""A composed statement, held against what it was composed from, before anybody signs it.

The steps of `STEPS` that need no signature and no log: what a signer runs so that it never logs a statement that its
own readers would refuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from assay import request, statement
from assay.catalogue import Catalogue
from assay.errors import CouldNotTell, Malformed, shown
from assay.verify.case import Case
from assay.verify.directory import ReportFiles
from assay.verify.outcome import Step
from assay.verify.steps import attempt, rules

CLAIMS = ("V07", "V08", "V10", "V12", "V13")
"""Request, subjects, completeness, numbers, verdict: each a pure function of the statement and the files beside it."""


@dataclass(frozen=True)
class MemoryFiles(ReportFiles):
    """Files of a report that lies nowhere yet, by their path in it."""

    contents: Mapping[str, bytes] = field(default_factory=dict)

    def bundle(self) -> bytes:
        """There is none yet."""
        raise CouldNotTell("the statement is not signed yet")

    def read(self, name: str, cap: int) -> bytes:
        """See `ReportFiles.read`."""
        if name not in self.contents:
            raise CouldNotTell(f"{shown(name)} is absent")
        if len(self.contents[name]) > cap:
            raise Malformed("size_cap", shown(name), f"{shown(name)} is larger than {cap} bytes")
        return self.contents[name]


def check_composed(
    payload: bytes, contents: Mapping[str, bytes], *, catalogue: Catalogue, now: datetime
) -> Step | None:
    """Return the first step of `CLAIMS` that would not be ok for a reader; None if there is none.

    Args:
        payload: the statement's bytes.
        contents: what will lie beside it: request, manifest, policy, waivers, `artefacts/<sha256>`.
        catalogue: of this release.
        now: moment at which to judge, aware of its time zone.

    Raises:
        Wrong: the bytes are no statement of ours.
        Malformed: the request is none.
    """
    case = Case(
        files=MemoryFiles(Path("."), contents),
        keys=(),
        model_dir=None,
        now=now,
        shipped=catalogue,
        statement=statement.parse(payload),
        request=request.parse(contents.get(request.FILE_NAME, b"")),
    )
    seen = (attempt(rule, case) for rule in rules(CLAIMS))
    return next((step for step in seen if step.status not in ("ok", "not_asked")), None)
