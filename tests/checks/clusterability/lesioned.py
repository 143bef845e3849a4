"""Lesions of small nets as the check sees them: parameters, evidence, and what is judged of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from assay.result import Finding, Measured

from checks.clusterability.layers import Partitioned
from checks.clusterability.lesion_cases import by_site, case_evidence
from checks.clusterability.lesion_findings import LesionLimits, lesion_findings
from checks.clusterability.lesion_plants import LesionCase
from checks.clusterability.lesioning import LesionMeasured, lesion_measured
from checks.clusterability.network import network_partition
from checks.memory import InMemoryEvidence, model_facts

LIMITS = LesionLimits(alpha=0.05, min_drop=0.05, min_gap=0.10)

STRUCTURED = ("network",)
"""What these tests take to be structurally clustered, where they say nothing else."""


@dataclass(frozen=True)
class Asked:
    """The check's parameters, as far as lesions read them."""

    name: str = "clusterability"
    alpha: str = "0.05"
    k: Any = "auto"
    families: Any = "auto"
    layers: Any = "all"
    lesion_nulls: Any = "auto"
    lesion_layers: Any = "best"


def evidence_of_case(case: LesionCase, **more: Any) -> InMemoryEvidence:
    return case_evidence(case, model_facts(), "clusterability", 7, **more)


def network_of(case: LesionCase, labels: np.ndarray) -> Partitioned:
    return Partitioned("network", by_site(case.net, labels))


def found_in(case: LesionCase, k: int) -> Partitioned:
    """Return the clusters that are found without knowing the truth."""
    return network_of(case, network_partition(case.net.weights, k, seed=0).hidden)


def measured_of(case: LesionCase, k: int, **asked: Any) -> LesionMeasured:
    return lesion_measured(Asked(**asked), evidence_of_case(case), [found_in(case, k)])


def document_of(measured: LesionMeasured) -> Measured:
    """Return the part of the report that the judge reads, through JSON as a report holds it."""
    told = Measured(metrics=measured.metrics, skipped=measured.skipped, coverage=dict(measured.coverage))
    return Measured.model_validate_json(told.model_dump_json())


def judged(measured: LesionMeasured, missed: tuple[str, ...] = ()) -> tuple[Finding, ...]:
    return lesion_findings(document_of(measured), LIMITS, missed, STRUCTURED)


def words_of(findings: tuple[Finding, ...], code: str) -> list[str]:
    return [finding.word for finding in findings if finding.code == code]
