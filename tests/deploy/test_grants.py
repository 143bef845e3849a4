"""What each role may do in PostgreSQL: the file that an operator runs, held against what must never be allowed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from service.main import config
from service.store import tables, tables_around  # noqa: F401 - imported, so that the metadata knows every table
from service.store.schema import metadata
from tests.service.store import postgres

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
FILE = DEPLOY / "postgres" / "grants.sql"
ROLES = ("api", "scheduler", "worker", "signer")


def statements() -> list[str]:
    plain = re.sub(r"--.*", "", FILE.read_text(encoding="utf-8"))
    return [one.strip() for one in plain.split(";") if one.strip()]


def test_no_table_is_forgotten() -> None:
    told = " ".join(statements())
    assert {name for name in metadata.tables if not re.search(rf"\b{name}\b", told)} == set()


@pytest.mark.parametrize("path", sorted((DEPLOY / "kubernetes" / "example").glob("*.toml")), ids=lambda path: path.stem)
def test_database_is_reached_over_verified_tls_alone(path: Path) -> None:
    asked = parse_qs(urlsplit(config.load(path).database_url).query)
    assert asked["sslmode"] == ["verify-full"]
    assert asked["sslrootcert"] == ["/etc/assay/database-ca.pem"]


@pytest.fixture
def granted() -> Iterator[Connection]:
    """A connection of the owner, after the file was run twice, as after an upgrade."""
    found = postgres.server()
    if found is None:
        pytest.skip(postgres.WITHOUT)
    url = found.migrated()
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        known = set(connection.execute(text("SELECT rolname FROM pg_roles")).scalars())
        for role in {f"assay_{role}" for role in ROLES} - known:
            connection.execute(text(f"CREATE ROLE {role} LOGIN"))
        for _ in range(2):
            for one in statements():
                connection.execute(text(one))
        yield connection
    found.drop(url)


@pytest.mark.slow
def test_nobody_below_the_owner_rewrites_who_may_act_or_what_was_done(granted: Connection) -> None:
    decided = ("approval_key", "principal", "revoked_certificate")
    for role in ROLES:
        for table in ("access_log", "journal", "event", *decided, "alembic_version"):
            for right in ("UPDATE", "DELETE", "TRUNCATE"):
                assert not _may(granted, role, table, right), f"{role} may {right} {table}"
        for table in decided:
            assert not _may(granted, role, table, "INSERT"), f"{role} may INSERT {table}"
    for table in metadata.tables:
        for right in ("INSERT", "UPDATE", "DELETE"):
            assert not _may(granted, "signer", table, right), f"the signer may {right} {table}"


@pytest.mark.slow
def test_worker_makes_no_audit_no_report_and_reads_no_secret(granted: Connection) -> None:
    for table in ("audit", "report", "approval", "approval_use", "model", "blob_grant", "webhook", "idempotency"):
        assert not _may(granted, "worker", table, "INSERT"), f"a worker may INSERT {table}"
    assert not any(_may(granted, "worker", table, "DELETE") for table in metadata.tables)
    asked = "SELECT has_column_privilege('assay_worker', 'webhook', :column, 'SELECT')"
    readable = {
        one.name
        for one in metadata.tables["webhook"].columns
        if granted.execute(text(asked), {"column": one.name}).scalar()
    }
    assert readable == {"tenant", "id", "types_json", "role", "disabled_at"}
    assert not _may(granted, "worker", "principal", "SELECT")


def _may(connection: Connection, role: str, table: str, right: str) -> bool:
    asked = text("SELECT has_table_privilege(:role, :table, :right)")
    return bool(connection.execute(asked, {"role": f"assay_{role}", "table": table, "right": right}).scalar_one())
