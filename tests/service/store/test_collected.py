"""What the collection of garbage destroys stands in the log of access."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sqlalchemy import update

from service.blobs import MemoryBlobs
from service.rules.names import BlobName
from service.store import gc
from service.store.access_log import rows
from service.store.engine import Store
from service.store.gc import Ages
from service.store.tables import model
from service.store.uploads import grant
from tests.service.store.planting import new_store

AT_ONCE = Ages(unreferenced_ms=-1, doomed_ms=-1, purge_ms=-1)
"""Everything is old enough a moment after it was made."""


def _logged(store: Store) -> list[tuple[str, str]]:
    return [(row.method, row.object) for row in rows(store)]


def test_weights_that_are_given_up_leave_a_row(store: Store) -> None:
    row = {"tenant": "acme", "bytes": 1, "files": 1, "created_at": 1, "deleted_at": 1}
    with store.begin() as connection:
        connection.execute(model.insert(), [{**row, "manifest_sha256": digit * 64} for digit in "ab"])
        connection.execute(update(model).where(model.c.manifest_sha256 == "b" * 64).values(deleted_at=None))
    assert gc.purge_models(store, -1) == 1
    assert _logged(store) == [("assay-server gc purge", f"models/{'a' * 64}")]


def test_each_blob_that_is_deleted_leaves_a_row(tmp_path: Path) -> None:
    store, blobs = new_store(tmp_path), MemoryBlobs()
    data = b"nobody needs this"
    digest = hashlib.sha256(data).hexdigest()
    blobs.put(data, digest)
    with store.begin() as connection:
        grant(connection, "acme", BlobName(digest, len(data)))
    gc.sweep(store, blobs, ages=AT_ONCE)
    assert gc.sweep(store, blobs, ages=AT_ONCE).deleted == 1
    assert _logged(store) == [("assay-server gc delete", f"blobs/sha256/{digest}/{len(data)}")]
    store.close()
