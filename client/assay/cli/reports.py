"""`assay report`, `assay findings`, `assay verify`."""

from __future__ import annotations

from collections.abc import Iterator
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
    for line in _waivers(fetched.directory):
        SCREEN.out(line)
    SCREEN.out(f"Verify it: assay verify {fetched.directory}")
    return 0


def _waivers(report: Path) -> Iterator[str]:
    """Yield the waivers that were registered with a report; nobody has held them against the request here."""
    if not (report / "waivers.json").exists():
        return
    from assay.errors import CouldNotTell, Malformed
    from assay.policy import registered
    from assay.verify.directory import ReportFiles

    try:
        held = registered.read_waivers(ReportFiles(report).read(registered.WAIVERS_FILE, registered.BYTES_MAX))
    except (CouldNotTell, Malformed) as error:
        yield f"Waivers were registered with it, and cannot be read: {clean(error, 400)}"
        return
    yield f"Waivers registered with it: {len(held)}. `assay verify` says what became of each."
    for one in held:
        who = f"{one.fingerprint}, for {one.outcome}, accepted by {clean(one.approver)} until {one.expires.isoformat()}"
        yield f"  | {who}: {clean(one.reason)}"


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
    model: trust.Model = None,
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
    held = trust.beside(model=model, receipt=receipt, log=log, first=first, own_catalogue=catalogue, now=now)
    seen = look(report, **held, **trusted.arguments())
    if as_json:
        SCREEN.json({**seen.to_json(), "key_source": trusted.source})
    else:
        SCREEN.out(f"Trusted key: {trusted.named} ({trusted.source})")
        for line in seen.render_text().splitlines():
            SCREEN.out(clean(line, 2000))
    return exit_code(seen)
