"""SIGKILL between any two file operations, then a retry: one registration, one statement, one report."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from assay.tlog import entries, notes, tiles
from assay.tlog.watch import walk
from assay.verify import verify

from tests.service.signer.planting import World

EVENTS = ("open", "os.link", "os.rename", "os.remove", "os.mkdir")
"""Audit events of the interpreter that touch files; every step of the signer that lasts is one of them."""

DIED = 9
STEPS_MAX = 400

STRIDES = pytest.mark.parametrize(
    "stride", [11, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(1800)], id="every step")]
)


def die_at(step: int, home: Path, work: Callable[[], object]) -> bool:
    """Do the work in a child that dies before its step-th touch of the home; True if it died."""
    child = os.fork()
    if child == 0:
        touched = 0

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal touched
            if event in EVENTS and str(arguments[0]).startswith(str(home)):
                touched += 1
                if touched == step:
                    os._exit(DIED)

        try:
            sys.addaudithook(hook)
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, DIED)
    return code == DIED


def work(world: World, operation: Callable[[], object]) -> None:
    """Do an operation as a signer that has just started."""
    world.desk = world.open_desk()
    operation()


def kinds(world: World) -> list[str]:
    """Return what the log holds."""
    log = world.desk.home.log
    found = tiles.folder(log)
    head = notes.open_checkpoint(tiles.checkpoint(found), [world.desk.journal.vkey])
    return [entries.parse(one).kind for _, one in walk(tiles.TileTree(found, head.size), 0, head)]


@STRIDES
def test_killed_while_sealing_at_every_step(tmp_path: Path, stride: int) -> None:
    world = World(tmp_path)
    world.register()
    world.finish()
    home, before = tmp_path / "signer", tmp_path / "before"
    shutil.copytree(home, before)
    deaths = 0
    for step in range(1, STEPS_MAX, stride):
        shutil.rmtree(home)
        shutil.copytree(before, home)
        world.close()  # a log has one writer: the child opens it, and dies over it
        died = die_at(step, home, lambda: work(world, world.sealed))
        persisted = world.desk.home.statement(world.id)
        kept = persisted.read_bytes() if persisted.exists() else None
        world.now += timedelta(seconds=1)  # a retry comes later: composed anew, the bytes would differ
        world.desk = world.open_desk()
        sealed = world.sealed()
        assert kept is None or persisted.read_bytes() == kept
        seen = verify(
            Path(sealed["directory"]),
            keys=[world.desk.public_file],
            log_vkeys=[world.desk.journal.vkey.text],
            log_dir=world.desk.home.log,
            catalogue=world.desk.catalogue,
            now=world.now,
        )
        assert seen.outcome == "verified", seen.render_text()
        assert seen.step("V15").status == "ok"
        assert kinds(world) == ["request", "report"]
        if not died:
            break
        deaths += 1
    assert 20 // stride < deaths < (STEPS_MAX - 1) // stride


@STRIDES
def test_killed_while_registering_at_every_step(tmp_path: Path, stride: int) -> None:
    world = World(tmp_path)
    home, before = tmp_path / "signer", tmp_path / "before"
    shutil.copytree(home, before)
    deaths = 0
    for step in range(1, STEPS_MAX, stride):
        shutil.rmtree(home)
        shutil.copytree(before, home)
        world.close()
        died = die_at(step, home, lambda: work(world, lambda: world.ask(op="register")))
        world.desk = world.open_desk()
        written = world.desk.home.receipt(world.id)
        kept = written.read_bytes() if written.exists() else None
        first = world.ask(op="register")
        assert kept is None or written.read_bytes() == kept
        assert world.ask(op="register") == first
        assert kinds(world) == ["request"]
        if not died:
            break
        deaths += 1
    assert 3 // stride < deaths < (STEPS_MAX - 1) // stride


@STRIDES
def test_killed_while_voiding_at_every_step(tmp_path: Path, stride: int) -> None:
    world = World(tmp_path)
    world.register()
    world.set(state="CANCELLED")
    home, before = tmp_path / "signer", tmp_path / "before"
    shutil.copytree(home, before)
    deaths = 0
    for step in range(1, STEPS_MAX, stride):
        shutil.rmtree(home)
        shutil.copytree(before, home)
        world.close()
        died = die_at(step, home, lambda: work(world, lambda: world.ask(op="void", reason="CANCELLED")))
        world.desk = world.open_desk()
        world.ask(op="void", reason="CANCELLED")
        assert kinds(world) == ["request", "void"]
        if not died:
            break
        deaths += 1
    assert 3 // stride < deaths < (STEPS_MAX - 1) // stride
