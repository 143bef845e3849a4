from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import insert

from service.store import submissions
from service.store.tables import model
from tests.service.store.planting import new_store

SMALL, LARGE = "11" * 32, "22" * 32


@pytest.mark.parametrize(
    ("capability", "models", "queue"),
    [
        ("cpu", (LARGE,), "cpu"),
        ("gpu", (SMALL,), "gpu-24g"),
        ("gpu", (LARGE,), "gpu-80g"),
        ("gpu", (SMALL, LARGE), "gpu-80g"),
        ("gpu-80g", (SMALL,), "gpu-80g"),
    ],
)
def test_a_job_waits_in_the_queue_that_its_models_fit(
    tmp_path: Path, capability: str, models: tuple[str, ...], queue: str
) -> None:
    store = new_store(tmp_path)
    with store.begin() as connection:
        for tenant in ("a", "b"):  # the same model in two tenants is loaded once
            for digest, size in ((SMALL, 6 * 10**9), (LARGE, 20 * 10**9)):
                row = {"tenant": tenant, "manifest_sha256": digest, "bytes": size, "files": 1, "created_at": 0}
                connection.execute(insert(model).values(row))
        asked = SimpleNamespace(capability=capability, models=models)
        assert submissions._queue(connection, asked) == queue  # type: ignore[arg-type]
    store.close()
