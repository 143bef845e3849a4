"""`assay report`, `assay findings`, `assay verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.cli import trust
from assay.cli.options import TIMEOUT_S, AuditName, Config, Json, ReportPath, TimeoutS, connect
from assay.cli.screen import SCREEN, clean

REPORTS = Path("assay-reports")


def default_place(name: str) -> Path:
    """Return where an audit's report goes unless another place is named."""
    return REPORTS / name.removeprefix("audits/").partition("/")[0]


def report(
    audit: AuditName,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the report; default assay-reports/ID.")] = None,
    config: Config = None,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> int:
    """Download an audit's report; every file is hashed again."""
    from assay.remote.values import plain

    with connect(config, timeout_s) as client:
        fetched = client.report(audit, out or default_place(audit))
    if as_json:
        SCREEN.json(plain(fetched))
        return 0
    SCREEN.out(f"{clean(fetched.name)}: {len(fetched.files)} files in {fetched.directory}")
    if fetched.withdrawn_at is not None:
        why = f"on {fetched.withdrawn_at:%Y-%m-%d}, reason {clean(fetched.withdrawal_reason)}"
        SCREEN.note(f"WITHDRAWN by the operator {why}: do not rely on it. A copy of the log proves it (--log).")
    SCREEN.out(f"Verify it: assay verify {fetched.directory}")
    return 0


def findings(
    report: ReportPath,
    everything: Annotated[bool, typer.Option("--all", help="List every metric.")] = False,
    as_json: Json = False,
) -> int:
    """Show what a report says: what was not answered, controls, findings, numbers. Proves nothing."""
    from assay.cli import findings as text
    from assay.cli import reading

    predicate = reading.read_predicate(report)
    if as_json:
        SCREEN.json(reading.summary_json(predicate))
        return 0
    for line in text.lines(predicate, str(report), everything=everything):
        SCREEN.out(line)
    return 0


def verify(
    report: ReportPath,
    model: Annotated[Path | None, typer.Option("--model", help="Your own copy of the model, hashed too.")] = None,
    trust_root: trust.TrustRoot = None,
    key: trust.Keys = None,
    log_vkey: trust.LogVkeys = None,
    receipt: trust.Receipt = None,
    log: trust.Log = None,
    first: trust.First = None,
    catalogue: trust.OwnCatalogue = None,
    now: trust.Now = None,
    config: Config = None,
    as_json: Json = False,
) -> int:
    """Verify a report offline, in numbered steps. Exit 0 verified, 1 wrong, 2 could not tell."""
    from assay.verify import exit_code
    from assay.verify import verify as look

    trusted = trust.chosen(trust_root, key, log_vkey, config)
    seen = look(
        report,
        model_dir=model,
        receipt=receipt,
        log_dir=log,
        first=first,
        now=trust.moment(now),
        **trusted.arguments(),
        **trust.catalogue(catalogue),
    )
    if as_json:
        SCREEN.json({**seen.to_json(), "key_source": trusted.source})
    else:
        SCREEN.out(f"Trusted key: {trusted.named} ({trusted.source})")
        for line in seen.render_text().splitlines():
            SCREEN.out(clean(line, 2000))
    return exit_code(seen)
