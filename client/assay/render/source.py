"""What a page is made of: the statement, what verification established, and the catalogue entries that came along."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from assay import bundle, statement
from assay import catalogue as catalogues
from assay.catalogue import Catalogue, CheckEntry
from assay.errors import CouldNotTell, Malformed, Wrong
from assay.render.rules import Rules
from assay.render.rules import read as read_rules
from assay.verify import Verification, open_case
from assay.verify.directory import ARTEFACT_MAX, ReportFiles
from assay.verify.steps import run


@dataclass(frozen=True, kw_only=True)
class Source:
    """Everything that the bytes of a page depend on, beside the renderer's version."""

    statement: Mapping[str, Any]
    bundle_sha256: str
    entries: Mapping[str, CheckEntry]
    """Catalogue entries by digest."""
    request: Mapping[str, Any]
    """The registered request; empty where there is none, or it is another one."""
    doubts: tuple[tuple[str, str], ...]
    """Steps of verification that were neither ok nor not asked, with their status; empty after a verification."""
    not_checked: tuple[str, ...] = ()
    """What verification was not asked, or left open."""
    replication: str | None = None
    """What the signed replication beside a report that repeats another one came to, once checked."""
    replicated: Mapping[str, Any] | None = None
    """Predicate of that replication."""
    rules: Rules = field(default_factory=Rules)
    """What was registered beside the questions."""

    @property
    def predicate(self) -> Mapping[str, Any]:
        """The report itself."""
        found: Mapping[str, Any] = self.statement["predicate"]
        return found


def look(report: Path, *, now: datetime | None, **given: Any) -> tuple[Verification, Source | None]:
    """Verify a report, and return what a page of it is made of. The arguments are those of `assay.verify.open_case`.

    Returns:
        The verification, and the source; None where not even unverified bytes can be read as a report.

    Raises:
        Misused: a key, trust root or receipt cannot be used.
    """
    case = open_case(report, now=now, **given)
    files, catalogue = case.files, case.shipped
    seen = run(case)
    doubts = tuple((step.id, step.status) for step in seen.steps if step.status not in ("ok", "not_asked"))
    try:
        data = files.bundle()
        told = case.statement or statement.parse(bundle.read(data).payload)
    except (Wrong, CouldNotTell, Malformed):
        return seen, None
    return seen, Source(
        statement=told,
        bundle_sha256=hashlib.sha256(data).hexdigest(),
        entries=_entries(files, told, catalogue) if doubts else case.entries,
        request=case.request,
        doubts=doubts,
        not_checked=seen.not_checked,
        replication=case.replication,
        replicated=case.replicated,
        rules=read_rules(case, told),
    )


def _entries(files: ReportFiles, told: Mapping[str, Any], catalogue: Catalogue | None) -> dict[str, CheckEntry]:
    """Return the entries that fit their digests, for a report that verification did not get that far with."""
    found = {one.sha256: one for one in catalogue.checks} if catalogue else {}
    for answer in told["predicate"]["answers"]:
        wanted = answer["catalogue_sha256"]
        if wanted in found:
            continue
        try:
            data = files.read(f"artefacts/{wanted}", ARTEFACT_MAX)
            if hashlib.sha256(data).hexdigest() == wanted:
                from assay import strict_json

                found[wanted] = catalogues.parse_entry(strict_json.loads(data, ARTEFACT_MAX))
        except (CouldNotTell, Malformed):
            continue  # the page then shows the check without its question
    return found
