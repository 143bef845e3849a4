"""Audits in a row, one in four hostile, leave nothing behind and every honest one is answered."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from benchmarks.sandbox import soak
from benchmarks.sandbox.attacks import MODELS, PROGRAMS


def run(tmp_path: Path, audits: int) -> None:
    told = soak.soak(tmp_path, audits, seed=2, say=lambda _line: None)
    assert (told["wrong"], told["left"]) == ([], {})
    assert (told["honest"], told["hostile"]) == (audits - audits // 4, audits // 4)
    assert tempfile.tempdir is None


def test_twelve_audits_leave_nothing_behind(tmp_path: Path) -> None:
    run(tmp_path, 12)


@pytest.mark.slow
def test_68_audits_with_every_attack_leave_nothing_behind(tmp_path: Path) -> None:
    assert {*PROGRAMS, *MODELS} <= set(soak.plan(68, 2))
    run(tmp_path, 68)


def test_what_is_left_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter([{"files": ["a"]}, {"files": ["a", "b"]}])
    monkeypatch.setattr(soak.Soak, "state", lambda _self, _groups: next(states))
    monkeypatch.setattr(soak.Soak, "audit", lambda _self, attack: "" if attack == soak.HONEST else f"{attack}: odd")
    told = soak.soak(tmp_path, 4, seed=1, say=lambda _line: None)
    assert told["left"] == {"files": ["b"]}
    assert len(told["wrong"]) >= 1
