"""Schedules as rows: made, read, changed and deleted by their tenant. What becomes of due minutes is in `fires`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from assay.api.v1 import audits_pb2
from sqlalchemy import Connection, Row, delete, func, select, tuple_, update

from service.rules import names
from service.rules.access import Reach, Scope
from service.rules.errors import Refusal, not_permitted
from service.rules.pages import Position
from service.rules.schedules import SCHEDULES_MAX, FireOutcome, Misfire, Overlap, ScheduleKey, Timing
from service.store.scopes import owns_model
from service.store.tables_around import fire, schedule
from service.store.uploads import insert_absent


@dataclass(frozen=True, kw_only=True)
class ScheduleView:
    """One schedule. Times are milliseconds since 1970."""

    key: ScheduleKey
    principal: str
    """Who made or last changed it: its fires are submitted with the rights that this principal has then."""
    template: bytes
    """The input fields of an assay.api.v1.Audit without a nonce, serialised."""
    timing: Timing
    paused: bool
    considered_until: int
    """Every due minute up to here was decided, or is not made up for."""
    revision: int
    """Grows with every change."""
    created_at: int

    @property
    def etag(self) -> str:
        """Changes with every change by a caller, not with fires."""
        return hashlib.sha256(f"{self.key}/{self.created_at}/{self.revision}".encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a caller wants a schedule to be."""

    principal: str
    template: bytes
    timing: Timing
    paused: bool = False


def create(connection: Connection, key: ScheduleKey, wanted: Wanted, now: int) -> ScheduleView:
    """Make a schedule; minutes that are due by `now` are not made up for.

    An id that was deleted may be used again. Its fires stay, so a minute that was decided stays decided.

    Args:
        connection: inside `Store.begin`.
        key: whose, and which.
        wanted: what it is.
        now: milliseconds since 1970.

    Raises:
        Refusal: SCHEDULE_EXISTS, TOO_MANY_SCHEDULES.
    """
    row = {"tenant": key.tenant, "id": key.id, **_columns(wanted), "considered_until": now, "created_at": now}
    if not insert_absent(connection, schedule, row):
        found = connection.execute(select(schedule.c.deleted_at).where(*_is(key)).with_for_update()).one()
        if found.deleted_at is None:
            raise Refusal("SCHEDULE_EXISTS", f"There is a schedule {key.id}.", metadata={"schedule": key.id})
        revived = {**row, "deleted_at": None, "revision": schedule.c.revision + 1}
        connection.execute(update(schedule).where(*_is(key)).values(**revived))
    live = (schedule.c.tenant == key.tenant, schedule.c.deleted_at.is_(None))
    if connection.execute(select(func.count()).select_from(schedule).where(*live)).scalar_one() > SCHEDULES_MAX:
        raise Refusal(
            "TOO_MANY_SCHEDULES",
            f"A tenant has at most {SCHEDULES_MAX} schedules.",
            metadata={"limit": str(SCHEDULES_MAX)},
            quota="schedules",
        )
    return known(connection, key)


def find(connection: Connection, key: ScheduleKey, *, lock: bool = False) -> ScheduleView | None:
    """Return a tenant's schedule, None if it has none of this id; with `lock` nobody else changes it meanwhile."""
    found = select(schedule).where(*_is(key), schedule.c.deleted_at.is_(None))
    row = connection.execute(found.with_for_update() if lock else found).one_or_none()
    return None if row is None else _view(row)


def known(connection: Connection, key: ScheduleKey, *, lock: bool = False) -> ScheduleView:
    """Return a tenant's schedule.

    Raises:
        Refusal: NOT_PERMITTED: it has none of this id.
    """
    found = find(connection, key, lock=lock)
    if found is None:
        raise not_permitted()
    return found


def seen(connection: Connection, scope: Scope, key: ScheduleKey, *, lock: bool = False) -> ScheduleView:
    """Return a schedule of the caller's tenant that its call may touch; with `lock` nobody else changes it meanwhile.

    Raises:
        Refusal: NOT_PERMITTED: the tenant has none of this id, or it is about a model that the scope does not reach.
    """
    found = known(connection, key, lock=lock)
    if not _reaches(connection, scope, found):
        raise not_permitted()
    return found


def _reaches(connection: Connection, scope: Scope, view: ScheduleView) -> bool:
    if scope.reach is not Reach.OWN_MODELS:
        return True
    return owns_model(connection, scope.tenant, names.model(audits_pb2.Audit.FromString(view.template).model))


