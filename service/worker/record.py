"""The host's record of an attempt: the answers, and around them everything that the host measured itself."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from assay import canonical
from assay.predicate import Facts, Ingest
from assay.result import Answer, Skipped

from sandbox.cell import Seal
from sandbox.errors import ResultRejected
from service.rules.states import ExitClass, Outcome, outcome_of
from service.worker.artefacts import HandedOut
from service.worker.errors import HostFault
from service.worker.hostile import BASE_REFUSED, REFUSED, CellResult
from service.worker.ingest import Ingested
from service.worker.request import AskedCheck

SCHEMA = "assay-host-record/v1"


@dataclass(frozen=True, kw_only=True)
class Told:
    """What became of the checks, before anyone judges: answers, and what the cell told of its reading."""

    answers: tuple[Answer, ...]
    ingest: Ingest | None
    facts: Facts | None
    base_ingest: Ingest | None = None
    """How the base model was read; None where there is none, or no cell could say."""
    artefacts: tuple[HandedOut, ...] = ()
    """Files that the answers hand out."""

    @property
    def outcome(self) -> Outcome:
        """The audit's outcome."""
        return outcome_of(tuple((one.outcome, one.valid) for one in self.answers))


def answered(result: CellResult, asked: Sequence[AskedCheck], output_bytes: int) -> Told:
    """Return a cell's result, or the refusal of it as a whole if it is larger than the output budget.

    Nothing is truncated: what fits would tell which answers were large.
    """
    if result.output_bytes > output_bytes:
        return budget_spent(asked)
    return Told(
        answers=result.answers,
        ingest=result.ingest,
        facts=result.facts,
        base_ingest=result.base_ingest,
        artefacts=result.artefacts,
    )


def budget_spent(asked: Sequence[AskedCheck]) -> Told:
    """Return the refusal of every answer of a result that is over an output budget, the audit's or a lifetime one."""
    return Told(answers=_same(asked, "refused", "output_budget"), ingest=None, facts=None)


def model_refused(read: Sequence[Ingested], asked: Sequence[AskedCheck]) -> CellResult:
    """Return the refusal of every check that follows from what an ingest cell decided, each file with its reason.

    Args:
        read: what was decided of the model and, if that was accepted, of its base; the last of them refused.
        asked: the checks.
    """
    refusing, of_base = read[-1], len(read) > 1
    prefix = "base:" if of_base else ""
    skipped = tuple(
        Skipped(item=as_name(f"{prefix}{one.path or 'model'}"), reason=one.reason or refusing.reason)
        for one in refusing.decisions
        if one.decision == "refused"
    )
    return CellResult(
        answers=_same(asked, "refused", f"{BASE_REFUSED if of_base else REFUSED}{refusing.reason}", skipped),
        ingest=read[0].told(),
        base_ingest=refusing.told() if of_base else None,
        facts=None,
        output_bytes=sum(one.output_bytes for one in read),  # the answers follow from the decisions and tell no more
    )


def model_read(read: Sequence[Ingested], result: CellResult) -> CellResult:
    """Return a result of the cell that measured, together with what the ingest cells decided before.

    Args:
        read: what was decided of the model, and of its base where there is one.
        result: what the last cell left.

    Raises:
        ResultRejected: it decides anew what is not its to decide. Only loading may still refuse.
    """
    for position, one in enumerate(result.ingest.decisions):
        if one.decision != "refused":
            raise ResultRejected("result_schema", f"ingest.decisions.{position}")
    return replace(
        result,
        ingest=read[0].told(result.ingest.decisions),
        base_ingest=read[1].told() if len(read) > 1 else None,
        output_bytes=sum(one.output_bytes for one in read) + result.output_bytes,
    )


def as_name(path: str) -> str:
    """Return a manifest path in the name alphabet, which starts with a letter or digit and holds 128 characters."""
    return (path if path[0].isalnum() else f"x{path}")[:128]


def unanswered(asked: Sequence[AskedCheck], exit_class: ExitClass) -> Told:
    """Return the failed answers that the host writes when no result came out."""
    return Told(answers=_same(asked, "failed", exit_class.value), ingest=None, facts=None)


def _same(
    asked: Sequence[AskedCheck], outcome: Any, reason: str, skipped: tuple[Skipped, ...] = ()
) -> tuple[Answer, ...]:
    return tuple(
        Answer(
            check=one.name,
            version=one.version,
            params=dict(one.params),
            outcome=outcome,
            reason=reason,
            skipped=skipped,
        )
        for one in asked
    )


@dataclass(frozen=True, kw_only=True)
class Installed:
    """An interpreter and what it finds installed."""

    python: str
    packages: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Digests of what answered one check."""

    code_sha256: str
    catalogue_sha256: str


def host_record(
    *,
    audit: str,
    token: int,
    told: Told,
    provenance: Mapping[str, Provenance],
    threads: int,
    seals: Sequence[Seal],
    image: Installed | None = None,
) -> bytes:
    """Return the record's canonical bytes.

    Args:
        audit: the audit's id.
        token: the lease's fencing token.
        told: the answers.
        provenance: digests by the check's name.
        threads: how many threads the cell was ordered to use.
        seals: of the attempt's cells.
        image: what the image of container cells holds; what ran in one did not run with this host's packages.

    Raises:
        HostFault: a container measured, and nobody knows what its image holds.
    """
    contained = any(seal.backend == "container" for seal in seals)
    if contained and image is None:
        raise HostFault("a container measured, and its image was not looked into: the self-check does that")
    answers = []
    for position, answer in enumerate(told.answers):
        origin = provenance[answer.check]
        files = [one.told.to_json() for one in told.artefacts if one.promised.answer == position]
        answers.append(
            {
                **answer.to_json(),
                "code_sha256": origin.code_sha256,
                "catalogue_sha256": origin.catalogue_sha256,
                **({"artefacts": files} if files else {}),
            }
        )
    return canonical.dumps(
        {
            "schema": SCHEMA,
            "audit": audit,
            "token": token,
            "answers": answers,
            "ingest": None if told.ingest is None else told.ingest.to_json(),
            **({} if told.base_ingest is None else {"base_ingest": told.base_ingest.to_json()}),
            "facts": None if told.facts is None else told.facts.to_json(),
            "environment": environment(told.facts, threads, image if contained else None),
            "sandbox": {"cells": [seal.to_json() for seal in seals]},
        }
    )


def environment(facts: Facts | None, threads: int, image: Installed | None = None) -> dict[str, Any]:
    """Return where the attempt ran, from this interpreter's metadata or its image's; no package is imported for it."""
    there = image or Installed(python=platform.python_version(), packages=installed())
    packages = dict(there.packages)
    return {
        "python": there.python,
        "packages": packages,
        "lock_sha256": canonical.sha256(packages),
        "cpu": cpu_name(),
        "kernel": platform.release(),
        "dtype": None if facts is None else facts.dtype,
        "batch_size": None if facts is None else facts.batch_size,
        "deterministic_flags": {"threads": threads},
    }


def installed() -> dict[str, str]:
    """Return every installed distribution by its normalised name."""
    found = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found[re.sub(r"[-_.]+", "-", name).lower()] = distribution.version
    return dict(sorted(found.items()))


def cpu_name(table: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name; the architecture where the kernel does not tell one."""
    try:
        for line in table.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip().isprintable():
                return value.strip()[:512]
    except OSError:
        return platform.machine()
    return platform.machine()
