"""What verification says: steps as values, one outcome, one exit code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from assay.errors import Misused, Wrong

Status = Literal["ok", "wrong", "unknown", "not_asked"]

SCHEMA = "assay-verify/v1"

_CODES = {"verified": 0, "wrong": 1, "unknown": 2}
_MISUSED = 3
_SHOWN = {"ok": "ok     ", "wrong": "WRONG  ", "unknown": "unknown", "not_asked": "-      "}


@dataclass(frozen=True)
class Step:
    """One numbered step and how it went."""

    id: str
    """V01 to V15, in the order of the specification."""
    status: Status
    detail: str
    """What was found, for a person; printable."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What became of a report."""

    outcome: Literal["verified", "wrong", "unknown"]
    """Wrong if any step is wrong; else unknown if any step is unknown; else verified."""
    steps: tuple[Step, ...]
    not_checked: tuple[str, ...]
    """What the steps that were not asked, or only partly, leave open."""
    statement_sha256: str | None = None
    """Of the signed bytes; None unless their signature verified."""
    model_sha256: str | None = None
    audit: str | None = None
    signed_by: str | None = None
    """The key that verified."""
    trusted_by: str | None = None
    """Why that key was trusted."""
    profile: str | None = None
    """The signer's profile: a "development" signature is no evidence for anyone else."""

    verdict: str | None = None
    """What the registered policy says of the report at its signing, once recomputed; None without a policy."""
    replication: str | None = None
    """What the signed replication beside the report came to, once checked; None where the report repeats none."""

    def step(self, step_id: str) -> Step:
        """Return a step by its id."""
        return next(step for step in self.steps if step.id == step_id)

    def to_json(self) -> dict[str, Any]:
        """Return the plain JSON form, schema assay-verify/v1."""
        return {
            "schema": SCHEMA,
            "outcome": self.outcome,
            "steps": [{"step": step.id, "status": step.status, "detail": step.detail} for step in self.steps],
            "not_checked": list(self.not_checked),
            "statement_sha256": self.statement_sha256,
            "model_sha256": self.model_sha256,
            "audit": self.audit,
            "signed_by": self.signed_by,
            "trusted_by": self.trusted_by,
            "signer_profile": self.profile,
            "verdict": self.verdict,
            "replication": self.replication,
        }

    def render_text(self) -> str:
        """Return the lines a person reads."""
        lines = [f"{step.id} {_SHOWN[step.status]}  {step.detail}" for step in self.steps]
        if self.profile == "development":
            lines.append("Signed under a development key: good for trying things out, no evidence for anyone else.")
        lines.extend(f"Not checked: {item}" for item in self.not_checked)
        if self.outcome == "verified":
            lines.append(f"Verified: {self.audit} about model {self.model_sha256}")
            if self.verdict is not None:
                lines.append(f"Verdict of the registered policy at signing: {self.verdict}")
            if self.replication is not None:
                lines.append(f"As a replication of the first report: {self.replication}")
        else:
            first = next(step for step in self.steps if step.status == self.outcome)
            said = "Wrong" if self.outcome == "wrong" else "Could not tell"
            lines.append(f"{said}: {first.id}: {first.detail}")
        return "\n".join(lines)


def exit_code(ended: Verification | BaseException) -> int:
    """Return the exit code of a verification, or of the exception that ended it.

    0 verified, 1 wrong, 2 could not tell (and any uncaught exception), 3 usage. Python's own defaults (1 for an
    exception, 2 for a bad flag) would read as "wrong" and "could not tell"; the command line maps both through here.
    """
    if isinstance(ended, Verification):
        return _CODES[ended.outcome]
    if isinstance(ended, Wrong):
        return _CODES["wrong"]
    return _MISUSED if isinstance(ended, Misused) else _CODES["unknown"]
