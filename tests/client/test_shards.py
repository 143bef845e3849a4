"""Data that is read in shards, as a client sees it: the catalogue's words, a corpus file, a report of many jobs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from assay import media
from assay.catalogue import parse_entry
from assay.cli.progress import event_text
from assay.client_errors import LocalInputRefused
from assay.errors import Malformed
from assay.preflight import check_data
from assay.remote.values import Event
from assay.testing import Forge, forged_entry
from assay.verify import verify

CORPUS = {"name": "corpus", "required": False, "media_type": media.CORPUS, "summary": "Documents.", "many": True}


def entry(**changes: Any) -> dict[str, Any]:
    raw = copy.deepcopy(dict(forged_entry().raw))
    raw["data_roles"] = [*raw["data_roles"], CORPUS]
    return raw | {"shard_role": "corpus"} | changes


def test_an_entry_names_the_role_that_is_read_in_shards() -> None:
    assert parse_entry(entry()).shard_role == "corpus"
    assert forged_entry().shard_role is None


@pytest.mark.parametrize(
    ("changes", "at"),
    [
        ({"shard_role": "other"}, "/shard_role"),
        ({"shard_role": 1}, "/shard_role"),
        ({"shard_role": None}, "/shard_role"),  # a role of many files that nobody reads in shards
        ({"data_roles": []}, "/shard_role"),
        ({"data_roles": [CORPUS, {**CORPUS, "name": "second"}]}, "/shard_role"),
        ({"data_roles": [{**CORPUS, "many": 1}]}, "/data_roles"),
        ({"beside": "organisms/*.py"}, "/beside"),
        ({"beside": ["../service/*.py"]}, "/beside"),
        ({"beside": ["/etc/passwd"]}, "/beside"),
        ({"beside": ["a//b"]}, "/beside"),
    ],
)
def test_an_entry_of_another_form_is_refused(changes: dict[str, Any], at: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse_entry(entry(**changes))
    assert caught.value.at == at


@pytest.mark.parametrize(
    "content", [b'{"text": "a"}\n', b"PAR1 and more", b"\x1f\x8b\x08 gzip", b"\x28\xb5\x2f\xfd zstd"]
)
def test_a_corpus_is_bytes_to_all_but_its_check(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "part.parquet"
    path.write_bytes(content)
    told = check_data("corpus", path, media.CORPUS)
    assert (told.media_type, told.rows) == (media.CORPUS, 0)


def test_an_empty_corpus_file_and_a_pickle_are_refused(tmp_path: Path) -> None:
    for name, content in (("empty.jsonl", b""), ("part.pkl", b"x"), ("part.jsonl", b"\x80\x04]\x94.")):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(LocalInputRefused, match=name):
            check_data("corpus", path, media.CORPUS)


def test_a_corpus_file_has_a_cap_of_its_own() -> None:
    assert media.cap_of(media.CORPUS) == 64 * 2**30 - 1


def told(kind: str, **detail: Any) -> str | None:
    return event_text(Event(sequence=1, occurred_at=None, kind=kind, detail=detail))


def test_a_watcher_is_told_how_many_shards_are_done() -> None:
    assert told("planned", plan_sha256="ab", shards=8) == "planned: 8 shards, plan sha256:ab"
    assert told("shard_done", shard=5, done=3, of=8) == "shard 3 of 8 done"
    assert told("shard_dead", shard=5, dead=1, of=8) == "shard:5 is dead, 1 of 8"
    assert told("phase_reached", phase="sweep", done=1, owed=4, job="shard:5") == "shard:5 sweep 1/4"
    assert told("phase_reached", phase="sweep", done=1, owed=4, job="whole") == "sweep 1/4"
    assert told("phase_reached", phase="sweep", done=1, owed=4) == "sweep 1/4"  # a service of before


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Forge:
    return Forge(tmp_path_factory.mktemp("forge"))


Jobs = list[tuple[str, int, bool]]
HONEST: Jobs = [
    ("whole", 1, True), ("shard:1", 1, False), ("shard:0", 1, True), ("shard:1", 2, True), ("combine", 1, True)
]  # fmt: skip


def steps(forge: Forge, jobs: Jobs) -> list[tuple[str, str]]:
    attempts = [
        {**forge.attempt(n, "OK" if result else "WORKER_LOST", result=result), "job": job} for job, n, result in jobs
    ]
    seen = verify(forge.report(attempts=attempts), keys=[forge.key_file], model_dir=forge.model_dir)
    return [(step.id, step.status) for step in seen.steps if step.status in ("wrong", "could_not_tell")]


def test_a_report_of_many_jobs_verifies_a_dead_shard_too(forge: Forge) -> None:
    assert steps(forge, HONEST) == []
    dead = [one for one in HONEST if one[:2] != ("shard:1", 2)]
    assert steps(forge, dead) == []


@pytest.mark.parametrize(
    "jobs",
    [
        HONEST[1:],  # no plan
        HONEST[:-1],  # nothing joined
        [HONEST[0], HONEST[2], HONEST[4]],  # one shard alone
        [one for one in HONEST if one[0] != "shard:0"],  # a shard is missing
        [HONEST[1], HONEST[0], *HONEST[2:]],  # a shard before the plan
        [*HONEST[:3], HONEST[4], HONEST[3]],  # a shard after its parts were joined
        [("whole", 1, False), *HONEST[1:]],  # no attempt has made the plan
        [*HONEST[:2], ("shard:0", 1, True), ("shard:0", 2, True), *HONEST[3:]],  # one shard has two parts
        [*HONEST[:-1], ("combine", 1, False)],  # nothing decided
        [("whole", 1, True), ("other", 1, True)],
    ],
)
def test_jobs_that_are_no_audit_are_wrong(forge: Forge, jobs: Jobs) -> None:
    assert ("V10", "wrong") in steps(forge, jobs)
