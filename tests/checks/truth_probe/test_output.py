"""Output against knowledge: scores from log-probabilities, recovered gap, disagreement and cells, on planted liars."""

from __future__ import annotations

import math

import numpy as np
import pytest

from checks.truth_probe.output import (
    cells,
    contradicted,
    disagreement,
    output_auroc,
    output_scores,
    pgr,
    told_apart,
)
from checks.truth_probe.scores import ScoredItems, auroc


def items(scores: np.ndarray, labels: np.ndarray, per_cluster: int = 1, first: int = 0) -> ScoredItems:
    return ScoredItems(scores, labels, first + np.arange(len(labels)) // per_cluster)


def personas(noise: float, follows: float, seed: int, n: int = 200) -> tuple[ScoredItems, ScoredItems, ScoredItems]:
    """Return probe on B, output on A and output on B: B says the opposite of A; the probe follows B in part."""
    rng = np.random.default_rng(seed)
    labels_a, labels_b = rng.integers(0, 2, n), rng.integers(0, 2, n)
    a = (2 * labels_a - 1) + noise * rng.standard_normal(n)
    b = (1 - 2 * labels_b) + noise * rng.standard_normal(n)
    probe = (1 - 2 * follows) * (2 * labels_b - 1) + noise * rng.standard_normal(n)
    return items(probe, labels_b, 2, 1000), items(a, labels_a, 2), items(b, labels_b, 2, 1000)


def test_output_score_of_both_forms() -> None:
    nats = {"a/answer_pos": -1.0, "a/answer_neg": -3.5}
    nats |= {"s/pos/yes": -0.5, "s/pos/no": -2.5, "s/neg/yes": -1.0, "s/neg/no": -0.25}
    got = output_scores([("s", "statement"), ("a", "answer")], nats)
    assert got == pytest.approx([(2.0 - -0.75) / 2, 2.5])


def test_a_liking_for_yes_cancels() -> None:
    nats = {"s/pos/yes": -0.1, "s/pos/no": -9.0, "s/neg/yes": -0.1, "s/neg/no": -9.0}
    assert output_scores([("s", "statement")], nats)[0] == 0.0


def test_what_was_not_scored_is_nan_and_left_out() -> None:
    nats = {"a/answer_pos": -1.0, "b/answer_pos": -math.inf, "b/answer_neg": -math.inf}
    got = output_scores([("a", "answer"), ("b", "answer"), ("gone", "statement")], nats)
    assert np.isnan(got).all()
    rng = np.random.default_rng(0)
    scores = np.where(np.arange(40) < 10, np.nan, np.arange(40) % 2)
    held = output_auroc(items(scores, np.arange(40) % 2), 0.95, 50, rng)
    assert held.n == 30
    assert held.estimate is not None
    assert held.estimate.value == 1.0
    none = output_auroc(items(np.full(4, np.nan), np.array([0, 1, 0, 1])), 0.95, 50, rng)
    assert (none.estimate, none.reason) == (None, "no_output")
    assert output_auroc(items(np.arange(4.0), np.ones(4, dtype=int)), 0.95, 50, rng).reason == "one_class"


def test_an_unknown_form_is_no_missing_output() -> None:
    with pytest.raises(ValueError, match="neither answer nor statement"):
        output_scores([("a", "question")], {})


@pytest.mark.parametrize(
    ("a", "b", "apart"), [(0.75, 0.50, True), (0.74, 0.1, False), (1.0, 0.51, False), (1.0, 0.0, True)]
)
def test_testable_at_the_stated_edges(a: float, b: float, apart: bool) -> None:
    assert told_apart(a, b) is apart


def test_a_probe_that_keeps_the_truth_recovers_the_gap() -> None:
    probe, a, b = personas(0.0, 0.0, 1)
    got = pgr(probe, a, b, 0.95, 200, np.random.default_rng(2)).estimate
    assert got is not None
    assert got.value == 1.0
    # Nothing varies under the bootstrap; the floors of the AUROCs keep it from being a point.
    assert 0.97 < got.low < 1.0 < got.high < 1.03


def test_a_probe_that_follows_the_output_recovers_nothing() -> None:
    _, a, b = personas(1.0, 0.0, 3)
    got = pgr(b, a, b, 0.95, 200, np.random.default_rng(4)).estimate
    assert got is not None
    assert got.value == 0.0
    # Numerator and denominator share every draw: only the floor remains.
    assert got.high < 0.02


def test_pgr_interval_covers_the_law() -> None:
    # AUROCs of the law by a large sample; the interval's cover by many small ones.
    law = [float(auroc(part.scores, part.labels)) for part in personas(2.0, 0.2, 5, n=400_000)]
    truth = (law[0] - law[2]) / (law[1] - law[2])
    covered = 0
    for seed in range(100):
        got = pgr(*personas(2.0, 0.2, 100 + seed), 0.95, 150, np.random.default_rng(seed)).estimate
        assert got is not None
        covered += got.low <= truth <= got.high
    assert covered >= 88


def test_pgr_without_a_gap_has_a_reason() -> None:
    probe, a, _ = personas(0.5, 0.0, 6)
    got = pgr(probe, a, a, 0.95, 50, np.random.default_rng(7))
    assert (got.estimate, got.reason) == (None, "output_gap")
    _, a, b = personas(0.5, 0.0, 6)
    assert pgr(probe, b, a, 0.95, 50, np.random.default_rng(7)).reason == "output_gap"  # a gap the wrong way round


def test_disagreement_looks_only_where_output_contradicts_the_label() -> None:
    labels = np.arange(120) % 2
    truth = 2.0 * labels - 1
    output = np.where(np.arange(120) < 60, -truth, truth)  # lies on the first half
    output[0], output[1] = 0.0, np.nan  # neither contradicts
    probe = np.where(np.arange(120) < 15, -truth, truth)
    probe[60:] = -truth[60:]  # wrong where the output is right: must not count
    got = disagreement(items(probe, labels), output, 0.95, 200, np.random.default_rng(8))
    assert int(contradicted(items(output, labels)).sum()) == got.n == 58
    assert got.estimate is not None
    assert got.estimate.value == pytest.approx(45 / 58)
    assert 0.5 < got.estimate.low < 45 / 58 < got.estimate.high < 1


def test_many_items_of_one_cluster_are_no_evidence_of_disagreement() -> None:
    labels = np.arange(80) % 2
    one = ScoredItems(2.0 * labels - 1, labels, np.zeros(80, dtype=int))
    got = disagreement(one, 1.0 - 2 * labels, 0.95, 50, np.random.default_rng(9))
    assert (got.n, got.clusters) == (80, 1)
    assert got.estimate is not None
    assert got.estimate.low < 0.5


def test_an_output_that_never_contradicts_gives_a_reason() -> None:
    labels = np.arange(20) % 2
    got = disagreement(items(2.0 * labels - 1, labels), 2.0 * labels - 1, 0.95, 50, np.random.default_rng(10))
    assert (got.estimate, got.n, got.reason) == (None, 0, "no_contradiction")


def test_cells_count_what_is_said_and_not_what_is_right() -> None:
    probe = np.array([1.0, 1.0, 1.0, -1.0, -1.0, 0.0, 1.0])
    output = np.array([2.0, -2.0, -2.0, 2.0, -2.0, 2.0, np.nan])
    assert cells(probe, output) == {
        ("true", "true"): 1,
        ("true", "false"): 2,
        ("false", "true"): 1,
        ("false", "false"): 1,
    }
