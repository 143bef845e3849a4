"""`assay schedules …`: audits that the service submits again and again, by a calendar."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli.options import TIMEOUT_S, Config, Json, TimeoutS, connect, pair
from assay.cli.screen import SCREEN, clean
from assay.client_errors import refuse

if TYPE_CHECKING:
    from datetime import datetime

    from assay.remote.schedules import Fire, Schedule

schedules = typer.Typer(
    help="Have the service submit an audit again and again, by a calendar.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ScheduleName = Annotated[str, typer.Argument(metavar="SCHEDULE", help="schedules/{id}, or the id alone.")]
Like = Annotated[str | None, typer.Option("--like", metavar="AUDIT", help="Ask what this audit asked.")]
Pin = Annotated[
    bool, typer.Option("--pin", help="With --like: the same versions of its checks, also after the service's update.")
]
Misfire = Annotated[
    str | None, typer.Option("--misfire", help="Of fires over 5 minutes late: once (make up for the latest) or skip.")
]
Overlap = Annotated[
    str | None, typer.Option("--overlap", help="While one of its audits has not ended: skip, queue or replace.")
]


@schedules.command("create")
def create(
    identifier: Annotated[str, typer.Argument(metavar="ID", help="4 to 63 of a-z, 0-9 and -.")],
    cron: Annotated[str, typer.Option("--cron", help='"minute hour day month weekday", or @hourly, @daily, …')],
    zone: Annotated[str, typer.Option("--zone", help="IANA time zone, e.g. Europe/Berlin.")],
    like: Like = None,
    pin: Pin = False,
    model: Annotated[str | None, typer.Option("--model", help="models/{64 hex} that the service has.")] = None,
    check: Annotated[list[str] | None, typer.Option("--check", help="NAME or NAME:key=value,…; repeatable.")] = None,
    check_json: Annotated[list[Path] | None, typer.Option("--check-json", help="As of submit.")] = None,
    param: Annotated[list[str] | None, typer.Option("--param", help="CHECK.KEY=VALUE; repeatable.")] = None,
    label: Annotated[list[str] | None, typer.Option("--label", help="KEY=VALUE; repeatable.")] = None,
    misfire: Misfire = None,
    overlap: Overlap = None,
    jitter_s: Annotated[
        int, typer.Option("--jitter-s", min=0, help="Delay each fire by up to so many seconds, always by the same.")
    ] = 0,
    paused: Annotated[bool, typer.Option("--paused", help="Make it and let it wait for `resume`.")] = False,
    config: Config = None,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> int:
    """Make a schedule: of what an audit asked (--like), or of a model and checks that need no data."""
    from assay.cli.asking import check_names, read_checks

    if (like is None) == (model is None) or (like is not None and (check or check_json or param)):
        raise refuse("--like", "or --model with --check: give one of them; with data, submit once and then use --like")
    labels = dict(pair("--label", text) for text in label or [])
    asked = [] if model is None else read_checks(check or [], check_json or [], param or [])
    with connect(config, timeout_s) as client:
        if model is None:
            template = client.schedules.like(like or "", pinned=pin)
            template.labels.update(labels)
        else:
            check_names(asked, client.entries())
            template = client.schedules.template(model, [(one.name, one.parameters) for one in asked], labels=labels)
        made = client.schedules.create(
            identifier,
            template,
            cron=cron,
            time_zone=zone,
            misfire=misfire or "ONCE",
            overlap=overlap or "SKIP",
            jitter_s=jitter_s,
            paused=paused,
        )
    return _tell(made, as_json)


@schedules.command("list")
def list_schedules(
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    config: Config = None,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> int:
    """List schedules, newest first."""
    with connect(config, timeout_s) as client:
        found = list(islice(client.schedules.all(), limit))
    if as_json:
        SCREEN.json([_plain(one) for one in found])
        return 0
    for one in found:
        then = "paused" if one.paused else f"next {_moment(one.next_fires[0] if one.next_fires else None)}"
        SCREEN.out(f"{clean(one.name)}  {clean(one.cron, 256)}  {clean(one.time_zone)}  {then}")
    if not found:
        SCREEN.note("No schedules.")
    return 0


@schedules.command("show")
def show(schedule: ScheduleName, config: Config = None, timeout_s: TimeoutS = TIMEOUT_S, as_json: Json = False) -> int:
    """Show one schedule and its next fires."""
    with connect(config, timeout_s) as client:
        found = client.schedules.get(schedule)
    return _tell(found, as_json)


@schedules.command("update")
def update(
    schedule: ScheduleName,
    cron: Annotated[str | None, typer.Option("--cron", help="Another calendar.")] = None,
    zone: Annotated[str | None, typer.Option("--zone", help="Another time zone.")] = None,
    like: Like = None,
    pin: Pin = False,
    misfire: Misfire = None,
    overlap: Overlap = None,
    jitter_s: Annotated[int | None, typer.Option("--jitter-s", min=0, help="Another delay, in seconds.")] = None,
    config: Config = None,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> int:
    """Change what is given and leave the rest; minutes that were due before are not made up for."""
    if all(one is None for one in (cron, zone, like, misfire, overlap, jitter_s)):
        raise refuse("update", "changes nothing: give --cron, --zone, --like, --misfire, --overlap or --jitter-s")
    with connect(config, timeout_s) as client:
        changed = client.schedules.update(
            schedule,
            template=client.schedules.like(like, pinned=pin) if like else None,
            cron=cron,
            time_zone=zone,
            misfire=misfire,
            overlap=overlap,
            jitter_s=jitter_s,
        )
    return _tell(changed, as_json)


@schedules.command("delete")
def delete(
    schedule: ScheduleName, config: Config = None, timeout_s: TimeoutS = TIMEOUT_S, as_json: Json = False
) -> int:
    """Delete a schedule; its audits and fires stay."""
    from assay.remote.schedules import schedule_name

    with connect(config, timeout_s) as client:
        client.schedules.delete(schedule)
    if as_json:
        SCREEN.json({"name": schedule_name(schedule), "deleted": True})
    else:
        SCREEN.out(f"Deleted {clean(schedule_name(schedule))}")
    return 0


@schedules.command("run")
def run(
    schedule: ScheduleName,
    request_id: Annotated[
        str | None, typer.Option("--request-id", help="UUID4; the same id is the same audit.")
    ] = None,
    config: Config = None,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> int:
    """Submit its audit now, beside the calendar."""
    from assay.remote.values import plain

    with connect(config, timeout_s) as client:
        audit = client.schedules.run(schedule, request_id=request_id)
    if as_json:
        SCREEN.json(plain(audit))
    else:
        SCREEN.out(f"submitted {clean(audit.name)}; follow it: assay watch {clean(audit.name)}")
    return 0


@schedules.command("pause")
def pause(schedule: ScheduleName, config: Config = None, timeout_s: TimeoutS = TIMEOUT_S, as_json: Json = False) -> int:
    """Let it not fire until it is resumed."""
    with connect(config, timeout_s) as client:
        return _tell(client.schedules.pause(schedule), as_json)


@schedules.command("resume")
def resume(
    schedule: ScheduleName, config: Config = None, timeout_s: TimeoutS = TIMEOUT_S, as_json: Json = False
) -> int:
    """Let it fire again; minutes that passed meanwhile are not made up for."""
    with connect(config, timeout_s) as client:
        return _tell(client.schedules.resume(schedule), as_json)


@schedules.command("fires")
def fires(
    schedule: ScheduleName,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    config: Config = None,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> int:
    """List what became of each due minute, newest first."""
    from assay.remote.values import plain

    with connect(config, timeout_s) as client:
        found = list(islice(client.schedules.fires(schedule), limit))
    if as_json:
        SCREEN.json([plain(one) for one in found])
        return 0
    for one in found:
        _tell_fire(one)
    if not found:
        SCREEN.note("No fires yet.")
    return 0


def _plain(schedule: Schedule) -> dict[str, Any]:
    """Return a schedule as JSON; of its template what is asked, and none of the fields that only an audit has."""
    from assay.remote.values import plain

    told: dict[str, Any] = plain(schedule)
    asked = ("model", "base_model", "checks", "data", "limits", "labels", "policy_sha256", "waivers_sha256")
    told["template"] = {name: told["template"][name] for name in asked}
    return told


def _tell(schedule: Schedule, as_json: bool) -> int:
    if as_json:
        SCREEN.json(_plain(schedule))
        return 0
    SCREEN.out(f"{clean(schedule.name)}{'  paused' if schedule.paused else ''}")
    SCREEN.out(f"  fires      {clean(schedule.cron, 256)}  in {clean(schedule.time_zone)}")
    late = "the latest is made up for" if schedule.misfire == "ONCE" else "skipped"
    SCREEN.out(f"  late       {late}; beside an audit that has not ended: {clean(schedule.overlap.lower())}")
    if schedule.jitter_s:
        SCREEN.out(f"  jitter     up to {schedule.jitter_s} s")
    SCREEN.out(f"  model      {clean(schedule.template.model)}")
    for asked in schedule.template.checks:
        SCREEN.out(f"  check      {clean(asked.check)} {clean(asked.version) or '(as the service has it)'}")
    for one in schedule.template.data:
        SCREEN.out(f"  data       {clean(one.role)} sha256:{clean(one.sha256)}")
    for moment in schedule.next_fires:
        SCREEN.out(f"  next       {_moment(moment)}")
    return 0


def _tell_fire(one: Fire) -> None:
    what = f"  {clean(one.audit)}" if one.audit else f"  {clean(one.reason)}" if one.reason else ""
    SCREEN.out(f"{_moment(one.due_at)}  {one.outcome:<15}{what}")


def _moment(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC") if moment else "-"
