"""`assay replicate`: run a question again under its seed, and say metric by metric whether it came out again."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli import codes, trust
from assay.cli.options import PATIENCE_S, TIMEOUT_S, Config, Json, ReportPath, TimeoutS, greet, pair
from assay.cli.reports import default_place
from assay.cli.screen import SCREEN, clean

if TYPE_CHECKING:
    from assay.cli.follow import Ending
    from assay.cli.repeating import Order
    from assay.cli.trust import Trust
    from assay.client import AuditClient
    from assay.compare.replicate import Replication
    from assay.verify import Verification

SCHEMA = "assay-replicate/v1"

_CODES = {"replicated": codes.YES, "not_replicated": codes.NO}


def replicate(
    report: ReportPath,
    server: Annotated[
        str | None, typer.Option("--server", help="host:port; default: the service of the client configuration.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", help="Your copy of the model, if the service has none.")
    ] = None,
    base: Annotated[
        Path | None, typer.Option("--base", help="Your copy of the base model, where there was one.")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option("--data", help="ROLE=FILE: your copy, if the service has none; repeatable.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the new report; default assay-reports/ID.")
    ] = None,
    request_id: Annotated[
        str | None, typer.Option("--request-id", help="UUID4; the same id repeats the same submission.")
    ] = None,
    trust_root: trust.TrustRoot = None,
    key: trust.Keys = None,
    log_vkey: trust.LogVkeys = None,
    log: Annotated[
        Path | None, typer.Option("--log", help="A copy of the log: whether the first report is withdrawn.")
    ] = None,
    catalogue: trust.OwnCatalogue = None,
    config: Config = None,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> int:
    """Run a verified report's question again under its seed. Exit 0 replicated, 1 not, 2 could not tell."""
    from assay.cli.repeating import prepare
    from assay.compare.sides import load
    from assay.verify import exit_code, verify

    trusted = trust.chosen(trust_root, key, log_vkey, config)
    own = trust.catalogue(catalogue)
    seen = verify(report, log_dir=log, **trusted.arguments(), **own)
    if seen.outcome != "verified":
        return _not_verified("the first report", seen, exit_code(seen), as_json)
    given = [(role, Path(path)) for role, path in (pair("--data", text) for text in data or ())]
    order = prepare(report, load(report, seen), model, base, given)
    theirs = _trust_of_service(trusted, config)
    with _connect(server, config, timeout_s) as client:
        ran = _run(client, order, out, request_id or str(uuid.uuid4()), theirs)
    if ran.ending.predicate is None:
        return _without_report(ran, as_json)
    # A copy of the log that the caller had before knows nothing of the new report, so --log is of the first alone.
    known = {**theirs.arguments(), **own}
    again = verify(ran.place, first=report, model_dir=model, receipt=ran.receipt_for(theirs), **known)
    if again.outcome != "verified":
        return _not_verified("the new report", again, exit_code(again), as_json)
    return _tell(order, ran, again, as_json)


@dataclass(frozen=True, kw_only=True)
class Ran:
    """The audit that repeated, and where its files are."""

    ending: Ending
    place: Path
    receipt: Path | None

    def receipt_for(self, trusted: Trust) -> Path | None:
        """Return the receipt where it can be checked: that needs a log key."""
        return self.receipt if trusted.trust_root or trusted.log_vkeys else None


def _connect(server: str | None, config: Path | None, timeout_s: float) -> AuditClient:
    from assay.client import AuditClient
    from assay.config import find

    found = find(config)
    if server is not None:
        found = replace(found, address=server)
    return AuditClient(found, timeout_s=timeout_s, patience_s=PATIENCE_S)


def _trust_of_service(trusted: Trust, config: Path | None) -> Trust:
    """Return whom the new report is believed: the configured service's operator, else who signed the first."""
    theirs = trust.chosen(None, None, None, config)
    return theirs if theirs.trust_root or theirs.keys else trusted


def _run(client: AuditClient, order: Order, out: Path | None, request_id: str, theirs: Trust) -> Ran:
    from assay.cli.follow import fetch, follow
    from assay.cli.progress import teller
    from assay.cli.receipts import Keeper
    from assay.cli.repeating import send

    with teller() as told:
        greet(client)
        audit, expected = send(client, order, request_id, told)
        SCREEN.note(f"submitted {clean(audit.name)}, seed {order.seed} fixed")
        place = out or default_place(audit.name)
        keeper = Keeper(place, expected, theirs)
        ending = fetch(client, follow(client, audit.name, told, seen=keeper.see), place)
    return Ran(ending=ending, place=place, receipt=keeper.kept)


def _not_verified(which: str, seen: Verification, code: int, as_json: bool) -> int:
    if as_json:
        SCREEN.json(
            {"schema": SCHEMA, "outcome": "not_verified", "which": which, "exit": code, "verify": seen.to_json()}
        )
        return code
    SCREEN.out(f"{which} is not verified, so nothing can be said:")
    for line in seen.render_text().splitlines():
        SCREEN.out(f"  {clean(line, 2000)}")
    return code


def _without_report(ran: Ran, as_json: bool) -> int:
    """Tell of an audit that ended without a report: nothing was repeated."""
    code = codes.COULD_NOT_TELL
    if as_json:
        SCREEN.json({"schema": SCHEMA, "outcome": "cannot_tell", "audit": ran.ending.audit.name, "exit": code})
        return code
    SCREEN.out(ran.ending.line())
    return code


def _tell(order: Order, ran: Ran, again: Verification, as_json: bool) -> int:
    from assay.compare import text

    outcome = again.replication or "cannot_tell"
    code = _CODES.get(outcome, codes.COULD_NOT_TELL)
    made = _judged(order, ran, again)
    if as_json:
        SCREEN.json({**_json(order, ran, again, made), "outcome": outcome, "exit": code})
        return code
    for line in text.replication(made) if made is not None else ():
        SCREEN.out(clean(line, 2000))
    if again.replication is None:
        SCREEN.out("The service signed no replication, so only this client says so: could not tell.")
    step = again.step("V14")
    SCREEN.out(f"{step.id}: {clean(step.detail, 2000)}")
    SCREEN.out(f"Report: {ran.place}")
    SCREEN.out(f"{outcome}: {clean(ran.ending.audit.name)} repeats {clean(order.side.predicate['audit']['name'])}")
    return code


def _judged(order: Order, ran: Ran, again: Verification) -> Replication | None:
    """Judge the two reports here, too; None where they cannot be held against each other."""
    from assay.compare.agreement import Incomparable
    from assay.compare.replicate import replicate as held_against
    from assay.compare.sides import load

    try:
        return held_against(order.side, load(ran.place, again))
    except Incomparable as error:
        SCREEN.note(clean(error, 400))
        return None


def _json(order: Order, ran: Ran, again: Verification, made: Replication | None) -> dict[str, Any]:
    told = {} if made is None else made.to_json()
    parts = ("counts", "results", "environment_differences", "notes")
    return {
        "schema": SCHEMA,
        "audit": ran.ending.audit.name,
        "report": str(ran.place),
        "receipt": None if ran.receipt is None else str(ran.receipt),
        "seed": order.seed,
        "first_statement_sha256": order.side.statement_sha256,
        "second_statement_sha256": again.statement_sha256,
        "signed": again.replication,
        **{part: told.get(part) for part in parts},
        "verify": again.to_json(),
    }
