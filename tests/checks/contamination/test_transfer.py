"""A gain beyond the line of reference models is found, and a model on the line is not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from checks.contamination.transfer import Answers, transfer_test


def _answers(gain: float, rng: np.random.Generator, items: int = 400, models: int = 8) -> tuple[Answers, Answers]:
    ability = np.append(np.linspace(-1.0, 1.5, models), 0.3)
    hard = rng.normal(0, 1, items)

    def drawn(shift: np.ndarray) -> np.ndarray:
        return np.asarray(rng.random((models + 1, items)) < expit(ability[:, None] - hard + shift[:, None]), dtype=int)

    first, second = drawn(np.zeros(models + 1)), drawn(np.append(np.full(models, -0.2), -0.2 + gain))
    return Answers(first[-1], first[:-1], 0.0), Answers(second[-1], second[:-1], 0.0)


def test_answers_that_do_not_belong_together_are_refused() -> None:
    one, two = _answers(0.0, np.random.default_rng(1))
    rng = np.random.default_rng(2)
    with pytest.raises(ValueError, match="models"):
        transfer_test(Answers(one.target, one.others[:5], 0.0), two, True, rng)
    with pytest.raises(ValueError, match="no pairs"):
        transfer_test(Answers(one.target[:9], one.others[:, :9], 0.0), two, True, rng)
    with pytest.raises(ValueError, match="chance"):
        transfer_test(Answers(one.target, one.others, 1.0), two, True, rng)
    few = [Answers(part.target, part.others[:5], 0.0) for part in (one, two)]
    assert transfer_test(few[0], few[1], True, rng) is None


def test_a_gain_is_found_and_told_in_accuracy() -> None:
    told = transfer_test(*_answers(1.0, np.random.default_rng(3)), True, np.random.default_rng(4), draws=400)
    assert told is not None
    assert told.p <= 0.01
    assert told.delta.low < 0.19 < told.delta.high  # one logit at this difficulty is .19 in accuracy
    assert (told.models, told.delta.n, told.delta.null) == (8, 400, 0.0)


def test_a_model_on_the_line_is_rarely_found() -> None:
    alarms = 0
    for seed in range(20):
        told = transfer_test(*_answers(0.0, np.random.default_rng(seed)), True, np.random.default_rng(seed), draws=200)
        assert told is not None
        alarms += told.p <= 0.05
    assert alarms <= 4  # 1 expected; more in 3 of 1000


def test_a_line_never_falls() -> None:
    """Reference models that trade one benchmark for the other: the line is flat, and their mean is foretold."""
    rng = np.random.default_rng(5)
    rates = np.linspace(0.2, 0.8, 8)
    one = Answers((rng.random(2000) < 0.8).astype(int), (rng.random((8, 2000)) < rates[:, None]).astype(int), 0.5)
    two = Answers((rng.random(2000) < 0.5).astype(int), (rng.random((8, 2000)) < rates[::-1, None]).astype(int), 0.5)
    told = transfer_test(one, two, False, rng, draws=50)
    assert told is not None
    assert abs(told.delta.value) < 0.03
