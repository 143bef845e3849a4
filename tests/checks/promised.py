"""Whether an answer is what its check's catalogue entry promises, as worker, signer and reader ask it."""

from __future__ import annotations

from assay.promise import check_promise, skipped_items, stray_item
from assay.result import Answer

from checks.catalogue import CATALOGUE, catalogue_json


def hold_to_promise(answer: Answer) -> None:
    """Fail unless the answer keeps its promise, and names nothing as skipped that it does not owe."""
    (entry,) = catalogue_json({answer.check: CATALOGUE[answer.check]})["checks"]
    told = answer.to_json()
    check_promise(told, entry)
    assert answer.measured is not None
    for label, owed in answer.measured.coverage.items():
        assert stray_item(skipped_items(told), label, owed) is None
