"""Min-K%++ holds on short texts and flat positions; a score is void where text alone tells the sets apart."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from checks.contamination.surprise import (
    TEXTS_MIN,
    area_under,
    min_k_score,
    permuted_area,
    scores_of,
    smallest_p,
    surprise_test,
    units,
)
from checks.contamination.surprise_blind import blind_control


def test_bad_numbers_are_refused() -> None:
    ones = np.ones(9)
    with pytest.raises(ValueError, match="9, 9 and 8"):
        min_k_score(ones, ones, ones[:8], 20)
    with pytest.raises(ValueError, match="k 0"):
        min_k_score(ones, ones, ones, 0)
    with pytest.raises(ValueError, match="finite"):
        min_k_score(np.full(9, -np.inf), ones, ones, 20)
    with pytest.raises(ValueError, match="both classes"):
        area_under(ones, np.ones(9, dtype=bool))


def test_mink_short_text_and_zero_sigma() -> None:
    """The published code takes an empty slice of a short text, and divides by zero where the vocabulary is flat."""
    rng = np.random.default_rng(1)
    logp, mean, sd = rng.normal(-3, 1, 8), rng.normal(-4, 1, 8), np.full(8, 2.0)
    assert min_k_score(logp[:7], mean[:7], sd[:7], 20) is None
    # k = 1 % of 8 tokens is none: the lowest one counts.
    assert min_k_score(logp, mean, sd, 1) == pytest.approx(((logp - mean) / sd).min())
    flat = np.append(sd, [0.0, 1e-9])
    told = min_k_score(np.append(logp, [0.0, 0.0]), np.append(mean, [0.0, -1e-9]), flat, 20)
    assert told == min_k_score(logp, mean, sd, 20)
    sd[0] = 0.0
    assert min_k_score(logp, mean, sd, 20) is None
    assert min_k_score(np.zeros(0), np.zeros(0), np.zeros(0), 20) is None


def test_mink_is_a_plain_loop() -> None:
    rng = np.random.default_rng(2)
    for n in (8, 11, 40, 99):
        logp, mean, sd = rng.normal(size=n), rng.normal(size=n), rng.uniform(0.5, 2, n)
        z = sorted((a - b) / c for a, b, c in zip(logp, mean, sd, strict=True))
        count = max(1, -(-20 * n // 100))
        assert min_k_score(logp, mean, sd, 20) == pytest.approx(sum(z[:count]) / count, rel=1e-12)


def test_left_out_texts_are_named_by_their_place() -> None:
    long, short = np.ones(9), np.ones(3)
    scores, kept = scores_of([(short, short, short), (long, long, long)], 20)
    assert kept.tolist() == [1]
    assert scores.tolist() == [0.0]


def test_area_is_scipys_with_ties() -> None:
    rng = np.random.default_rng(3)
    scores, seen = rng.integers(0, 9, 80).astype(float), rng.random(80) < 0.4
    expected = mannwhitneyu(scores[seen], scores[~seen]).statistic / (seen.sum() * (~seen).sum())
    assert area_under(scores, seen) == pytest.approx(expected)
    assert permuted_area(scores, seen, np.arange(80), rng, 9)[0] == pytest.approx(expected)


def _test(items: np.ndarray, placebos: np.ndarray, size: int, seed: int) -> tuple[float, float, float, float]:
    told = surprise_test(
        items, placebos, np.arange(len(items)) // size, 10_000 + np.arange(len(placebos)) // size,
        np.random.default_rng(seed),
    )  # fmt: skip
    assert told is not None
    return told.p, told.auc.value, told.auc.low, told.auc.high


def test_seen_items_are_found_and_the_interval_holds_the_planted_area() -> None:
    rng = np.random.default_rng(4)
    p, area, low, high = _test(rng.normal(1, 1, 150), rng.normal(0, 1, 150), 1, 5)
    assert p == 1e-4
    assert low < 0.7602 < high  # Phi(1 / sqrt 2)
    assert low <= area <= high
    assert surprise_test(np.ones(99), np.ones(200), np.arange(99), np.arange(200), rng) is None
    assert TEXTS_MIN == 100


def test_labels_move_by_template() -> None:
    """Scores that are alike within a template: 120 texts of 12 templates are 12 facts, not 120."""
    alarms = plain = 0
    for seed in range(24):
        rng = np.random.default_rng(seed)
        scores = np.repeat(rng.normal(size=24), 10) + 0.1 * rng.normal(size=240)
        seen = np.arange(240) < 120
        grouped = units(np.arange(240) // 10, seen)
        alarms += permuted_area(scores, seen, grouped, rng, 499)[1] <= 0.05
        plain += permuted_area(scores, seen, np.arange(240), rng, 499)[1] <= 0.05
    assert alarms <= 5  # 1.2 expected; more in 2 of 1000
    assert plain > alarms


def test_items_have_p_and_q_values_against_placebos() -> None:
    rng = np.random.default_rng(6)
    told = surprise_test(rng.normal(6, 1, 100), rng.normal(0, 1, 100), np.arange(100), 500 + np.arange(100), rng)
    assert told is not None
    assert told.item_p.max() < 0.05
    assert (told.q_values >= told.item_p).all()
    assert (told.items, told.placebos) == (100, 100)


WORDS = [
    f"{one}{two}" for one in ("ba", "de", "ki", "lo", "mu", "ra", "so", "ti") for two in ("n", "r", "s", "lt", "p")
]


def _sentences(count: int, rng: np.random.Generator, numbers: tuple[int, int] = (2, 90)) -> list[str]:
    return [
        " ".join([*rng.choice(WORDS, int(rng.integers(12, 25))), str(int(rng.integers(*numbers)))])
        for _ in range(count)
    ]


@pytest.mark.parametrize("flaw", ["year", "length", "phrase", "digits"])
def test_blind_control_invalidates(flaw: str) -> None:
    """Placebos written later, longer, in other words or with more digits: the area of any score would prove nothing."""
    rng = np.random.default_rng(7)
    items, placebos = _sentences(120, rng), _sentences(120, rng)
    match flaw:
        case "year":
            placebos = [f"In 2025 {text}" if rng.random() < 0.5 else text for text in placebos]
        case "length":
            placebos = [" ".join(text.split()[:12]) for text in placebos]
        case "phrase":
            items = [text.replace("ban", "kir sop") for text in items]
        case _:
            placebos = [f"{text} {int(rng.integers(10_000, 99_999))}" for text in placebos]
    seen = np.arange(240) < 120
    told = blind_control([*items, *placebos], seen, np.arange(240), rng)
    assert told.invalidates(0.60)
    assert told.n == 240


def test_blind_control_is_quiet_on_matched_texts() -> None:
    areas, alarms = [], 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        told = blind_control(_sentences(300, rng), np.arange(300) < 150, np.arange(300) // 2, rng)
        areas.append(told.auc)
        alarms += told.invalidates(0.60)
    assert alarms <= 1
    assert 0.45 < np.mean(areas) < 0.55


def test_a_template_in_both_folds_would_be_remembered() -> None:
    """Each template has its own word: held out by template, that word tells nothing."""
    rng = np.random.default_rng(8)
    template = np.repeat(np.arange(24), 10)
    texts = [
        f"{text} {' '.join([f'own{chr(97 + row)}'] * 8)}"
        for text, row in zip(_sentences(240, rng), template, strict=True)
    ]
    held = blind_control(texts, template < 12, template, rng)
    mixed = blind_control(texts, template < 12, np.arange(240), rng)
    assert held.auc < 0.65 < 0.9 < mixed.auc


def test_too_few_templates_for_the_folds_are_refused() -> None:
    rng = np.random.default_rng(9)
    with pytest.raises(ValueError, match="1 templates"):
        blind_control(["a b"] * 60, np.arange(60) < 30, np.where(np.arange(60) < 30, 0, np.arange(60)), rng)


def test_few_templates_cannot_give_a_small_p() -> None:
    """Labels of whole templates move together: of two templates every second draw is the labels as they are."""
    assert smallest_p(np.arange(100), np.arange(100)) == 1e-4
    one = np.zeros(100, dtype=np.int64)
    assert smallest_p(one, one) == 0.5
    seen = np.arange(200) < 100
    _, p = permuted_area(
        np.arange(200.0)[::-1], seen, units(np.concatenate([one, one + 1]), seen), np.random.default_rng(0)
    )
    assert p == pytest.approx(0.5, abs=0.05)
    assert smallest_p(np.arange(2), np.arange(3)) == 0.1
