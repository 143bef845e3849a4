"""Differences against planted pairs, an independent computation, a null, and coverage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from assay.compare import words
from assay.compare.differences import Difference, Told, paired, shares, unpaired
from assay.compare.influence import influence
from scipy import stats

from checks.holm import holm as of_checks
from tests.client.compare.planted import C3, P1, P2, P3, P4, Y4, items

TAIL = 0.05


def found(pair: Sequence[Sequence[float]], values: tuple[float, float] = (0.0, 0.0), **how: Any) -> Difference:
    a, b = (items(side, **how) for side in pair)
    return paired(a, b, *values)


def ends(told: Difference, tail: float = TAIL) -> tuple[float, float]:
    interval = told.interval(tail)
    assert interval is not None
    return interval


def test_p1_shares_of_the_same_items() -> None:
    a, b = P1
    assert (sum(x > y for x, y in zip(a, b, strict=True)), sum(x < y for x, y in zip(a, b, strict=True))) == (68, 92)
    told = found(P1, step="1")
    assert told.method == "bonett_price"
    assert told.d == pytest.approx(0.06)
    assert ends(told) == pytest.approx((-0.002079, 0.121482), abs=5e-7)
    assert told.p == pytest.approx(0.068682, abs=5e-7)
    assert words.word(ends(told), told.p, "higher", None) == "cannot_tell"


def test_p2_pairing_is_fourteen_times_narrower() -> None:
    told = found(P2)
    assert (told.d, told.se) == pytest.approx((0.0199015, 0.00144511), abs=5e-8)
    assert ends(told) == pytest.approx((0.0170605, 0.0227425), abs=5e-8)
    half = [1.959963984540054 * float(np.std(side, ddof=1)) / 20 for side in P2]
    apart = [Told(float(np.mean(side)), float(np.mean(side)) - h, float(np.mean(side)) + h, 0.95) for side, h in
             zip(P2, half, strict=True)]  # fmt: skip
    alone = unpaired(*apart)
    assert alone.method == "unpaired"
    assert alone.se == pytest.approx(0.0204875, abs=5e-8)
    assert alone.se is not None
    assert told.se is not None
    assert 14 < alone.se / told.se < 14.5
    assert words.word(ends(alone), alone.p, "higher", None) == "cannot_tell"
    assert words.word(ends(told), told.p, "higher", None) == "improved"


def test_p3_clusters_are_not_ignored() -> None:
    told, wrong = found(P3, clusters=C3), found(P3)
    assert (told.d, told.se) == pytest.approx((0.0675486, 0.00426880), abs=5e-8)
    assert wrong.se == pytest.approx(0.00206867, abs=5e-9)
    assert ends(told) == pytest.approx((0.0589701, 0.0761271), abs=5e-8)


def test_p4_areas_of_the_same_items() -> None:
    a, b = (items(side, reducer="auc", targets=Y4) for side in P4)
    assert (influence(a).theta, influence(b).theta) == pytest.approx((0.920525, 0.998475), abs=5e-7)
    told = paired(a, b, 0.0, 0.0)
    assert told.se == pytest.approx(0.0118704, abs=5e-8)
    delong = _delong(np.array([a.scores, b.scores]), np.array(Y4))
    assert delong == pytest.approx(0.0118853, abs=5e-8)


def _delong(scores: np.ndarray, targets: np.ndarray) -> float:
    """DeLong's standard error of the difference of two areas, from placements and their covariances."""
    pos, neg = scores[:, targets == 1], scores[:, targets == 0]
    beats = (pos[:, :, None] > neg[:, None, :]) + 0.5 * (pos[:, :, None] == neg[:, None, :])
    v10, v01 = np.diff(beats.mean(axis=2), axis=0)[0], np.diff(beats.mean(axis=1), axis=0)[0]
    return float(np.sqrt(v10.var(ddof=1) / len(v10) + v01.var(ddof=1) / len(v01)))


def test_area_with_ties_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(3)
    for size, spread in ((9, 2), (40, 5), (60, 10**9)):
        scores, targets = rng.integers(-spread, spread, size), rng.permutation(np.arange(size) % 3 == 0).astype(int)
        made = influence(items([int(s) for s in scores], step="1", reducer="auc", targets=[int(t) for t in targets]))
        pos, neg = scores[targets == 1], scores[targets == 0]
        beats = (pos[:, None] > neg[None, :]) + 0.5 * (pos[:, None] == neg[None, :])
        expected = np.empty(size)
        expected[targets == 1] = size / len(pos) * (beats.mean(axis=1) - beats.mean())
        expected[targets == 0] = size / len(neg) * (beats.mean(axis=0) - beats.mean())
        assert made.theta == pytest.approx(beats.mean(), abs=1e-12)
        assert made.psi() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("clustered", [False, True])
