from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.store.engine import Store, open_store
from tests.service.store import postgres
from tests.service.store.planting import new_store

KINDS = ("sqlite", pytest.param("postgresql", marks=pytest.mark.slow))
"""Every contract of the store holds on both. A run of the default tests takes PostgreSQL through `test_model`."""


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A database of this release's revision, on every kind."""
    opened = new_store(tmp_path) if request.param == "sqlite" else open_store(request.getfixturevalue("postgres_url"))
    yield opened
    opened.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Store]:
    """A database of this release's revision, for what SQLite alone has."""
    opened = new_store(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """Address of a fresh PostgreSQL database of this release's revision."""
    found = postgres.server()
    if found is None:
        pytest.skip(postgres.WITHOUT)
    url = found.migrated()
    yield url
    found.drop(url)


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Address of an empty database, on every kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/assay.db"
        return
    found = postgres.server()
    if found is None:
        pytest.skip(postgres.WITHOUT)
    made = found.create()
    yield made
    found.drop(made)
