"""What workers, signer and scheduler would do to an audit's rows, for tests of what callers then see."""

from __future__ import annotations

import hashlib

from sqlalchemy import insert, update

from service.rules.states import AuditState
from service.store.audits import SealedReport, seal
from service.store.events import append_event
from service.store.listings import ReportFile
from service.store.tables import audit, result
from tests.service.api.conftest import House


def set_state(house: House, name: str, state: AuditState) -> None:
    """Put an audit into a state, with its event."""
    audit_id = name.removeprefix("audits/")
    with house.store.begin() as connection:
        connection.execute(update(audit).where(audit.c.id == audit_id).values(state=state))
        append_event(connection, audit_id, "state_changed", {"state": state, "reason": ""})


def phase(house: House, name: str, done: int) -> None:
    """Write one event of progress."""
    with house.store.begin() as connection:
        append_event(
            connection,
            name.removeprefix("audits/"),
            "phase_reached",
            {"phase": "sweep", "done": done, "owed": 9, "job": "whole"},
        )


def complete(house: House, name: str, files: dict[str, bytes]) -> ReportFile:
    """Sign a report of these files and complete the audit; return the first file."""
    audit_id = name.removeprefix("audits/")
    listed = []
    for path, data in files.items():
        digest = hashlib.sha256(data).hexdigest()
        house.blobs.put(data, digest)
        listed.append(ReportFile(path=path, sha256=digest, size=len(data)))
    set_state(house, name, AuditState.RUNNING)
    set_state(house, name, AuditState.SIGNING)
    with house.store.begin() as connection:
        connection.execute(insert(result).values(audit=audit_id, token=1, sha256="0" * 64, finalised_at=1))
        sealed = SealedReport(files=[vars(file) for file in listed], key_id="f" * 64)
        assert seal(connection, audit_id, 1, sealed)
    return listed[0]
