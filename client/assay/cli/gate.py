"""`assay gate`: verify a report, hold it against a policy, and end with one code."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import trust
from assay.cli.options import Config, Json, ReportPath
from assay.cli.screen import SCREEN, clean
from assay.errors import Malformed, Misused, shown

if TYPE_CHECKING:
    from assay.gate.gate import Asked, GateResult


def gate(
    report: ReportPath,
    policy: Annotated[Path, typer.Option("--policy", help="Release policy, YAML or JSON.")],
    waivers: Annotated[Path | None, typer.Option("--waivers", help="Accepted outcomes, YAML or JSON.")] = None,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", help="An older report that entries of `compare` are held against.")
    ] = None,
    out: Annotated[
        list[str] | None, typer.Option("--out", help="FORMAT=FILE; junit, sarif, md or json; repeatable.")
    ] = None,
    unregistered_policy: Annotated[
        bool, typer.Option("--unregistered-policy", help="Accept a policy that was not registered before the run.")
    ] = False,
    unshipped_checks: Annotated[
        bool, typer.Option("--unshipped-checks", help="Believe the report on what checks promise that are not shipped.")
    ] = False,
    no_log: Annotated[
        bool, typer.Option("--no-log", help="Accept a report that is not looked up in its log; every output says so.")
    ] = False,
    catalogue: trust.OwnCatalogue = None,
    model: trust.Model = None,
    trust_root: trust.TrustRoot = None,
    key: trust.Keys = None,
    log_vkey: trust.LogVkeys = None,
    receipt: trust.Receipt = None,
    log: trust.Log = None,
    now: trust.Now = None,
    config: Config = None,
    as_json: Json = False,
) -> int:
    """Verify a report and hold it against a policy. Exit 0 pass, 1 fail or wrong, 2 could not tell, 3 usage."""
    from assay.gate import established, outputs
    from assay.gate import gate as gates

    files = outputs.parse(out or [])  # usage is refused before anything is looked at
    named = (report, policy, waivers, baseline, catalogue, model, trust_root, *(key or ()), receipt, log, config)
    outputs.apart(files, [*named, *trust.root_files(trust_root)])
    trusted = trust.chosen(trust_root, key, log_vkey, config, walk=not trust.unattended(os.environ))
    asked = replace(
        _asked(policy, waivers, now),
        unregistered_policy=unregistered_policy,
        unshipped_checks=unshipped_checks,
        no_log=no_log,
        key_source=trusted.source,
    )
    known = {**trusted.arguments(), **trust.catalogue(catalogue)}
    seen = established.look(report, now=asked.now, model_dir=model, receipt=receipt, log_dir=log, **known)
    if baseline is not None:
        older = established.look(baseline, now=asked.now, log_dir=log, **known)
        asked = replace(asked, baseline=established.against(report, seen, baseline, older))
    result = gates.decide(seen, replace(asked, registered_policy_sha256=established.registered_policy(seen)))
    failed = outputs.write(result, files)
    _tell(result, as_json=as_json)
    for message in failed:
        SCREEN.note(f"assay: {clean(message, 2000)}")
    return outputs.final_code(result, failed)


def _asked(policy: Path, waivers: Path | None, now: str | None) -> Asked:
    from assay.cli import policies
    from assay.gate.gate import Asked

    return Asked(
        policy=policies.read_policy(policy),
        now=_moment(now),
        registered_policy_sha256=None,  # nothing is known of the report yet
        policy_file=policies.shown_path(policy),
        waivers=() if waivers is None else policies.read_waivers(waivers),
    )


def _tell(result: GateResult, *, as_json: bool) -> None:
    from assay.gate import annotations as console

    if as_json:
        SCREEN.json(result.to_json())
        return
    for line in console.lines(result):
        SCREEN.out(line)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in console.commands(result):
            SCREEN.command(line)


def _moment(text: str | None) -> datetime:
    from assay import moments

    try:
        return datetime.now(UTC) if text is None else moments.parse(text)
    except Malformed as error:
        raise Misused(f"--now {shown(text)}: {error.message}") from None
