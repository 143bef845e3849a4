"""What may be submitted of a check that reads its data in shards."""

from __future__ import annotations

import json
from typing import Any

import pytest
from assay import canonical, catalogue, media
from assay.api.v1 import audits_pb2
from assay.catalogue import Catalogue, CheckEntry

from service.rules.errors import Refusal
from service.rules.roles import FILES_MAX
from service.rules.submission import read_submission
from service.store.shards import combine_id, shard_id

CORPUS = {"name": "corpus", "required": False, "media_type": media.CORPUS, "summary": "", "many": True}


def entry(name: str, **changes: Any) -> CheckEntry:
    built_in = catalogue.load().entry("clusterability")
    assert built_in is not None
    raw = json.loads(canonical.dumps(dict(built_in.raw)))
    return catalogue.parse_entry(raw | {"name": name, "data_roles": [CORPUS], "shard_role": "corpus"} | changes)


ONCE = entry("once", data_roles=[{**CORPUS, "many": False}], shard_role=None)
OFFERED = Catalogue((*catalogue.load().checks, entry("first"), entry("second"), ONCE), "0" * 64)


def asked(*checks: str, files: int = 1, size: int = 5, media_type: str = "", same: bool = False) -> audits_pb2.Audit:
    audit = audits_pb2.Audit(model="models/" + "a" * 64, nonce=b"n" * 32)
    for name in checks:
        audit.checks.add(check=f"checks/{name}")
    for number in range(files):
        one = audit.data.add(role="corpus", media_type=media_type)
        one.blob.sha256, one.blob.size = f"{0 if same else number:064x}", size
    return audit


def why(audit: audits_pb2.Audit) -> str:
    with pytest.raises(Refusal) as caught:
        read_submission(audit, OFFERED)
    return " | ".join(one.description for one in caught.value.violations)


def test_a_corpus_comes_in_many_files_whose_order_is_kept() -> None:
    read = read_submission(asked("first", files=FILES_MAX), OFFERED)
    assert [one.blob.sha256 for one in read.data] == [f"{number:064x}" for number in range(FILES_MAX)]
    assert {one.media_type for one in read.data} == {media.CORPUS}


def test_equal_files_stay_two() -> None:
    read = read_submission(asked("first", files=2, same=True), OFFERED)
    assert len(read.data) == 2
    assert len(json.loads(read.request_json("0" * 32, "2026-01-01T00:00:00Z"))["data"]) == 2


def test_too_many_files_are_refused() -> None:
    assert f"more than {FILES_MAX} files" in why(asked("first", files=FILES_MAX + 1))


def test_any_other_role_is_sent_once() -> None:
    assert "is sent twice" in why(asked("once", files=2))


@pytest.mark.parametrize("checks", [("first", "second"), ("first", "first")])
def test_two_checks_in_shards_are_refused_by_name(checks: tuple[str, str]) -> None:
    assert f"{checks[0]} and {checks[1]} read their data in shards" in why(asked(*checks))


def test_a_role_that_one_check_reads_in_many_files_and_another_in_one_is_refused() -> None:
    assert "in many files" in why(asked("first", "once"))


def test_a_corpus_file_may_be_large_but_not_without_end() -> None:
    assert read_submission(asked("first", size=60 * 2**30), OFFERED).data[0].blob.size == 60 * 2**30
    assert "takes at most" in why(asked("first", size=64 * 2**30))
    assert "takes application/vnd.assay.corpus" in why(asked("first", media_type=media.ROWS))


def test_ids_of_jobs_fit_their_column() -> None:
    assert len(shard_id("f" * 32, 511)) <= 40
    assert len({shard_id("f" * 32, n) for n in range(512)} | {combine_id("f" * 32), "f" * 32}) == 514
