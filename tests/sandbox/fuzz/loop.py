"""Runs a fuzzer for a while and counts."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

from .fuzzers import FUZZERS

SLOW_S = 5.0
"""One input that takes longer is a finding; the specification says one second, on a machine of its own."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """How a run went that found nothing."""

    name: str
    inputs: int
    accepted: int
    seconds: float
    slowest_s: float


def fuzz(name: str, folder: Path, *, seed: int, seconds: float, least: int = 0) -> Tried:
    """Run one fuzzer until its time is over and it made so many inputs.

    Raises:
        AssertionError: an accept that another judge does not share, or an input that took too long.
        Exception: whatever is no refusal; a note tells the number of the input and how to make it again.
    """
    chance = Random(f"{seed} {name}")
    began = time.monotonic()
    inputs = accepted = 0
    slowest = 0.0
    while (elapsed := time.monotonic() - began) < seconds or inputs < least:
        state = chance.getstate()
        try:
            accepted += FUZZERS[name](chance, folder)
        except BaseException as error:  # an interrupted input is told, too: it may be the one that hangs
            error.add_note(f"{name}: input {inputs} of seed {seed}; random state {hash(state)}")
            raise
        inputs += 1
        took = time.monotonic() - began - elapsed
        slowest = max(slowest, took)
        assert took < SLOW_S, f"{name}: input {inputs - 1} of seed {seed} took {took:.1f} s"
    return Tried(name=name, inputs=inputs, accepted=accepted, seconds=time.monotonic() - began, slowest_s=slowest)


def line(tried: Tried) -> str:
    """Return one row of the table."""
    return (
        f"fuzz {tried.name:20} {tried.inputs:8} inputs  {tried.accepted:7} accepted  "
        f"{tried.seconds:6.1f} s  slowest {tried.slowest_s * 1000:6.1f} ms  nothing found"
    )
