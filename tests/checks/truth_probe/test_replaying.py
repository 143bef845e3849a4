"""The causal effect on a small linear-softmax model, where moving all of the used axis moves all of the answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from checks.check import Edit
from checks.truth_probe.replaying import CausalEffect, CausalText, Replay, Shifts, choose, nie, passes, plan_shifts
from checks.truth_probe.scores import Estimate

WIDTH = 64
USED = np.eye(WIDTH)[0]
TEXTS = tuple(CausalText(f"t{at}", f"c{at // 2}", at % 2 == 0, f"t{at}/yes", f"t{at}/no") for at in range(64))


class Model:
    """States at one site, and an answer that reads one axis of them: log softmax over yes and no."""

    def __init__(self, noise: float = 0.0, seed: int = 0, read: np.ndarray = USED) -> None:
        rng = np.random.default_rng(seed)
        self.read = read
        self.asked: list[Edit] = []
        self.states = {
            text.id: (1.5 if text.true else -1.5) * USED + noise * rng.standard_normal(WIDTH) for text in TEXTS
        }

    def answer(self, state: np.ndarray) -> np.ndarray:
        logit = 2 * float(state @ self.read)
        return np.array([-np.logaddexp(0, -logit), -np.logaddexp(0, logit)])

    def nats(self) -> dict[str, float]:
        told = {}
        for text in TEXTS:
            told[text.yes], told[text.no] = self.answer(self.states[text.id])
        return told

    def replay(self, edits: Sequence[Edit]) -> list[np.ndarray]:
        self.asked += edits
        return [self.answer(self.states[edit.row] + edit.add) for edit in edits]


def pairs(seed: int = 1, n: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return train states + and -, and labels; the true text lies 3 further along the used axis."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    content = rng.standard_normal((n, WIDTH))
    half = 1.5 * (2 * labels - 1)[:, None] * USED
    return content + half, content - half, labels


def told(estimate: Estimate | None) -> Estimate:
    assert estimate is not None
    return estimate


def effect(
    model: Model, direction: np.ndarray, random: int = 5, replay: Replay | None = None, seed: int = 2
) -> CausalEffect:
    shifts = plan_shifts(direction, *pairs(), random, np.random.default_rng(3))
    return nie(replay or model.replay, "resid.1", shifts, TEXTS, model.nats(), 0.95, 200, np.random.default_rng(seed))


def test_the_shift_is_the_gap_between_true_and_false_texts() -> None:
    pos, neg, labels = pairs()
    shifts = plan_shifts(5 * USED, pos, neg, labels, 7, np.random.default_rng(0))
    # Means over single texts, of both branches alike.
    true = np.concatenate([pos[labels == 1], neg[labels == 0]]).mean(axis=0)
    false = np.concatenate([neg[labels == 1], pos[labels == 0]]).mean(axis=0)
    assert shifts.main == pytest.approx(USED * ((true - false) @ USED))
    assert shifts.main[0] == pytest.approx(3.0)
    assert np.linalg.norm(shifts.random, axis=1) == pytest.approx(np.full(7, 3.0))
    assert plan_shifts(-USED, pos, neg, labels, 0, np.random.default_rng(0)).main == pytest.approx(shifts.main)


def test_unlabelled_pairs_shift_nothing() -> None:
    pos, neg, labels = pairs()
    some = np.where(np.arange(len(labels)) < 50, labels, -1)
    got = plan_shifts(USED, pos, neg, some, 0, np.random.default_rng(0)).main
    assert got == pytest.approx(plan_shifts(USED, pos[:50], neg[:50], labels[:50], 0, np.random.default_rng(0)).main)
    with pytest.raises(ValueError, match="labelled"):
        plan_shifts(USED, pos, neg, np.full(len(labels), -1), 0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="direction"):
        plan_shifts(0 * USED, pos, neg, labels, 0, np.random.default_rng(0))


def test_the_used_axis_moves_the_whole_answer_both_ways() -> None:
    got = effect(Model(), USED)
    assert told(got.f2t).value == pytest.approx(1.0, abs=1e-9)
    assert told(got.t2f).value == pytest.approx(1.0, abs=1e-9)
    assert got.random_max is not None
    assert got.random_max < 0.5
    assert got.output_gap is not None
    assert got.output_gap.value == pytest.approx(2 * math.tanh(1.5))  # 2 p - 1 = tanh(logit / 2) on either side
    assert (got.n, got.clusters, got.reason) == (64, 32, "")


def test_an_axis_that_is_not_used_moves_nothing() -> None:
    # Truth is carried along axis 1 too, as strongly; the answer does not read it.
    model = Model(noise=0.3)
    pos, neg, labels = pairs()
    half = 1.5 * (2 * labels - 1)[:, None] * np.eye(WIDTH)[1]
    shifts = plan_shifts(np.eye(WIDTH)[1], pos + half, neg - half, labels, 0, np.random.default_rng(3))
    assert np.linalg.norm(shifts.main) > 2.5
    got = nie(model.replay, "resid.0", shifts, TEXTS, model.nats(), 0.95, 100, np.random.default_rng(4))
    assert (told(got.f2t).value, told(got.t2f).value, got.random_max) == (0.0, 0.0, None)


def test_a_shift_of_zero_has_exactly_no_effect() -> None:
    model = Model(noise=0.5)
    pos, _, labels = pairs()
    shifts = plan_shifts(USED, pos, pos, labels, 3, np.random.default_rng(5))
    got = nie(model.replay, "resid.0", shifts, TEXTS, model.nats(), 0.95, 100, np.random.default_rng(6))
    nothing = Estimate(0.0, 0.0, 0.0, 0.95)
    assert (got.f2t, got.t2f, got.random_max) == (nothing, nothing, 0.0)


def test_effects_by_hand() -> None:
    # Half the used axis and half an idle one: the shift moves 1.5 along the used axis, to a logit of zero.
    model, half = Model(), (USED + np.eye(WIDTH)[1]) / math.sqrt(2)
    got = effect(model, half)
    law = math.tanh(1.5) / (2 * math.tanh(1.5))
    assert told(got.f2t).value == pytest.approx(law, abs=0.03)  # content of train moves the shift a little
    signs = {(edit.row, bool(edit.add[0] > 0)) for edit in model.asked[:64]}
    assert signs == {(text.id, not text.true) for text in TEXTS}
    assert {edit.site for edit in model.asked} == {"resid.1"}
    assert all(edit.ask == (f"{edit.row}/yes", f"{edit.row}/no") for edit in model.asked)


def test_the_band_counts_effects_of_either_sign() -> None:
    # A random shift straight against the used axis drives both kinds further apart: as much of an effect.
    model = Model()
    got = nie(model.replay, "r", Shifts(USED, -USED[None]), TEXTS, model.nats(), 0.95, 50, np.random.default_rng(9))
    against = (math.tanh(2.5) - math.tanh(1.5)) / (2 * math.tanh(1.5))
    assert got.random_max == pytest.approx(against)
    assert told(got.f2t).value == pytest.approx((math.tanh(1.5) - math.tanh(0.5)) / (2 * math.tanh(1.5)))


def test_effects_of_both_kinds_are_told_apart() -> None:
    # An answer that can be pushed up but never down: true texts keep their answer.
    model = Model(noise=0.4)

    def upward(edits: Sequence[Edit]) -> list[np.ndarray]:
        return [model.answer(model.states[edit.row] + np.maximum(edit.add, 0)) for edit in edits]

    got = effect(model, USED, random=0, replay=upward)
    assert told(got.f2t).low > 0.8
    assert told(got.t2f).value == 0.0


def test_the_budget_is_what_is_spent() -> None:
    model = Model()
    effect(model, USED, random=20)
    assert len(model.asked) == passes(1, 64, 20) == 64 * 21
    assert passes(3, 64, 20) == 4032  # the defaults: about 4000 (section 4)


def test_an_output_without_a_gap_has_no_effect_and_costs_no_pass() -> None:
    model = Model(noise=0.3, read=np.eye(WIDTH)[5])
    got = effect(model, USED)
    assert (got.f2t, got.t2f, got.random_max, got.reason) == (None, None, None, "output_gap")
    assert got.output_gap is not None
    assert abs(got.output_gap.value) < 0.2
    assert not model.asked


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_broken_replay_is_no_effect(broken: float) -> None:
    model = Model()
    got = effect(model, USED, replay=lambda edits: [np.array([broken, -1.0]) for _ in edits])
    assert (got.f2t, got.reason) == (None, "non_finite_replay")


def test_few_texts_tell_nothing() -> None:
    model = Model()
    shifts = plan_shifts(USED, *pairs(), 2, np.random.default_rng(7))

    def reason(texts: Sequence[CausalText]) -> str:
        return nie(model.replay, "resid.0", shifts, texts, model.nats(), 0.95, 50, np.random.default_rng(8)).reason

    assert reason(TEXTS[:16]) == ""
    assert reason(TEXTS[:15]) == "too_few_texts"
    assert reason([text for text in TEXTS if text.true]) == "too_few_texts"
    assert reason([CausalText(one.id, "c", one.true, one.yes, one.no) for one in TEXTS]) == "too_few_texts"


def test_texts_are_chosen_by_hash_half_true() -> None:
    chosen = choose(TEXTS, 20)
    assert (len(chosen), sum(text.true for text in chosen)) == (20, 10)
    assert choose(TEXTS[::-1], 20) == chosen
    assert set(choose(TEXTS, 10)) <= set(chosen)
    # One kind runs out: the other is cut to it.
    assert len(choose([text for text in TEXTS if text.true][:9] + [one for one in TEXTS if not one.true], 64)) == 18


def test_texts_without_a_scored_answer_are_passed_over() -> None:
    nats = Model().nats()
    del nats[TEXTS[0].yes]
    nats[TEXTS[1].no] = math.nan
    chosen = choose(TEXTS, 64, nats)
    assert len(chosen) == 62
    assert not {"t0", "t1"} & {text.id for text in chosen}


def _law(make: Callable[[int], Model], shift: float) -> float:
    """Return the effect of a shift along the used axis over many models."""
    moved = gap = 0.0
    for seed in range(200):
        model = make(10_000 + seed)
        for text in TEXTS:
            plain = np.exp(model.answer(model.states[text.id]))
            gap += (1 if text.true else -1) * (plain[0] - plain[1])
            if not text.true:
                edited = np.exp(model.answer(model.states[text.id] + shift * USED))
                moved += (edited[0] - edited[1]) - (plain[0] - plain[1])
    return moved / gap


def test_the_interval_covers_the_law() -> None:
    def make(seed: int) -> Model:
        return Model(noise=1.5, seed=seed)

    truth = _law(make, 3.0)
    covered = 0
    for seed in range(100):
        got = effect(make(seed), USED, random=0, seed=seed)
        covered += told(got.f2t).low <= truth <= told(got.f2t).high
    assert covered >= 88
