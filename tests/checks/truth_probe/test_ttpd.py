"""TTPD: against least squares and logistic regression of other libraries, and on negated rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from checks.truth_probe.displacement import displacement
from checks.truth_probe.pairs import PairActivations
from checks.truth_probe.scores import auroc
from checks.truth_probe.supervised import mass_mean
from checks.truth_probe.ttpd import RIDGE, ttpd
from tests.checks.truth_probe.planting import pairs_of


def polar(n: int, d: int, p: int, seed: int, wrong: float = 3.0) -> tuple[PairActivations, np.ndarray]:
    """Return pairs of a polarity: truth along axis 0, truth times polarity along axis 1, polarity along axis 2."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    tau = (2.0 * labels - 1)[:, None]
    axes = np.eye(d)
    half = tau * (1.5 * axes[0] + wrong * p * axes[1])
    middle = 4.0 + 2.5 * p * axes[2] + rng.standard_normal((n, d))
    noise = rng.standard_normal((2, n, d))
    return pairs_of(middle + half + noise[0], middle - half + noise[1]), labels


def by_other_hands(
    affirmative: PairActivations, labels: np.ndarray, negated: PairActivations, negated_labels: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return the unit direction and its offset for centred states."""
    raw = np.concatenate([affirmative.pos, affirmative.neg, negated.pos, negated.neg])
    truth = np.concatenate([labels, 1 - labels, negated_labels, 1 - negated_labels])
    p = np.array([1] * 2 * len(affirmative) + [-1] * 2 * len(negated))
    a, tau = raw - raw.mean(axis=0), 2 * truth - 1
    t_g = np.linalg.lstsq(np.stack([tau, tau * p], axis=1).astype(float), a, rcond=None)[0][0]
    # Their penalty is of the summed loss, on the scale of the features handed in.
    size = np.sqrt(np.mean(a**2))
    strength = {"C": 1 / (RIDGE * len(a)), "tol": 1e-12, "max_iter": 20000}
    w_pol = LogisticRegression(**strength).fit(raw / size, p).coef_[0]
    t_g, w_pol = t_g / np.linalg.norm(t_g), w_pol / np.linalg.norm(w_pol)
    last = LogisticRegression(**strength).fit(np.stack([a @ t_g, a @ w_pol], axis=1) / size, truth)
    vector = (last.coef_[0][0] * t_g + last.coef_[0][1] * w_pol) / size
    return vector / np.linalg.norm(vector), float(last.intercept_[0] / np.linalg.norm(vector))


@pytest.mark.parametrize("d", [6, 300])
def test_against_other_implementations(d: int) -> None:
    held = (*polar(60, d, 1, 0, wrong=1.0), *polar(45, d, -1, 1, wrong=1.0))
    found = ttpd(*held)
    assert found is not None
    vector, offset = by_other_hands(*held)
    assert found.vector @ vector > 1 - 1e-4
    assert found.offset == pytest.approx(offset, abs=0.01)
    assert found.method == "ttpd"
    assert np.linalg.norm(found.vector) == pytest.approx(1.0)


def test_the_offset_is_in_the_units_of_raw_states() -> None:
    # True texts spread far to one side: the best cut is not at their mean, and states are not of unit size.
    held: list[tuple[PairActivations, np.ndarray]] = []
    for p in (1, -1):
        pairs, labels = polar(300, 4, p, 5, wrong=0.0)
        far = np.random.default_rng(6).exponential(4.0, (300, 1)) * np.eye(4)[0]
        is_true = labels[:, None] == 1
        moved = pairs_of(20 * (pairs.pos + far * is_true), 20 * (pairs.neg + far * ~is_true))
        held.append((moved, labels))
    found = ttpd(*held[0], *held[1])
    assert found is not None
    offset = by_other_hands(*held[0], *held[1])[1]
    assert abs(offset) > 5
    assert found.offset == pytest.approx(offset, rel=0.01)


def test_the_pair_score_is_the_difference_of_single_logits() -> None:
    affirmative, labels = polar(60, 6, 1, 0)
    found = ttpd(affirmative, labels, *polar(60, 6, -1, 1))
    assert found is not None
    single = [branch @ found.vector + found.offset for branch in (affirmative.pos, affirmative.neg)]
    assert found.score(displacement(affirmative)) == pytest.approx(single[0] - single[1])


def test_truth_holds_under_negation_where_the_class_means_turn() -> None:
    affirmative, labels = polar(200, 12, 1, 2)
    negated, negated_labels = polar(200, 12, -1, 3)
    fresh, truth = polar(300, 12, -1, 4)
    found = ttpd(affirmative, labels, negated, negated_labels)
    assert found is not None
    assert float(auroc(found.score(displacement(fresh)), truth)) > 0.95
    alone = mass_mean(displacement(affirmative), labels)
    assert float(auroc(alone.score(displacement(fresh)), truth)) < 0.1


def test_one_polarity_has_no_direction() -> None:
    affirmative, labels = polar(20, 6, 1, 0)
    none = affirmative.take(np.zeros(20, dtype=bool))
    assert ttpd(affirmative, labels, none, labels[:0]) is None
    assert ttpd(none, labels[:0], affirmative, labels) is None


def test_a_constant_on_every_state_changes_nothing() -> None:
    affirmative, labels = polar(60, 6, 1, 0)
    negated, negated_labels = polar(60, 6, -1, 1)
    moved = [PairActivations(one.pos + 9, one.neg + 9, one.template, one.cluster) for one in (affirmative, negated)]
    first, second = ttpd(affirmative, labels, negated, negated_labels), ttpd(moved[0], labels, moved[1], negated_labels)
    assert first is not None
    assert second is not None
    assert second.vector == pytest.approx(first.vector, abs=1e-6)
