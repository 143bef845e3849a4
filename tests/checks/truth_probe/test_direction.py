"""A direction: what flips with it, and which sign it has before anyone gives it one."""

from __future__ import annotations

import numpy as np
import pytest

from checks.truth_probe.direction import Direction, canonical, unit


def test_the_largest_component_is_positive_ties_by_index() -> None:
    assert canonical(np.array([1.0, -3.0, 2.0]))[1] > 0
    assert canonical(np.array([-2.0, 2.0])).tolist() == pytest.approx([np.sqrt(0.5), -np.sqrt(0.5)])
    assert unit(np.zeros(3)).tolist() == [0.0, 0.0, 0.0]


def test_flipping_twice_is_the_direction_itself() -> None:
    one = Direction(unit(np.array([1.0, 2.0])), "md", ("restricted",), offset=0.5)
    again = one.flipped().flipped()
    assert (again.vector == one.vector).all()
    assert (again.method, again.flags, again.offset) == (one.method, one.flags, one.offset)


def test_a_flip_turns_every_score() -> None:
    one = Direction(unit(np.array([1.0, 2.0])), "ccs", offset=0.5)
    u = np.random.default_rng(0).standard_normal((5, 2))
    assert one.flipped().score(u) == pytest.approx(-one.score(u))
    assert one.flipped().offset == -0.5
