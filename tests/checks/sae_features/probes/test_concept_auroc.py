"""Areas against scikit-learn, against counting pairs, and against rows written out as often as they were drawn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from checks.sae_features.probes.concept_auroc import auroc, permuted_areas, weighted


def counted(scores: np.ndarray, labels: np.ndarray) -> float:
    up, down = scores[labels == 1], scores[labels == 0]
    return float(np.mean([(one > other) + (one == other) / 2 for one in up for other in down]))


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_ties_count_half(levels: int) -> None:
    # A sparse latent is zero almost everywhere: ranks by order of appearance would make its area what the order is.
    rng = np.random.default_rng(levels)
    scores, labels = rng.integers(0, levels, (3, 60)).astype(float), rng.integers(0, 2, 60)
    for found, row in zip(auroc(scores, labels), scores, strict=True):
        assert found == pytest.approx(counted(row, labels), abs=1e-12)
        assert found == pytest.approx(roc_auc_score(labels, row), abs=1e-12)


def test_constant_scores_are_one_half_and_one_class_is_undefined() -> None:
    labels = np.array([0, 1, 1, 0, 1])
    assert auroc(np.zeros(5), labels) == 0.5
    assert np.isnan(auroc(np.arange(5.0), np.ones(5, dtype=int)))


def test_weights_are_repetitions() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 6, (2, 25)).astype(float), rng.integers(0, 2, 25)
    times = rng.integers(0, 4, (30, 25))
    found = weighted(scores, labels == 1, times)
    for draw, often in enumerate(times):
        for column in range(2):
            seen = counted(np.repeat(scores[column], often), np.repeat(labels, often))
            assert found[column, draw] == pytest.approx(seen, abs=1e-12)
    alone = weighted(scores, labels == 1, (labels == 1)[None].astype(int))
    assert np.isnan(alone).all()


def test_many_labels_by_one_product() -> None:
    from scipy.stats import rankdata

    rng = np.random.default_rng(1)
    scores, labels = rng.integers(0, 4, (3, 40)).astype(float), rng.integers(0, 2, (7, 40))
    found = permuted_areas(rankdata(scores, axis=1), labels)
    for draw in range(7):
        np.testing.assert_allclose(found[draw], auroc(scores, labels[draw]), atol=1e-12)
