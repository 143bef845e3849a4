"""Jobs of an audit in shards before the signer: what does not add up is refused, and so is what no wall stood round."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.signer.refusal import Refused
from service.signer.rows import AttemptRow
from service.signer.staged import NO_SCANS, check_jobs, numbered
from tests.service.worker.scripted import SEAL

SHA = "ab" * 32
Told = tuple[str, bool]
HONEST: list[Told] = [
    ("whole", False), ("whole", True), ("shard:2", True), ("shard:0", False), ("shard:1", True), ("shard:0", True),
    ("combine", True),
]  # fmt: skip


def cells(job: str) -> list[dict[str, Any]]:
    stages = {"whole": ["ingest", "check"], "combine": ["ingest", "check"]}.get(job, ["check"])
    return [{**SEAL.to_json(), "stage": stage, "usage": {"wall_s": 1}} for stage in stages]


def rows(told: list[Told], **seals: Any) -> list[AttemptRow]:
    return [
        AttemptRow(
            n=n,
            job=job,
            token=n,
            started_at=n,
            ended_at=n,
            exit_class="OK" if result else "WORKER_LOST",
            result_sha256=SHA if result else None,
            cells_json=json.dumps(seals.get(job.replace(":", ""), cells(job))),
        )
        for n, (job, result) in enumerate(told, start=1)
    ]


def check(told: list[Told], *, planned: bool = True, profile: str = "development", **seals: Any) -> Any:
    return check_jobs(rows(told, **seals), profile, base=False, planned=planned)


def test_seals_of_what_decided_are_told_by_their_attempt() -> None:
    found = check(HONEST)
    assert {n: [cell.stage for cell in seen] for n, seen in found.cells.items()} == {
        2: ["ingest", "check"], 3: ["check"], 5: ["check"], 6: ["check"]
    }  # fmt: skip
    assert found.dead == ()
    assert check([one if one[0] != "shard:1" else ("shard:1", False) for one in HONEST]).dead == (1,)


def test_one_job_has_nothing_to_tell() -> None:
    assert check([("whole", False), ("whole", True)], planned=False) is NO_SCANS


def test_a_report_numbers_attempts_within_their_job() -> None:
    assert numbered(job for job, _ in HONEST) == [1, 2, 1, 1, 1, 2, 1]


@pytest.mark.parametrize(
    "told",
    [
        HONEST[2:],
        HONEST[:-1],
        [HONEST[1], HONEST[2], HONEST[-1]],
        [one for one in HONEST if one[0] != "shard:1"],
        [HONEST[2], *HONEST[:2], *HONEST[3:]],
        [*HONEST[:-1], ("combine", True), ("shard:1", True)],
        [("whole", True), ("shard:0", True), ("whole", True), ("shard:1", True), ("combine", True)],
        [("whole", True), ("shard:0", True), ("shard:0", True), ("shard:1", True), ("combine", True)],
        [("whole", False), ("shard:0", True), ("shard:1", True), ("combine", True)],
        [("whole", True), ("shard:00", True), ("shard:1", True), ("combine", True)],
    ],
)
def test_jobs_out_of_order_are_refused(told: list[Told]) -> None:
    with pytest.raises(Refused) as caught:
        check(told)
    assert caught.value.code == "RECORD_REJECTED"


def test_shards_that_no_check_asked_for_are_refused() -> None:
    with pytest.raises(Refused):
        check(HONEST, planned=False)


def test_a_production_key_signs_no_part_that_an_open_process_left() -> None:
    with pytest.raises(Refused) as caught:
        check(HONEST, profile="production")
    assert caught.value.code == "BACKEND_REFUSED"


@pytest.mark.parametrize("seals", [[], [{}], "text", [{"stage": "check"}]])
def test_a_part_without_a_seal_is_refused(seals: Any) -> None:
    with pytest.raises(Refused) as caught:
        check(HONEST, shard1=seals)
    assert caught.value.code == "RECORD_REJECTED"


def test_a_scan_in_more_than_one_cell_is_refused() -> None:
    """Of isolated cells the stages are held against what such an attempt runs."""
    isolated = [{**one, "backend": "bubblewrap"} for one in cells("whole")]
    with pytest.raises(Refused) as caught:
        check(HONEST, shard1=isolated)
    assert "runs no cells" in str(caught.value)
