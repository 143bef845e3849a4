"""What `assay submit` says: what stays behind, what was accepted, and how it ended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.cli.screen import SCREEN, bytes_text, clean

if TYPE_CHECKING:
    from assay.cli.follow import Ending
    from assay.preflight import CheckedModel
    from assay.remote.values import Audit, Uploaded

LEFT_OUT_SHOWN = 20
"""Files that are named one by one; the rest is counted."""


def tell_left_out(model: CheckedModel) -> None:
    """Name the files of a folder that are not part of the model."""
    for path in model.left_out[:LEFT_OUT_SHOWN]:
        SCREEN.note(f"left out, not part of the model: {clean(path, 200)}")
    if len(model.left_out) > LEFT_OUT_SHOWN:
        SCREEN.note(f"left out: {len(model.left_out) - LEFT_OUT_SHOWN} more files")


def _submitted_json(audit: Audit, uploaded: Uploaded) -> dict[str, Any]:
    return {
        "schema": "assay-submit/v1",
        "audit": audit.name,
        "model": audit.model,
        **({"base_model": audit.base_model} if audit.base_model else {}),
        "state": audit.state,
        "outcome": audit.outcome,
        **({"policy_sha256": audit.policy_sha256} if audit.policy_sha256 else {}),
        "left_out": list(uploaded.left_out),
        "bytes_total": uploaded.bytes_total,
        "bytes_sent": uploaded.bytes_sent,
    }


def tell_submitted(audit: Audit, uploaded: Uploaded, as_json: bool) -> int:
    """Say what was accepted, and return the exit code."""
    if as_json:
        SCREEN.json(_submitted_json(audit, uploaded))
        return 0
    base = f", held against {clean(audit.base_model)}" if audit.base_model else ""
    SCREEN.out(f"{audit.state} {clean(audit.name)}, model {clean(audit.model)}{base}")
    SCREEN.out(f"Sent {bytes_text(uploaded.bytes_sent)} of {bytes_text(uploaded.bytes_total)}.")
    if audit.policy_sha256:
        SCREEN.out(f"Policy to be registered: {clean(audit.policy_sha256)}")
    SCREEN.out(f"Watch it: assay watch {clean(audit.name)}")
    return 0


def tell_ended(ending: Ending, uploaded: Uploaded, place: Path, as_json: bool) -> int:
    """Say how it ended, and return the exit code."""
    from assay.cli import findings, reading

    if as_json:
        report = None if ending.predicate is None else reading.summary_json(ending.predicate)
        SCREEN.json(
            {
                **_submitted_json(ending.audit, uploaded),
                "outcome": ending.word if ending.audit.state == "COMPLETED" else None,
                "report": None if report is None else str(place),
                "findings": report,
                "exit": ending.code,
            }
        )
        return ending.code
    if ending.predicate is not None:
        for line in findings.summary(ending.predicate, str(place)):
            SCREEN.out(line)
        SCREEN.out(f"Report: {place}")
    SCREEN.out(ending.line())
    return ending.code