def page(connection: Connection, scope: Scope, after: Position | None, limit: int) -> tuple[ScheduleView, ...]:
    """Return the schedules of a scope's tenant that it reaches, below a position, newest first.

    All of the tenant's are read, which are no more than SCHEDULES_MAX: a template is no column to ask for its model.
    """
    found = select(schedule).where(schedule.c.tenant == scope.tenant, schedule.c.deleted_at.is_(None))
    if after is not None:
        found = found.where(tuple_(schedule.c.created_at, schedule.c.id) < (after.at, after.id))
    rows = connection.execute(found.order_by(schedule.c.created_at.desc(), schedule.c.id.desc())).all()
    return tuple(view for view in map(_view, rows) if _reaches(connection, scope, view))[:limit]


def change(connection: Connection, key: ScheduleKey, wanted: Wanted, etag: str, now: int) -> ScheduleView:
    """Replace a schedule; minutes that were due before are not made up for.

    Raises:
        Refusal: NOT_PERMITTED, ETAG_MISMATCH.
    """
    _expected(connection, key, etag)
    _set(connection, key, **_columns(wanted), considered_until=now)
    _reopen(connection, key, now)
    return known(connection, key)


def pause(connection: Connection, key: ScheduleKey) -> ScheduleView:
    """Stop a schedule's fires; pausing twice changes nothing.

    Raises:
        Refusal: NOT_PERMITTED.
    """
    if not known(connection, key, lock=True).paused:
        _set(connection, key, paused=True)
    return known(connection, key)


def resume(connection: Connection, key: ScheduleKey, now: int) -> ScheduleView:
    """Let a schedule fire again, from the next minute on; resuming twice changes nothing.

    Raises:
        Refusal: NOT_PERMITTED.
    """
    if known(connection, key, lock=True).paused:
        _set(connection, key, paused=False, considered_until=now)
        _reopen(connection, key, now)
    return known(connection, key)


def _reopen(connection: Connection, key: ScheduleKey, now: int) -> None:
    """Take back what a clock that was ahead decided too early: no minute that is to come is late.

    What was submitted stays, so that nothing fires twice.
    """
    ahead = (fire.c.tenant == key.tenant, fire.c.schedule == key.id, fire.c.due_at > now)
    connection.execute(delete(fire).where(*ahead, fire.c.outcome == FireOutcome.SKIPPED_MISFIRE))


def remove(connection: Connection, key: ScheduleKey, etag: str, now: int) -> None:
    """Delete a schedule; its audits and fires stay.

    Raises:
        Refusal: NOT_PERMITTED, ETAG_MISMATCH.
    """
    _expected(connection, key, etag)
    _set(connection, key, deleted_at=now)


def active(connection: Connection) -> tuple[ScheduleView, ...]:
    """Return every schedule that may fire, in a fixed order."""
    found = select(schedule).where(schedule.c.deleted_at.is_(None), schedule.c.paused.is_(False))
    return tuple(_view(row) for row in connection.execute(found.order_by(schedule.c.tenant, schedule.c.id)))


def advance(connection: Connection, seen: ScheduleView, until: int) -> None:
    """Note up to where the due minutes of a schedule are decided, unless it was changed since it was seen."""
    connection.execute(
        update(schedule)
        .where(*_is(seen.key), schedule.c.revision == seen.revision, schedule.c.considered_until < until)
        .values(considered_until=until)
    )


def _expected(connection: Connection, key: ScheduleKey, etag: str) -> ScheduleView:
    """Return a schedule, locked, if it is as the caller read it."""
    found = known(connection, key, lock=True)
    if etag and etag != found.etag:
        raise Refusal("ETAG_MISMATCH", "The schedule changed since it was read.", metadata={"etag": found.etag})
    return found


def _is(key: ScheduleKey) -> tuple[Any, ...]:
    return (schedule.c.tenant == key.tenant, schedule.c.id == key.id)


def _set(connection: Connection, key: ScheduleKey, **values: Any) -> None:
    connection.execute(update(schedule).where(*_is(key)).values(**values, revision=schedule.c.revision + 1))


def _columns(wanted: Wanted) -> dict[str, Any]:
    return {
        "principal": wanted.principal,
        "template": wanted.template,
        "cron": wanted.timing.cron,
        "time_zone": wanted.timing.time_zone,
        "misfire": wanted.timing.misfire,
        "overlap": wanted.timing.overlap,
        "jitter_s": wanted.timing.jitter_s,
        "paused": wanted.paused,
    }


def _view(row: Row[Any]) -> ScheduleView:
    return ScheduleView(
        key=ScheduleKey(row.tenant, row.id),
        principal=row.principal,
        template=row.template,
        timing=Timing(
            cron=row.cron,
            time_zone=row.time_zone,
            misfire=Misfire(row.misfire),
            overlap=Overlap(row.overlap),
            jitter_s=row.jitter_s,
        ),
        paused=row.paused,
        considered_until=row.considered_until,
        revision=row.revision,
        created_at=row.created_at,
    )
