"""Verify a report offline, in numbered steps V01 to V15. Opens no socket.

    from assay.verify import verify

    seen = verify(Path("reports/5f0c…"), keys=[Path("operator.pem")], model_dir=Path("model"))
    print(seen.render_text())

A step is ok, wrong, unknown ("I could not tell") or not_asked; each is listed. Trust comes from a trust root that the
caller pinned (`trust_root`), or from single keys (`keys`, `log_vkeys`) that know no rotation.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from assay import catalogue as catalogues
from assay.catalogue import Catalogue
from assay.errors import MachineFailed, Misused
from assay.keys import load_public
from assay.trust.memory import Memory
from assay.verify import given
from assay.verify.case import Case
from assay.verify.directory import ReportFiles
from assay.verify.outcome import Step, Verification, exit_code
from assay.verify.steps import run

__all__ = ["Step", "Verification", "exit_code", "open_case", "verify"]


def verify(
    report: Path,
    *,
    keys: Sequence[Path] = (),
    log_vkeys: Sequence[str] = (),
    trust_root: Path | None = None,
    model_dir: Path | None = None,
    receipt: Path | None = None,
    log_dir: Path | None = None,
    first: Path | None = None,
    state_dir: Path | None = None,
    now: datetime | None = None,
    catalogue: Catalogue | None = None,
) -> Verification:
    """Verify a report. The arguments are those of `open_case`.

    Raises:
        Misused: a key, trust root or receipt cannot be used, or both kinds of trust are given.
    """
    return run(
        open_case(
            report,
            keys=keys,
            log_vkeys=log_vkeys,
            trust_root=trust_root,
            model_dir=model_dir,
            receipt=receipt,
            log_dir=log_dir,
            first=first,
            state_dir=state_dir,
            now=now,
            catalogue=catalogue,
        )
    )


def open_case(
    report: Path,
    *,
    keys: Sequence[Path] = (),
    log_vkeys: Sequence[str] = (),
    trust_root: Path | None = None,
    model_dir: Path | None = None,
    receipt: Path | None = None,
    log_dir: Path | None = None,
    first: Path | None = None,
    state_dir: Path | None = None,
    now: datetime | None = None,
    catalogue: Catalogue | None = None,
) -> Case:
    """Read what the caller trusts, and return the case; `assay.verify.steps.run` decides it.

    Args:
        report: a report directory, or a bundle alone (then what lies beside it in a directory is absent).
        keys: PEM files of public keys that the caller trusts; never one that came with the report.
        log_vkeys: log keys (name+id+key) that the caller trusts; without one the log proof is not checked.
        trust_root: a trust root that the caller pinned, root.<n>.dsse.json; later versions are found beside it.
        model_dir: the caller's own copy of the model, hashed and compared both ways; None leaves it unchecked.
        receipt: a folder with request.json and request.tlog-proof as they came when the audit was submitted.
        log_dir: the caller's copy of the log; None leaves withdrawals unseen.
        first: the caller's copy of the report that this one repeats; None leaves its replication as it was signed.
        state_dir: where the newest root and checkpoint are remembered; None remembers nothing.
        now: moment at which to judge, aware of its time zone; default: this machine's clock.
        catalogue: what this client ships; default: the catalogue of this package.

    Raises:
        Misused: a key, trust root or receipt cannot be used, or both kinds of trust are given.
    """
    if catalogue is None:
        try:
            catalogue = catalogues.load()
        except MachineFailed:
            catalogue = None  # an installation without it verifies all but the comparison, which V10 lists
    if trust_root is not None and (keys or log_vkeys):
        raise Misused("give a trust root, or single keys (--key, --log-vkey), not both")
    return Case(
        files=ReportFiles(Path(report)),
        keys=tuple(load_public(Path(path)) for path in keys),
        vkeys=tuple(given.log_vkey(text) for text in log_vkeys),
        pinned_root=None if trust_root is None else given.pinned_root(trust_root),
        later_roots=() if trust_root is None else given.later_roots(trust_root),
        memory=None if state_dir is None else Memory(Path(state_dir)),
        receipt=None if receipt is None else given.receipt(receipt),
        log_dir=Path(log_dir) if log_dir is not None else None,
        first=None if first is None else ReportFiles(Path(first)),
        model_dir=Path(model_dir) if model_dir is not None else None,
        now=now or datetime.now(UTC),
        shipped=catalogue,
    )
