"""Which failures of the blob store a caller is told to try again, and which are incidents."""

from __future__ import annotations

import pytest

from service.api.failures import refusal_of
from service.blobs import BlobDamaged, BlobFault, BlobsAway, NoSpace


def test_a_blob_store_that_is_away_is_unavailable_and_no_incident() -> None:
    refusal = refusal_of(BlobsAway("the object store is away: PUT ended with status 503"), "Blobs.Write")
    assert (refusal.reason, refusal.code) == ("STORE_UNAVAILABLE", "UNAVAILABLE")
    assert refusal.retry_s
    assert "object store" not in refusal.message, "a tenant is told nothing of how bytes are kept"


@pytest.mark.parametrize(
    ("error", "reason"), [(NoSpace("x"), "DISK_FULL"), (BlobFault("x"), "INTERNAL"), (BlobDamaged("x"), "INTERNAL")]
)
def test_other_failures_stay_what_they_are(error: Exception, reason: str) -> None:
    assert refusal_of(error, "Blobs.Write").reason == reason