def test_paired_difference_is_numpys(clustered: bool) -> None:
    rng = np.random.default_rng(5)
    a, b = np.round(rng.normal(100.0, 0.1, (2, 120)), 6)
    groups = np.repeat(np.arange(30), 4) if clustered else np.arange(120)
    u = (b - b.mean()) - (a - a.mean())
    sums = np.bincount(groups, u)
    g = len(sums)
    se = float(np.sqrt(g / (g - 1) * (sums**2).sum()) / 120)
    told = paired(
        items(a, step="0.000001", clusters=[int(x) for x in groups] if clustered else None),
        # Another step on the other side is another scale, not another item.
        items(b, step="0.0000001", clusters=[int(x) for x in groups] if clustered else None),
        0.0,
        0.0,
    )
    assert told.d == pytest.approx(float(b.mean() - a.mean()), abs=1e-11)
    assert told.se == pytest.approx(se, rel=1e-9)
    assert told.p == pytest.approx(2 * stats.t.sf(abs(told.d) / se, g - 1), rel=1e-7)


def test_influence_values_move_the_reports_own_numbers() -> None:
    rng = np.random.default_rng(6)
    psi = np.round(rng.normal(size=(2, 50)), 6)
    told = found(psi.tolist(), (0.25, 0.5), step="0.000001", reducer="influence")
    assert told.d == 0.25
    u = psi[1] - psi[0]
    assert told.se == pytest.approx(np.sqrt(50 / 49 * (u**2).sum()) / 50, rel=1e-9)


