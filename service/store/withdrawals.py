"""Reports that an operator takes back: local administration. The log says so to every reader, for ever."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from service.store.access_log import append_local
from service.store.engine import now_ms, open_store
from service.store.outbox import owe
from service.store.tables import report


class CannotWithdraw(Exception):
    """There is no such report, or it was taken back before for another reason; the message says which."""


def withdraw(url: str, audit_id: str, reason: str) -> bool:
    """Owe the log the withdrawal of an audit's report.

    Args:
        url: the database.
        audit_id: whose report.
        reason: a word, as the log will have it.

    Returns:
        False if it was asked before for the same reason: then nothing new is owed.

    Raises:
        CannotWithdraw: there is no signed report, or it was withdrawn for another reason.
    """
    store = open_store(url)
    try:
        with store.begin() as connection:
            # The row is locked by the change itself, so that of two operators one is first.
            first = connection.execute(
                update(report)
                .where(report.c.audit == audit_id, report.c.withdrawal_reason.is_(None))
                .values(withdrawal_reason=reason)
            ).rowcount
            if first:
                owe(connection, "withdraw", audit_id)
                append_local(connection, "withdraw", f"audits/{audit_id}")
                return True
            found = connection.execute(select(report.c.withdrawal_reason).where(report.c.audit == audit_id)).scalar()
            if found is None:
                raise CannotWithdraw(f"audit {audit_id} has no signed report; there is nothing to withdraw")
            if found != reason:
                raise CannotWithdraw(f"the report of audit {audit_id} was withdrawn before, reason {found}; that stays")
            return False
    finally:
        store.close()


def reason_of(connection: Connection, audit_id: str) -> str:
    """Return why the report of an audit is taken back; a debt of it is written with the reason, or not at all."""
    return (
        connection.execute(select(report.c.withdrawal_reason).where(report.c.audit == audit_id)).scalars().first() or ""
    )


def note(connection: Connection, audit_id: str) -> None:
    """Note that the log has it; the first time counts."""
    connection.execute(
        update(report)
        .where(report.c.audit == audit_id, report.c.withdrawn_at.is_(None))
        .values(withdrawn_at=now_ms(connection))
    )
