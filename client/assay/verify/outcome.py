"""What verification says: steps as values, one outcome, one exit code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from assay.errors import Misused, Wrong, shown

if TYPE_CHECKING:
    from assay.policy.verdict import WaiverUse

Status = Literal["ok", "wrong", "unknown", "not_asked"]

SCHEMA = "assay-verify/v1"

ESTIMATE_ONLY = "estimate only"
"""What every output says of an entry whose bound looks at the value alone, not at its interval (specification, section
11)."""

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
    waivers: tuple[WaiverUse, ...] = ()
    """Every registered waiver and what became of it, once the verdict was recomputed."""
    estimate_only: tuple[str, ...] = ()
    """Entries of the registered policy that look at the estimate alone, once the verdict was recomputed."""
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
            "waivers": [use.to_json() for use in self.waivers],
            "estimate_only": list(self.estimate_only),
            "replication": self.replication,
        }

    def render_text(self) -> str:
        """Return the lines a person reads."""
        lines = [f"{step.id} {_SHOWN[step.status]}  {step.detail}" for step in self.steps]
        if self.profile == "development":
            lines.append("Signed under a development key: good for trying things out, no evidence for anyone else.")
        lines.extend(f"Not checked: {item}" for item in self.not_checked)
        lines.extend(self._accepted())
        if self.outcome == "verified":
            lines.append(f"Verified: {self.audit} about model {self.model_sha256}")
            if self.verdict is not None:
                used = sum(use.state == "used" for use in self.waivers)
                more = f", with {counted(used, 'waiver')}" if used else ""
                lines.append(f"Verdict of the registered policy at signing: {self.verdict}{more}")
            if self.replication is not None:
                lines.append(f"As a replication of the first report: {self.replication}")
        else:
            first = next(step for step in self.steps if step.status == self.outcome)
            said = "Wrong" if self.outcome == "wrong" else "Could not tell"
            lines.append(f"{said}: {first.id}: {first.detail}")
        return "\n".join(lines)

    def _accepted(self) -> list[str]:
        """Return what a verdict leans on beside the numbers; text of others stands behind a bar."""
        lines = []
        for use in self.waivers:
            told, until = use.waiver, use.waiver.expires.isoformat()
            lines.append(f"Waiver, {waiver_state(use.state, use.count)}")
            who = f"{shown(told.fingerprint)}, for {told.outcome}, accepted by {shown(told.approver)} until {until}"
            lines.append(f"  | {who}: {shown(told.reason, 512)}")
        if self.estimate_only:
            named = shown(", ".join(self.estimate_only), 512)
            said = "the value alone was held against the limit, not its interval"
            lines.append(f"{ESTIMATE_ONLY.capitalize()}: {named} ({said})")
        return lines


def counted(number: int, thing: str) -> str:
    """Return "1 waiver" or "2 waivers"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


_NOT_USED = {
    "unused": "nothing here has its fingerprint with that outcome",
    "expired": "expired before the report was signed",
    "not_yet": "its first day lies after the report",
    "other_model": "it is limited to another model",
    "not_waivable": "it names what cannot be waived",
}


def waiver_state(state: str, count: int) -> str:
    """Return what became of a waiver, in words for a person."""
    return f"used for {counted(count, 'instance')}" if state == "used" else f"not used: {_NOT_USED.get(state, state)}"


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
