"""Progress is charged a constant, so nothing may leave by it that the constant does not hold."""

from __future__ import annotations

import random
import time
from itertools import pairwise, product

import pytest

from sandbox.budget import progress_bits
from sandbox.cell import STEP_PARTS
from sandbox.channels import Steps

Told = list[tuple[str, int, int]]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def told_of(
    lines: list[bytes], clock: list[float], steps: tuple[str, ...] = ("loading", "sweep"), gap: float = 1
) -> Told:
    told: Told = []
    reader = Steps(steps, lambda *step: told.append(step))
    for line in lines:
        reader.add(line + b"\n")
        clock[0] += gap
    return told


def test_digits_of_a_program_do_not_leave(clock: list[float]) -> None:
    lines = [b"0 123456789012345 999999999999999", b"0 123456789012346 999999999999998", b"1 7 0", b"1 9 3"]
    assert told_of(lines, clock) == [("loading", 10, 100), ("sweep", 0, 100), ("sweep", 100, 100)]


def test_progress_never_goes_back_and_never_repeats_itself(clock: list[float]) -> None:
    lines = [b"0 1 2", b"0 1 4", b"0 1 2", b"1 1 4", b"0 9 9", b"1 0 9", b"1 1 4", b"1 1 1"]
    assert told_of(lines, clock) == [("loading", 50, 100), ("sweep", 25, 100), ("sweep", 100, 100)]


def test_a_step_is_told_at_most_once_a_second(clock: list[float]) -> None:
    assert len(told_of([b"0 %d 100" % done for done in range(100)], clock, gap=0.1)) == 10


def test_what_can_be_told_is_no_more_than_what_is_charged(clock: list[float]) -> None:
    """Every history of five values is counted: one bit for each value that may be told, as the charge has it."""
    values = [b"0 %d 20" % done for done in (0, 5, 10, 15, 20)]
    histories = {tuple(told_of(list(lines), clock)) for lines in product(values, repeat=5)}
    assert len(histories) == 2**5 - 1
    assert progress_bits(1) == STEP_PARTS + 1


def test_the_longest_history_is_twenty_increments_a_step(clock: list[float]) -> None:
    random.seed(7)
    noise = [
        b"%d %d %d" % (random.randrange(9), random.randrange(10**15), random.randrange(1, 10**15)) for _ in range(4000)
    ]
    steady = [b"%d %d 1000" % (step, done) for step in range(6) for done in range(1001)]
    names = tuple("abcdef")
    for lines in (noise, steady):
        told = told_of(lines, clock, names)
        assert all(before < after for before, after in pairwise((names.index(step), done) for step, done, _ in told))
        assert {owed for *_, owed in told} == {100}
        assert {done % 5 for _, done, _ in told} == {0}
    assert len(told) == 6 * 21 == progress_bits(6)
