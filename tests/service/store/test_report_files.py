"""Files of signed reports are found by their digests, not by reading every report that there is."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import text

from service.rules.access import Reach, Scope
from service.rules.names import BlobName
from service.store.audits import SealedReport, seal
from service.store.engine import Store, open_store
from service.store.listings import is_report_file
from service.store.migrations import migrate
from tests.service.store.planting import finished, leased, registered
from tests.service.store.test_migrations import audit_row, migrated_to

SHA, OTHER = "cd" * 32, "ef" * 32
OWN, FOREIGN = Scope(reach=Reach.OWN, tenant="t"), Scope(reach=Reach.OWN, tenant="u")
FILES = [
    {"path": "report.sigstore.json", "sha256": SHA, "size": 5},
    {"path": "artefacts/same", "sha256": SHA, "size": 5},
    {"path": f"artefacts/{OTHER}", "sha256": OTHER, "size": 6},
]


@pytest.mark.parametrize(
    ("scope", "name", "readable"),
    [
        (OWN, BlobName(SHA, 5), True),
        (OWN, BlobName(OTHER, 6), True),
        (OWN, BlobName(SHA, 6), False),
        (OWN, BlobName("ab" * 32, 5), False),
        (FOREIGN, BlobName(SHA, 5), False),
    ],
)
def test_a_file_of_a_report_is_read_by_who_sees_its_audit(
    sealed: Store, scope: Scope, name: BlobName, readable: bool
) -> None:
    with sealed.read() as connection:
        assert is_report_file(connection, scope, name) is readable


@pytest.fixture
def sealed(store: Store) -> Store:
    held = leased(store, registered(store))
    finished(store, held)
    with store.begin() as connection:
        assert seal(connection, held.audit, held.token, SealedReport(files=FILES, key_id="k"))
    return store


def test_a_read_looks_one_digest_up_and_scans_no_reports(sqlite: Store) -> None:
    asked = []

    with sqlite.read() as connection:
        real = connection.execute

        def execute(statement: object, *more: object) -> object:
            asked.append(statement)
            return real(statement, *more)  # type: ignore[call-overload]

        connection.execute = execute  # type: ignore[method-assign, assignment]
        assert not is_report_file(connection, OWN, BlobName(SHA, 5))
        (statement,) = asked
        told = statement.compile(connection.engine, compile_kwargs={"literal_binds": True})  # type: ignore[attr-defined]
        plan = str(real(text(f"EXPLAIN QUERY PLAN {told}")).all())
    assert "SEARCH report_file USING" in plan
    assert "SCAN" not in plan


def test_files_of_reports_that_are_older_than_their_table_are_found(url: str) -> None:
    store = open_store(url)
    with migrated_to(url, "0004"), store.begin() as connection:
        key = audit_row(connection)
        told = {"key": key, "files": json.dumps(FILES)}
        connection.execute(
            text("INSERT INTO report (audit, n, files_json, key_id, signed_at) VALUES (:key, 1, :files, 'k', 1)"), told
        )
    migrate(url)
    with store.read() as connection:
        assert is_report_file(connection, OWN, BlobName(SHA, 5))
        assert is_report_file(connection, OWN, BlobName(OTHER, 6))
        assert not is_report_file(connection, FOREIGN, BlobName(OTHER, 6))
    store.close()
