"""An answer held against its check's catalogue entry: every name, word and reason is one that was promised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from assay.result import Answer, Metric

from sandbox.errors import ResultRejected


class Promise(Protocol):
    """What the catalogue says of one check; `assay.catalogue.CheckEntry` is one."""

    @property
    def raw(self) -> Mapping[str, Any]:
        """The entry as plain JSON."""
        ...

    @property
    def version(self) -> str:
        """Version of the check."""
        ...

    @property
    def code_sha256(self) -> str:
        """Digest of the code that answers."""
        ...

    @property
    def sha256(self) -> str:
        """Digest of the entry itself."""
        ...


@dataclass(frozen=True)
class Entry:
    """The simplest promise: an entry's plain JSON and its digest."""

    raw: Mapping[str, Any]
    sha256: str

    @property
    def version(self) -> str:
        """See `Promise.version`."""
        return str(self.raw["version"])

    @property
    def code_sha256(self) -> str:
        """See `Promise.code_sha256`."""
        return str(self.raw["code_sha256"])


def check_promise(answer: Answer, promise: Promise, at: str) -> None:
    """Refuse an answer that says what its check never promised to say.

    Args:
        answer: a well-formed answer.
        promise: its check's entry.
        at: where the answer stands, for the error.

    Raises:
        ResultRejected: free_text for a word that is not in the catalogue, result_schema for a wrong form.
    """
    if answer.reason is not None:
        _check_reason(answer, promise, at)
    if answer.outcome != "measured" and (answer.controls or answer.findings or answer.power):
        raise ResultRejected("result_schema", f"{at}.outcome")
    if answer.measured is not None:
        for position, metric in enumerate(answer.measured.metrics):
            _check_metric(metric, promise, f"{at}.measured.metrics.{position}")
        silent = _check_controls(answer, promise, at)
        _check_findings(answer, promise, at)
        if answer.valid != (not silent and all(control.held for control in answer.controls)):
            raise ResultRejected("host_field_disagrees", f"{at}.valid")
    elif answer.valid:
        raise ResultRejected("host_field_disagrees", f"{at}.valid")


def _check_reason(answer: Answer, promise: Promise, at: str) -> None:
    reason = answer.reason or ""
    refused_model = answer.outcome == "refused" and reason.startswith("ingest:")
    if not refused_model and reason not in promise.raw["reasons"]:
        raise ResultRejected("free_text", f"{at}.reason")


def _check_metric(metric: Metric, promise: Promise, at: str) -> None:
    told = next((one for one in promise.raw["metrics"] if one["name"] == metric.name), None)
    if told is None:
        raise ResultRejected("free_text", f"{at}.name")
    said = (metric.unit, metric.better, metric.determinism)
    if said != (told["unit"], told["better"], told["determinism"]) or not metric.labels.keys() <= set(told["labels"]):
        raise ResultRejected("result_schema", at)


def _check_controls(answer: Answer, promise: Promise, at: str) -> set[str]:
    """Return the promised controls that said nothing; each must be named in `skipped` as `control:NAME`."""
    promised = {one["name"]: one["kind"] for one in promise.raw["controls"]}
    for position, control in enumerate(answer.controls):
        if promised.get(control.name) != control.kind:
            raise ResultRejected("free_text", f"{at}.controls.{position}.name")
    silent = promised.keys() - {control.name for control in answer.controls}
    if not {f"control:{name}" for name in silent} <= {skipped.item for skipped in answer.skipped}:
        raise ResultRejected("result_schema", f"{at}.controls")
    return silent


def _check_findings(answer: Answer, promise: Promise, at: str) -> None:
    assert answer.measured is not None
    numbers = [(metric.name, metric.labels) for metric in answer.measured.metrics]
    for position, finding in enumerate(answer.findings):
        if finding.word not in promise.raw["words"]:
            raise ResultRejected("free_text", f"{at}.findings.{position}.word")
        if any((ref.name, ref.labels) not in numbers for ref in finding.rests_on):
            raise ResultRejected("result_schema", f"{at}.findings.{position}.rests_on")
