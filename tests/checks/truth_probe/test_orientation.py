"""The sign: how often anchors can tell it, and that nothing else ever does."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from checks.truth_probe.orientation import orient
from checks.truth_probe.scores import auroc

AXIS = np.array([1.0])


def says(right: int, k: int) -> tuple[bool, int]:
    """Return (resolved, sign) when so many of k anchors are oriented right."""
    labels = np.arange(k) % 2
    u = np.where(np.arange(k) < right, 2.0 * labels - 1, 1 - 2.0 * labels)[:, None]
    got = orient(AXIS, u, labels)
    assert got.right == right
    assert got.margin == right / k - 0.5
    return got.resolved, got.sign


@pytest.mark.parametrize(
    ("k", "figures"), [(16, (0.25, 0.41, 0.60, 0.93)), (32, (0.50, 0.74, 0.91, 1.0)), (64, (0.88, 0.98, 1.0, 1.0))]
)
def test_how_often_anchors_resolve_the_sign(k: int, figures: tuple[float, ...]) -> None:
    told = [says(right, k) for right in range(k + 1)]
    resolved = np.array([one[0] for one in told])
    wrong = np.array([one[1] == -1 for one in told])
    for accuracy, figure in zip((0.7, 0.75, 0.8, 0.9), figures, strict=True):
        law = binom.pmf(np.arange(k + 1), k, accuracy)
        assert law @ resolved == pytest.approx(figure, abs=0.0051)
        assert law @ wrong < 1e-4


def test_at_32_anchors_the_edges_are_23_and_9() -> None:
    assert [right for right in range(33) if not says(right, 32)[0]] == list(range(10, 23))
    assert says(23, 32) == (True, 1)
    assert says(9, 32) == (True, -1)


def test_sign_never_from_test_labels() -> None:
    # Anchors say +; every test label says the opposite. The sign stays and the score falls below one half:
    # it is never folded up, and labels of test are not even an argument.
    rng = np.random.default_rng(0)
    labels, test_labels = np.arange(32) % 2, rng.integers(0, 2, 200)
    anchors = (2.0 * labels - 1)[:, None] + 0.1 * rng.standard_normal((32, 1))
    test_u = (1 - 2.0 * test_labels)[:, None] + 0.1 * rng.standard_normal((200, 1))
    got = orient(AXIS, anchors, labels)
    assert (got.resolved, got.sign) == (True, 1)
    assert float(auroc(got.sign * test_u @ AXIS, test_labels)) == 0.0
    # Anchors that say nothing abstain, however well the test labels would tell.
    noise = np.where(np.arange(32) < 16, 2.0 * labels - 1, 1 - 2.0 * labels)[:, None]
    assert not orient(AXIS, noise, labels).resolved


def test_a_direction_that_sees_nothing_resolves_nothing() -> None:
    # Thirty of 32 anchors are false texts; a score of zero must not count as having called them false.
    labels = (np.arange(32) < 2).astype(int)
    got = orient(np.array([0.0]), np.ones((32, 1)), labels)
    assert (got.right, got.resolved, got.sign) == (16, False, 1)
