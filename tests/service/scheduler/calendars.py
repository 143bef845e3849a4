"""A house with one auditor, a model and a clock that a test turns, for schedules."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from assay.api.v1 import audits_pb2
from sqlalchemy import select, update

from service.blobs import BlobStore, MemoryBlobs
from service.rules.names import BlobName
from service.rules.schedules import ScheduleKey, Timing
from service.scheduler.fires import Fires
from service.store import fires, schedules
from service.store.engine import Store, open_store
from service.store.intake import Intake
from service.store.principals import put_principal
from service.store.schedules import ScheduleView, Wanted
from service.store.tables import audit
from service.store.uploads import grant
from tests.service.api.conftest import CATALOGUE, manifest_of

KEY = ScheduleKey("acme", "nightly")


def moment(text: str) -> int:
    """Milliseconds since 1970 of a UTC time."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def utc(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%m-%d %H:%M")


@dataclass
class Calendars:
    """One database file, the blobs, and what time it is."""

    folder: Path
    store: Store
    blobs: BlobStore
    now: int
    model: str = ""
    _stores: list[Store] = field(default_factory=list)

    def __post_init__(self) -> None:
        put_principal(self.url, "ada", tenant="acme", role="auditor")
        self.model = f"models/{self._plant()}"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder}/assay.db"

    def _plant(self) -> str:
        files = {"config.json": b"{}", "model.safetensors": b"weights"}
        sent = [*files.values(), manifest_of(files)]
        with self.store.begin() as connection:
            for data in sent:
                digest = hashlib.sha256(data).hexdigest()
                self.blobs.put(data, digest)
                grant(connection, "acme", BlobName(digest, len(data)))
        return hashlib.sha256(sent[-1]).hexdigest()

    def template(self, **changes: Any) -> bytes:
        fields = {"model": self.model, "checks": [{"check": "checks/weigh"}], **changes}
        return audits_pb2.Audit(**fields).SerializeToString()

    def make(self, cron: str, zone: str = "UTC", key: ScheduleKey = KEY, **more: Any) -> ScheduleView:
        """Make a schedule now."""
        template = more.pop("template", None) or self.template()
        timing = Timing(cron=cron, time_zone=zone, **more)
        with self.store.begin() as connection:
            return schedules.create(
                connection, key, Wanted(principal="ada", template=template, timing=timing), self.now
            )

    def scheduler(self, store: Store | None = None) -> Fires:
        """Start a scheduler's loop, as a restarted process would: it knows nothing."""
        house = store or self.store
        return Fires(house, self.intake(house), clock=lambda: self.now)

    def intake(self, store: Store | None = None) -> Intake:
        return Intake(store=store or self.store, blobs=self.blobs, catalogue=CATALOGUE)

    def another_process(self) -> Store:
        opened = open_store(self.url)
        self._stores.append(opened)
        return opened

    def run(self, loop: Fires, until: str, *, step_s: int = 20) -> None:
        """Turn the clock to a time, looking every so many seconds."""
        end = moment(until)
        while self.now < end:
            self.now = min(end, self.now + step_s * 1000)
            loop.step()

    def told(self, key: ScheduleKey = KEY) -> list[str]:
        """Fires, oldest first, e.g. "03-29 01:00 SUBMITTED"."""
        with self.store.read() as connection:
            found = fires.page(connection, key, None, 10_000)
        return [" ".join(filter(None, (utc(one.due_at), one.outcome, one.reason))) for one in reversed(found)]

    def audits(self) -> int:
        """How many audits there are; each must be the one of a fire."""
        with self.store.read() as connection:
            made = sorted(connection.execute(select(audit.c.id)).scalars())
            named = sorted(one.audit for one in fires.page(connection, KEY, None, 10_000) if one.audit)
        assert made == named
        return len(made)

    def end_audits(self, state: str = "COMPLETED") -> None:
        """Let everything that runs be over."""
        with self.store.begin() as connection:
            connection.execute(update(audit).values(state=state))

    def close(self) -> None:
        for one in (self.store, *self._stores):
            one.close()


@contextmanager
def calendars(folder: Path, at: str) -> Iterator[Calendars]:
    """Open the house over a migrated database in a folder."""
    made = Calendars(
        folder=folder, store=open_store(f"sqlite:///{folder}/assay.db"), blobs=MemoryBlobs(), now=moment(at)
    )
    try:
        yield made
    finally:
        made.close()
