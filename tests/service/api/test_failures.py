"""Which failures of the blob store a caller is told to try again, and which are incidents."""

from __future__ import annotations

import pytest

from service.api.failures import refusal_of
from service.blobs import BlobDamaged, BlobFault, BlobsAway, NoSpace
from service.rules.errors import REASONS
from tests.service.api.dynamic_words import untold


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


def test_a_number_a_quoted_word_and_a_name_are_missed_in_the_metadata() -> None:
    move = REASONS["TOO_MANY"].next_move
    message = f"'a b' has 17 of audits/0a1b, the limit is 1.5; {{32 hex}} is a form. {move}"
    assert untold("TOO_MANY", message, ["a b", "17", "audits/0a1b", "1.5"]) == []
    assert untold("TOO_MANY", message, ["a bc", "170", "11.5", "audits/0a1"]) == ["1.5", "17", "a b", "audits/0a1b"]
    assert untold("TOO_MANY", f"{message[:24]}...", ["a b", "17"]) == []  # cut within a word
