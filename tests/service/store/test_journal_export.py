"""An export of the journal while writers write: all of a transaction, or nothing of it."""

from __future__ import annotations

from service.store import journal
from service.store.engine import Store
from tests.service.store.planting import submit


def test_an_export_has_no_half_of_what_commits_while_it_is_read(store: Store) -> None:
    """One transaction draws its number first and commits last: it is not found between pages of a later number."""
    with store.begin() as connection:
        early, late = submit(connection, 0), submit(connection, 1)
    if store.dialect == "sqlite":  # one writer: nobody draws a number beside another
        with store.begin() as connection:
            journal.append(connection, "published", audit=late)
        found = journal.entries(store, page=1)
        first = next(found)
        with store.begin() as connection:
            journal.append(connection, "published", audit=early)
        assert [first.kind, *(one.kind for one in found)] == ["submitted", "submitted", "published"]
        return
    with store.begin() as slow:
        journal.append(slow, "published", audit=early)
        with store.begin() as quick:
            journal.append(quick, "published", audit=late)
        found = journal.entries(store, page=1)
        seen = [next(found)]
        journal.append(slow, "leased", audit=early, job=early, token=1)
    seen += found
    assert [(one.audit, one.kind) for one in seen] == [
        (early, "submitted"),
        (late, "submitted"),
        (late, "published"),
    ]
    assert [one.kind for one in journal.entries(store, page=1) if one.audit == early] == [
        "submitted",
        "published",
        "leased",
    ]
