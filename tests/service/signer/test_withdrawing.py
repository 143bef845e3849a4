"""A report that an operator takes back is taken back once, in the log, and a reader with a copy of the log sees it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from assay.tlog import entries, proofs
from assay.tlog.entries import Entry
from assay.verify import verify
from assay.verify.outcome import Verification

from service.signer.refusal import Refused
from tests.service.signer.planting import World
from tests.service.signer.test_killed import STEPS_MAX, STRIDES, die_at, kinds, work


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.register()
    made.finish()
    return made


def withdrawn(world: World) -> Entry:
    found = world.desk.home.read(world.desk.home.taken_back(world.id))
    assert found is not None
    return entries.parse(proofs.read_proof(found).entry)


def looked(world: World, log: Path | None) -> Verification:
    return verify(
        world.desk.home.report(world.id),
        keys=[world.desk.public_file],
        log_vkeys=[world.desk.journal.vkey.text],
        log_dir=log,
        catalogue=world.desk.catalogue,
        now=world.now,
    )


def test_what_was_never_sealed_cannot_be_withdrawn(world: World) -> None:
    with pytest.raises(Refused) as refused:
        world.ask(op="withdraw", reason="wrong_model")
    assert refused.value.code == "NOT_SEALED"
    assert kinds(world) == ["request"]


def test_a_withdrawn_report_verifies_no_more_for_who_reads_the_log(world: World) -> None:
    world.sealed()
    world.set(state="COMPLETED")
    assert looked(world, world.desk.home.log).outcome == "verified"
    assert world.ask(op="withdraw", reason="wrong_model") == {}
    seen = looked(world, world.desk.home.log)
    assert (seen.outcome, seen.step("V15").status) == ("wrong", "wrong")
    assert "wrong_model" in seen.render_text()
    without = looked(world, None)
    assert without.outcome == "verified"
    assert "withdrawals would not be seen" in without.render_text()


def test_a_withdrawal_is_logged_once_with_the_reason_that_came_first(world: World) -> None:
    world.sealed()
    world.ask(op="withdraw", reason="wrong_model")
    world.ask(op="withdraw", reason="typo")
    world.desk.home.taken_back(world.id).unlink()  # killed between the leaf and the note of it
    world.ask(op="withdraw", reason="typo")
    assert kinds(world) == ["request", "report", "withdrawal"]
    entry = withdrawn(world)
    assert (entry.reason, entry.prev) == ("wrong_model", 1)


def test_a_withdrawn_report_is_still_handed_over(world: World) -> None:
    first = world.sealed()
    world.ask(op="withdraw", reason="wrong_model")
    assert world.sealed() == first


@STRIDES
def test_killed_while_withdrawing_at_every_step(tmp_path: Path, stride: int) -> None:
    world = World(tmp_path)
    world.register()
    world.finish()
    world.sealed()
    home, before = tmp_path / "signer", tmp_path / "before"
    shutil.copytree(home, before)
    deaths = 0
    for step in range(1, STEPS_MAX, stride):
        shutil.rmtree(home)
        shutil.copytree(before, home)
        world.close()
        died = die_at(step, home, lambda: work(world, lambda: world.ask(op="withdraw", reason="wrong_model")))
        world.desk = world.open_desk()
        world.ask(op="withdraw", reason="wrong_model")
        assert kinds(world) == ["request", "report", "withdrawal"]
        if not died:
            break
        deaths += 1
    assert 3 // stride < deaths < (STEPS_MAX - 1) // stride
