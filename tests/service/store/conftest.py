from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.store.engine import Store, open_store
from tests.service.store import postgres
from tests.service.store.planting import new_store

KINDS = ("sqlite", "postgresql")
"""Every contract of the store holds on both."""

ALWAYS = ("test_jobs.py", "test_shards.py")
"""Files whose tests run on PostgreSQL by default too, where it is installed: leases, fences, endings, debts and joins,
which rest on its locks. The others do so as slow tests: a database for each takes a third of a second."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests on PostgreSQL slow before anything is chosen by marks."""
    for item in items:
        here = item.path.parent == Path(__file__).parent and item.path.name not in ALWAYS
        parameters = item.callspec.params if here and hasattr(item, "callspec") else {}
        if "postgresql" in (parameters.get("store"), parameters.get("url")):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A database of this release's revision without a row in it, on every kind."""
    if request.param == "sqlite":
        opened = new_store(tmp_path)
    else:
        found = postgres.server()
        if found is None:
            pytest.skip(postgres.WITHOUT)
        opened = open_store(found.emptied())
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