def test_few_clusters_cannot_tell() -> None:
    for size, word in ((56, "few_clusters"), (64, None)):
        sides = [[0.1 * i * i + shift * (i % 11) for i in range(size)] for shift in (0, 5)]
        told = found(sides, clusters=[i // 8 for i in range(size)])
        assert told.reason == word
        assert (told.interval(TAIL) is None) is (word is not None)
    assert shares([True] * 7, [False] * 7).reason == "few_clusters"


ROW = [0.1 * i for i in range(20)]
NO_SPREAD: dict[str, tuple[list[float], list[float], dict[str, Any]]] = {
    "every item moved by the same": (ROW, [one + 0.3 for one in ROW], {}),
    "ranks that no item changed": (ROW, [2 * one for one in ROW], {"reducer": "auc", "targets": [0] * 10 + [1] * 10}),
    "clusters that cancel out": (
        ROW,
        [one + 0.1 * (-1) ** i for i, one in enumerate(ROW)],
        {"clusters": [i // 2 for i in range(20)]},
    ),
}


@pytest.mark.parametrize("name", NO_SPREAD)
def test_without_any_spread_nothing_is_told_not_even_with_a_margin(name: str) -> None:
    a, b, how = NO_SPREAD[name]
    told = found((a, b), **how)
    assert (told.method, told.reason, told.tested) == ("none", "no_spread", False)
    for margin in (None, 0.5):
        assert words.word(told.interval(TAIL), told.p, "higher", margin) == "cannot_tell"


@pytest.mark.parametrize("how", [how for _, _, how in NO_SPREAD.values()])
def test_items_that_scored_the_same_have_no_difference_and_that_is_a_fact(how: dict[str, Any]) -> None:
    told = found((ROW, ROW), **how)
    assert (told.d, told.interval(TAIL), told.reason) == (0.0, (0.0, 0.0), None)
    assert words.word(told.interval(TAIL), told.p, "higher", None) == "cannot_tell"
    assert words.word(told.interval(TAIL), told.p, "higher", 0.001) == "equivalent"


def test_equal_influence_values_of_two_numbers_are_no_proof_of_their_difference() -> None:
    told = found((ROW, ROW), (0.7, 0.9), reducer="influence")
    assert (told.method, told.reason) == ("none", "no_spread")
    assert found((ROW, ROW), (0.7, 0.7), reducer="influence").interval(TAIL) == (0.0, 0.0)


FLAT, EXACT = Told(0.9, 0.9, 0.9, 0.95), Told(0.9, certain=True)


@pytest.mark.parametrize("sides", [(FLAT, FLAT), (FLAT, EXACT), (EXACT, FLAT), (Told(0.5, 0.4, 0.6, 0.95), FLAT)])
def test_an_interval_without_width_is_no_certainty(sides: tuple[Told, Told]) -> None:
    """A bootstrap of five items that were all right has one; "at least as good as before" was proven by it."""
    told = unpaired(*sides)
    assert (told.method, told.reason, told.interval(TAIL), told.tested) == ("none", "no_spread", None, False)
    assert words.word(told.interval(TAIL), told.p, "higher", 1.0) == "cannot_tell"


def test_compare_without_statistics() -> None:
    """Two numbers and how far they lie apart say nothing yet: without an interval there is no word for it."""
    certain = unpaired(Told(3.0, certain=True), Told(5.0, certain=True))
    assert certain.method == "exact"
    assert not certain.tested
    assert words.word(certain.interval(TAIL), None, "lower", None, certain=True) == "regressed"
    bare = unpaired(Told(3.0), Told(5.0))
    assert (bare.method, bare.reason, bare.interval(TAIL)) == ("none", "no_interval", None)
    assert words.word(bare.interval(TAIL), bare.p, "higher", None) == "cannot_tell"
    flat = unpaired(Told(0.0, 0.0, 0.0, 0.95), Told(1.0, 1.0, 1.0, 0.95))
    assert words.word(flat.interval(TAIL), flat.p, "higher", None) == "cannot_tell"


def test_words_follow_interval_and_test_together() -> None:
    assert words.word((0.01, 0.03), 0.2, "higher", None) == "cannot_tell"
    assert words.word((-0.01, 0.03), 0.001, "higher", None) == "cannot_tell"
    assert words.word((0.01, 0.03), 0.001, "higher", None) == "improved"
    assert words.word((0.01, 0.03), 0.001, "lower", None) == "regressed"
    assert words.word((-0.03, -0.01), 0.001, "higher", None) == "regressed"
    assert words.word((-0.03, -0.01), 0.001, "none", None) == "changed"
    assert words.word((0.01, 0.03), 0.001, "higher", 0.03) == "equivalent"
    assert words.word((0.01, 0.03), 0.001, "higher", 0.02) == "improved"
    assert words.word(None, None, "higher", 1.0) == "cannot_tell"


def test_holm_is_that_of_the_checks() -> None:
    for p in ([0.01, 0.04, 0.03, 0.005, 0.5], [0.9, 0.8], [1e-9, 1e-9, 1.0]):
        assert words.holm(p) == pytest.approx(of_checks(p), abs=0.0, rel=1e-15)


def test_holm_by_hand() -> None:
    assert words.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert words.holm([0.9, 0.8]) == (1.0, 1.0)
    assert words.holm([0.0]) == (words.P_FLOOR,)
    assert words.holm([]) == ()


def draw(rng: np.random.Generator, groups: int, *, ignore: bool = False) -> Difference:
    """A difference whose truth is 0: scores at ICC 0.3 with 8 items a cluster."""
    size = groups * 8
    u = np.sqrt(0.3) * np.repeat(rng.normal(size=groups), 8) + np.sqrt(0.7) * rng.normal(size=size)
    a = rng.normal(size=size)
    clusters = None if ignore else [i // 8 for i in range(size)]
    return found((a.tolist(), (a + u).tolist()), step="0.000001", clusters=clusters)


def a_a_share(draws: int, seed: int) -> float:
    rng, said = np.random.default_rng(seed), 0
    for _ in range(draws):
        told = draw(rng, 20)
        said += words.word(told.interval(TAIL), told.p, "higher", None) in ("improved", "regressed")
    return said / draws


def test_null_comparisons_find_no_change_small() -> None:
    # 300 draws at a true share of 0.05: 0.09 is three standard errors above.
    assert a_a_share(300, 11) <= 0.09


@pytest.mark.slow
def test_null_comparisons_find_no_change() -> None:
    assert a_a_share(2000, 12) <= 0.065


def coverage(draws: int, groups: int, seed: int, *, ignore: bool = False) -> float:
    rng, inside = np.random.default_rng(seed), 0
    for _ in range(draws):
        low, high = ends(draw(rng, groups, ignore=ignore))
        inside += low <= 0.0 <= high
    return inside / draws


def test_coverage_without_clusters_is_known_to_be_wrong() -> None:
    assert coverage(300, 20, 22, ignore=True) < 0.85


def test_coverage_of_clusters_small() -> None:
    assert 0.90 <= coverage(200, 20, 21) <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize("groups", [20, 50])
def test_coverage_of_clusters(groups: int) -> None:
    assert 0.93 <= coverage(1500, groups, 23 + groups) <= 1.0


SETTINGS = [(50, 0.02, 0.02), (100, 0.1, 0.15), (400, 0.01, 0.03), (100, 0.01, 0.01), (30, 0.2, 0.2)]
"""Items, chance that A alone is right, chance that B alone is."""


def share_coverage(draws: int, n: int, lost: float, won: float, seed: int) -> float:
    rng, inside = np.random.default_rng(seed), 0
    for _ in range(draws):
        kind = rng.choice(4, size=n, p=[lost, won, (1 - lost - won) / 2, (1 - lost - won) / 2])
        a, b = [bool(k in (0, 2)) for k in kind], [bool(k in (1, 2)) for k in kind]
        low, high = ends(shares(a, b))
        inside += low <= won - lost <= high
    return inside / draws


def test_coverage_of_shares_small() -> None:
    assert 0.91 <= share_coverage(200, 100, 0.1, 0.15, 31) <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize(("n", "lost", "won"), SETTINGS)
def test_coverage_of_shares(n: int, lost: float, won: float) -> None:
    assert 0.93 <= share_coverage(1500, n, lost, won, 37) <= 1.0
