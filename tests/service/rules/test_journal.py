"""The journal's checker: thirty planted flaws are each flagged by exactly their rule, legal journals never."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import Any

import pytest

from service.rules.consistency import Checker
from service.rules.journal import KINDS, Entry, JournalMalformed, Violation, check_detail, read_line
from tests.service.plants.further import FURTHER
from tests.service.plants.journals import PLANTS, RULES, Plant, broken
from tests.service.plants.lives import Planted, legal


def violations(planted: Planted, *, live: bool = False, lifted: bool = False) -> list[Violation]:
    checker = Checker(stored=planted.stored, lifted=lifted)
    found = [one for entry in planted.entries for one in checker.feed(entry)]
    return [*found, *checker.close(live=live)]


ALL = (*PLANTS, *FURTHER)


@pytest.mark.parametrize("plant", ALL, ids=[f"{one.rule}-{one.flaw.replace(' ', '_')}" for one in ALL])
def test_each_planted_flaw_is_flagged_by_exactly_its_rule(plant: Plant) -> None:
    for seed in range(5):
        found = violations(broken(plant, seed))
        assert {one.rule for one in found} == {plant.rule}, (seed, found)
        assert len({one.audit for one in found}) == 1


def test_a_request_id_that_is_drawn_again_after_the_service_forgot_it_is_no_violation() -> None:
    """Seven days after the audit gc forgets the request; a day earlier the same two entries are two audits of one."""
    told = {"request_id": "r", "principal": "p", "attempts_max": 8}
    for days, rules in ((6, {"J1"}), (7, set())):
        checker = Checker()
        entries = [
            Entry(seq=n, audit=f"{n:032x}", sequence=1, kind="submitted", at=(n - 1) * days * 86_400_000, detail=told)
            for n in (1, 2)
        ]
        assert {one.rule for entry in entries for one in checker.feed(entry)} == rules


def test_two_flaws_are_planted_for_every_rule() -> None:
    assert Counter(plant.rule for plant in PLANTS) == RULES
    assert len({plant.flaw for plant in PLANTS}) == 30


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_legal_journals_are_not_flagged(count: int) -> None:
    kinds: Counter[str] = Counter()
    for seed in range(count):
        planted = legal(seed)
        assert violations(planted) == [], seed
        kinds.update(entry.kind for entry in planted.entries)
    assert set(kinds) == set(KINDS), "some kind of entry never occurred"


def test_what_is_owed_while_the_service_runs_is_no_violation() -> None:
    owed = [
        plant for plant in PLANTS if plant.flaw in ("a void leaf is missing", "an event is neither delivered nor dead")
    ]
    for plant in owed:
        assert violations(broken(plant, 1), live=True) == []
    missing = next(plant for plant in PLANTS if plant.flaw == "completed without a result")
    assert violations(broken(missing, 1), live=True)


def test_lifted_caps_leave_out_the_caps_alone() -> None:
    for plant in PLANTS:
        found = {one.rule for one in violations(broken(plant, 2), lifted=True)}
        assert found == (set() if plant.rule == "J8" else {plant.rule})


def test_memory_is_bounded_by_the_audits_that_live() -> None:
    """What is remembered of an audit that has ended does not grow with its jobs."""
    checker = Checker()
    for seed in range(30):
        for entry in legal(seed).entries:
            checker.feed(entry)
    assert all(not life.jobs and not life.over for life in checker._lives.values() if life.ended and life.leaves)


def test_an_export_reads_back_as_it_was() -> None:
    planted = legal(3)
    assert [read_line(line) for line in planted.lines.splitlines()] == planted.entries


def line(**values: Any) -> bytes:
    whole = json.loads(Entry(seq=1, kind="leased").line())
    return json.dumps(whole | values).encode()


BAD = {
    "not JSON": b"{",
    "exactly the fields": b"[]",
    "whole number": line(seq=-1),
    "audit is no name": line(audit="x"),
    "job is no name": line(job="../etc"),
    "is unknown": line(kind="x"),
    "too few": line(kind="ended"),
    "another type": line(kind="leaf", detail={"leaf": "maple"}),
    "a line of": b"x" * 70_000,
}


@pytest.mark.parametrize("why", BAD)
def test_a_line_that_is_no_entry_is_refused_and_says_why(why: str) -> None:
    with pytest.raises(JournalMalformed, match=why):
        read_line(BAD[why])


def test_an_entry_with_a_strange_detail_is_never_written() -> None:
    for kind, detail in (
        ("leased", {"note": "x"}),
        ("ended", {"class": 3}),
        ("nothing", {}),
        ("sealed", {"files": ["x"]}),
    ):
        with pytest.raises(JournalMalformed):
            check_detail(kind, detail)


def test_digests_are_of_the_stored_bytes() -> None:
    planted = legal(5)
    assert all(hashlib.sha256(content).hexdigest() == digest for digest, content in planted.blobs.items())
    assert json.loads(Entry(seq=1, kind="leased").line())["kind"] == "leased"
