from __future__ import annotations

import numpy as np
import pytest

from checks.sae_features.probes.concept_permute import Dealer


def test_single_rows_are_permuted() -> None:
    labels = np.array([1] * 7 + [0] * 13)
    dealt = Dealer(labels, [str(row) for row in range(20)]).deal(400, np.random.default_rng(0))
    assert (dealt.sum(1) == 7).all()
    assert np.abs(dealt.mean(0) - 0.35).max() < 0.1


def test_groups_of_one_label_keep_one_label() -> None:
    # Permuted row by row, a probe that tells documents apart would look skilled beside a null that cannot.
    groups = [f"g{row // 4}" for row in range(40)]
    labels = np.repeat(np.arange(10) % 2, 4)
    dealt = Dealer(labels, groups).deal(100, np.random.default_rng(0)).reshape(100, 10, 4)
    assert (dealt.min(2) == dealt.max(2)).all()
    assert (dealt[:, :, 0].sum(1) == 5).all()
    assert len(np.unique(dealt[:, :, 0], axis=0)) > 50


def test_pairs_swap() -> None:
    # Whole groups dealt in their order would hand every pair its own labels back: a null that equals the truth.
    groups = [f"g{row // 2}" for row in range(60)]
    labels = np.arange(60) % 2
    dealt = Dealer(labels, groups).deal(200, np.random.default_rng(0)).reshape(200, 30, 2)
    assert (dealt.sum(2) == 1).all()
    assert np.abs(dealt.mean(0) - 0.5).max() < 0.15


def test_uneven_groups_are_filled_and_rows_need_not_lie_together() -> None:
    rng = np.random.default_rng(0)
    groups = [f"g{one}" for one in rng.integers(0, 9, 70)]
    labels = rng.integers(0, 2, 70)
    dealt = Dealer(labels, groups).deal(500, rng)
    assert set(np.unique(dealt)) == {0, 1}
    assert np.abs(dealt.mean(0) - labels.mean()).max() < 0.15


def test_one_class_is_refused_and_both_are_in_every_draw() -> None:
    with pytest.raises(ValueError, match="one class"):
        Dealer(np.ones(5, dtype=int), list("abcde")).deal(2, np.random.default_rng(0))
    # One long and one short group: dealt twice the same, a draw has one class and is drawn again.
    dealt = Dealer(np.array([1, 0, 0]), ["a", "a", "b"]).deal(200, np.random.default_rng(0))
    assert (dealt.min(1) == 0).all()
    assert (dealt.max(1) == 1).all()
