"""SIGKILL between any two file operations, then a retry: one registration, one statement, one report."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from assay.verify import verify

from tests.service.signer.planting import World

EVENTS = ("open", "os.link", "os.rename", "os.remove", "os.mkdir")
"""Audit events of the interpreter that touch files; every step of the signer that lasts is one of them."""

DIED = 9
STEPS_MAX = 400


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


def test_killed_while_sealing_at_every_step(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.register()
    world.finish()
    home, before = tmp_path / "signer", tmp_path / "before"
    shutil.copytree(home, before)
    deaths = 0
    for step in range(1, STEPS_MAX):
        shutil.rmtree(home)
        shutil.copytree(before, home)
        died = die_at(step, home, world.sealed)
        persisted = world.desk.home.statement(world.id)
        kept = persisted.read_bytes() if persisted.exists() else None
        world.now += timedelta(seconds=1)  # a retry comes later: composed anew, the bytes would differ
        world.desk = world.open_desk()
        sealed = world.sealed()
        assert kept is None or persisted.read_bytes() == kept
        seen = verify(
            Path(sealed["directory"]), keys=[world.desk.public_file], catalogue=world.desk.catalogue, now=world.now
        )
        assert seen.outcome == "verified"
        if not died:
            break
        deaths += 1
    assert 20 < deaths < STEPS_MAX - 1


def test_killed_while_registering_at_every_step(tmp_path: Path) -> None:
    world = World(tmp_path)
    home, before = tmp_path / "signer", tmp_path / "before"
    shutil.copytree(home, before)
    deaths = 0
    for step in range(1, STEPS_MAX):
        shutil.rmtree(home)
        shutil.copytree(before, home)
        died = die_at(step, home, lambda: world.ask(op="register"))
        written = world.desk.home.registered(world.id)
        kept = written.read_bytes() if written.exists() else None
        first = world.ask(op="register")
        assert kept is None or written.read_bytes() == kept
        assert world.ask(op="register") == first
        if not died:
            break
        deaths += 1
    assert 3 < deaths < STEPS_MAX - 1
