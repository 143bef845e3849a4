"""`assay watch`, `audits`, `show`, `cancel`."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli.options import TIMEOUT_S, AuditName, Config, Json, TimeoutS, connect, greet
from assay.cli.screen import SCREEN, clean
from assay.media import ROWS

if TYPE_CHECKING:
    from datetime import datetime

    from assay.remote.values import Audit


def watch(
    audit: AuditName,
    after: Annotated[int, typer.Option("--after", min=0, help="Skip events up to this number.")] = 0,
    config: Config = None,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> int:
    """Tell an audit's progress until it has ended; exit with the code of its outcome."""
    from assay.cli import trust
    from assay.cli.follow import Ending, follow
    from assay.cli.progress import queue_text, teller
    from assay.cli.receipts import Keeper, as_told
    from assay.cli.reports import default_place
    from assay.remote.values import plain

    with connect(config, timeout_s, patient=True) as client, teller() as told:
        greet(client)
        seen = None
        if after == 0:
            known = client.get(audit)
            if text := queue_text(known):
                SCREEN.note(text)
            keeper = Keeper(default_place(known.name), as_told(known), trust.chosen(None, None, None, config))
            seen = keeper.see
        ending = Ending(audit=follow(client, audit, told, after, seen=seen))
    if as_json:
        SCREEN.json({**plain(ending.audit), "audit": ending.audit.name, "exit": ending.code})
        return ending.code
    SCREEN.out(ending.line())
    if ending.audit.reports:
        SCREEN.out(f"Fetch its report: assay report {clean(ending.audit.name)}")
    return ending.code


def audits(
    state: Annotated[str | None, typer.Option("--state", help="Only audits in this state, e.g. RUNNING.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    config: Config = None,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> int:
    """List audits, newest first."""
    from assay.remote.values import plain

    with connect(config, timeout_s) as client:
        found = list(islice(client.audits(state=state.upper() if state else None), limit))
    if as_json:
        SCREEN.json([plain(one) for one in found])
        return 0
    for one in found:
        checks = ", ".join(asked.check for asked in one.checks)
        SCREEN.out(f"{clean(one.name)}  {one.word:<12}  {_moment(one.submitted_at)}  {clean(checks, 80)}")
    if not found:
        SCREEN.note("No audits.")
    return 0


def show(audit: AuditName, config: Config = None, timeout_s: TimeoutS = TIMEOUT_S, as_json: Json = False) -> int:
    """Show one audit as it is now."""
    from assay.remote.values import plain

    with connect(config, timeout_s) as client:
        found = client.get(audit)
    if as_json:
        SCREEN.json(plain(found))
        return 0
    _show(found)
    return 0


def cancel(audit: AuditName, config: Config = None, timeout_s: TimeoutS = TIMEOUT_S, as_json: Json = False) -> int:
    """Ask an audit to stop. It is CANCELLED once its sandbox is dead; `assay watch` waits for that."""
    from assay.remote.values import plain

    with connect(config, timeout_s) as client:
        found = client.cancel(audit)
    if as_json:
        SCREEN.json(plain(found))
    else:
        SCREEN.out(f"{found.state} {clean(found.name)}")
    return 0


def _show(audit: Audit) -> None:
    from assay.cli.progress import queue_text

    reason = f" ({clean(audit.state_reason)})" if audit.state_reason else ""
    SCREEN.out(f"{clean(audit.name)}  {audit.word}{reason}")
    SCREEN.out(f"  model      {clean(audit.model)}")
    if audit.base_model:
        SCREEN.out(f"  base       {clean(audit.base_model)}")
    for asked in audit.checks:
        parameters = ", ".join(f"{key}={value}" for key, value in sorted(asked.parameters.items()))
        SCREEN.out(f"  check      {clean(asked.check)} {clean(asked.version)} ({clean(parameters, 300)})")
    for one in audit.data:
        told = f"{one.rows} rows" if one.media_type in ("", ROWS) else f"{one.size} bytes ({clean(one.media_type)})"
        SCREEN.out(f"  data       {clean(one.role)} sha256:{clean(one.sha256)}, {told}")
    for key, value in sorted(audit.labels.items()):
        SCREEN.out(f"  label      {clean(key)}={clean(value)}")
    if told := queue_text(audit):
        SCREEN.out(f"  queue      {told}")
    for attempt in audit.attempts:
        SCREEN.out(f"  attempt    {attempt.number} of job {clean(attempt.job)}: {attempt.exit_class or 'running'}")
    for name, moment in (
        ("submitted", audit.submitted_at),
        ("registered", audit.registered_at),
        ("started", audit.started_at),
        ("ended", audit.ended_at),
    ):
        SCREEN.out(f"  {name:<10} {_moment(moment)}")
    if audit.result_sha256:
        SCREEN.out(f"  result     sha256:{clean(audit.result_sha256)}")
    for name in audit.reports:
        SCREEN.out(f"  report     {clean(name)}")


def _moment(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC") if moment else "-"
