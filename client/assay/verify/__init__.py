"""Verify a report offline, in numbered steps V01 to V15. Opens no socket.

    from assay.verify import verify

    seen = verify(Path("reports/5f0c…"), keys=[Path("operator.pem")], model_dir=Path("model"))
    print(seen.render_text())

A step is ok, wrong, unknown ("I could not tell") or not_asked; each is listed. What a later service adds (a log, a
trust root, a policy and its verdict) has its step already, which says that it was not asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from assay import catalogue as catalogues
from assay.catalogue import Catalogue
from assay.errors import MachineFailed
from assay.keys import load_public
from assay.verify.case import Case
from assay.verify.directory import ReportFiles
from assay.verify.outcome import Step, Verification, exit_code
from assay.verify.steps import run

__all__ = ["Step", "Verification", "exit_code", "verify"]


def verify(
    report: Path,
    *,
    keys: Sequence[Path] = (),
    model_dir: Path | None = None,
    now: datetime | None = None,
    catalogue: Catalogue | None = None,
) -> Verification:
    """Verify a report.

    Args:
        report: a report directory, or a bundle alone (then what lies beside it in a directory is absent).
        keys: PEM files of public keys that the caller trusts; never one that came with the report.
        model_dir: the caller's own copy of the model, hashed and compared both ways; None leaves it unchecked.
        now: moment at which to judge, aware of its time zone; default: this machine's clock.
        catalogue: what this client ships; default: the catalogue of this package.

    Raises:
        Misused: a key file is no P-256 public key.
    """
    if catalogue is None:
        try:
            catalogue = catalogues.load()
        except MachineFailed:
            catalogue = None  # an installation without it verifies all but the comparison, which V10 lists
    return run(
        Case(
            files=ReportFiles(Path(report)),
            keys=tuple(load_public(Path(path)) for path in keys),
            model_dir=Path(model_dir) if model_dir is not None else None,
            now=now or datetime.now(UTC),
            shipped=catalogue,
        )
    )
