"""Keeping the receipt of a submission, and verifying the report against it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from assay.cli.screen import SCREEN, clean
from assay.errors import CouldNotTell, VerifyError, Wrong

if TYPE_CHECKING:
    from assay.cli.trust import Trust
    from assay.client import AuditClient
    from assay.receipt import Expected
    from assay.remote.values import Audit, Event
    from assay.tlog.leaves import LogKey
    from assay.verify import Verification

WAIT_S = 10.0
"""How long `assay submit` without --wait stays for the receipt; a signer that runs answers within a second or two."""


@dataclass
class Keeper:
    """Checks and stores the receipt of one submission when it comes.

    Args:
        place: where the report will be put; the receipt goes beside it.
        expected: what was asked for.
        trusted: whose log keys count.
    """

    place: Path
    expected: Expected
    trusted: Trust
    kept: Path | None = field(default=None, init=False)
    """The folder, once the receipt is in it."""

    def see(self, event: Event) -> None:
        """Look at an event; keep the receipt that it carries.

        Raises:
            Wrong: it is not sound, or not of what was asked.
        """
        from assay import receipt

        if event.receipt is None or self.kept is not None:
            return
        found = event.receipt
        try:
            logs = log_keys(self.trusted, self.place)
            said = receipt.check(found.request, found.proof, self.expected, logs, datetime.now(UTC))
        except Wrong as error:
            raise Wrong(
                f"the receipt of {self.expected.audit} does not stand for what was asked: {error}; "
                f"stop the audit with: assay cancel {self.expected.audit}"
            ) from None
        folder = receipt.place_beside(self.place)
        receipt.store(folder, found.request, found.proof)
        self.kept = folder
        SCREEN.note(f"receipt: {clean(said, 300)}; kept in {clean(str(folder), 200)}")

    def wait(self, client: AuditClient, timeout_s: float) -> None:
        """Stay until the receipt has come, but not for long.

        Raises:
            Wrong: as `see`.
        """
        from assay.client_errors import TimedOut

        try:
            for event in client.watch(self.expected.audit, timeout_s=min(timeout_s or WAIT_S, WAIT_S)):
                self.see(event)
                if event.kind == "registered":
                    break
        except TimedOut:
            pass
        if self.kept is None:
            SCREEN.note(f"No receipt yet; `assay watch {clean(self.expected.audit)}` keeps it when it comes.")

    def verified(self) -> None:
        """Verify the fetched report against the receipt, where this client knows whom to trust.

        Raises:
            Wrong: the report is not of this registration, or does not verify.
        """
        if not (self.trusted.trust_root or self.trusted.keys):
            return
        seen = verified(self.place, self.trusted, self.kept)
        step = next((one for one in seen.steps if one.status == seen.outcome), None)
        if seen.outcome == "wrong" and step is not None:
            raise Wrong(f"the report in {self.place} does not verify: {step.id}: {step.detail}")
        if seen.outcome == "unknown" and step is not None:
            SCREEN.note(f"The report could not be verified: {step.id}: {clean(step.detail, 300)}")
        else:
            against = " against its receipt" if self.kept else ""
            SCREEN.note(f"The report verifies{against}: {clean(self.trusted.source, 300)}")


def as_told(audit: Audit) -> Expected:
    """Return what a receipt must say of an audit that somebody submitted earlier, by what the service says now."""
    from assay.receipt import Expected

    return Expected(
        audit=audit.name,
        model_sha256=audit.model.removeprefix("models/"),
        base_sha256=audit.base_model.removeprefix("models/") or None,
        checks=[(one.check, one.parameters) for one in audit.checks],
        data=[(one.role, one.sha256) for one in audit.data],
        policy_sha256=audit.policy_sha256 or None,
        waivers_sha256=audit.waivers_sha256 or None,
        seed=audit.seed,
        first_sha256=audit.first_sha256 or None,
    )


def verified(report: Path, trusted: Trust, receipt: Path | None) -> Verification:
    """Verify a report, against its receipt where one was kept and a log key is known."""
    from assay.verify import verify

    logged = bool(trusted.trust_root or trusted.log_vkeys)
    return verify(report, receipt=receipt if logged else None, **trusted.arguments())


def log_keys(trusted: Trust, place: Path) -> tuple[LogKey, ...]:
    """Return the log keys that a caller trusts; none where nobody is trusted, or the root cannot be used."""
    from assay.verify import open_case
    from assay.verify.envelope import find_trust

    case = open_case(place, **trusted.arguments())
    try:
        find_trust(case)
    except CouldNotTell:
        return ()
    except VerifyError as error:
        raise Wrong(f"the trust root: {error}") from None
    return tuple(case.trust.logs) if case.trust else ()
