"""The mask route: the null keeps degrees and is uniform, p is valid under its early stop, and plants are found."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.linalg import svd
from scipy.stats import chisquare

from checks.clusterability import masks
from checks.clusterability.cocluster import Partition, embed
from checks.clusterability.masks import (
    STOP_AT,
    mask_cocluster,
    mask_stability,
    mask_structure,
    planted_mask,
    sequential_p,
    traded,
)
from checks.clusterability.noise import mask_10_uneven
from checks.clusterability.scores import adjusted_rand
from checks.clusterability.structure import alive, best_of


def every_mask(rows: tuple[int, ...], columns: tuple[int, ...]) -> list[bytes]:
    """Return all masks with these counts, by trying every mask of the shape."""
    cells = (np.array(bits, dtype=bool) for bits in product((0, 1), repeat=len(rows) * len(columns)))
    shaped = (bits.reshape(len(rows), len(columns)) for bits in cells)
    return [m.tobytes() for m in shaped if tuple(m.sum(axis=1)) == rows and tuple(m.sum(axis=0)) == columns]


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (16, 16)])
def test_curveball_keeps_every_degree(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    mask = rng.random(shape) < rng.random(shape[0])[:, None] * rng.random(shape[1])
    moved = traded(mask, 5 * min(shape), rng)
    assert np.array_equal(moved.sum(axis=0), mask.sum(axis=0))
    assert np.array_equal(moved.sum(axis=1), mask.sum(axis=1))
    assert not np.array_equal(moved, mask)


@pytest.mark.parametrize(
    ("rows", "columns"), [((2, 2, 1), (2, 1, 1, 1)), ((2, 1, 1, 1), (2, 2, 1)), ((2, 2, 1, 1), (2, 2, 1, 1))]
)
def test_curveball_reaches_every_matrix(rows: tuple[int, ...], columns: tuple[int, ...]) -> None:
    # All masks of these counts, each as often as any other: the null is uniform given the degrees. The masks differ
    # in how often a trade leaves them as they are, so that a chain which insists on a change is not uniform.
    every = every_mask(rows, columns)
    assert len(every) in (12, 34)
    counts = dict.fromkeys(every, 0)
    state = np.frombuffer(every[0], dtype=bool).reshape(len(rows), len(columns))
    rng = np.random.default_rng(1)
    for _ in range(1000 * len(every)):
        state = traded(state, 8, rng)
        counts[np.ascontiguousarray(state).tobytes()] += 1
    assert min(counts.values()) > 0
    assert chisquare(list(counts.values())).pvalue > 0.001


def test_every_replicate_is_as_far_from_the_hub_as_the_observed_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    # Replicates of one chain that runs on from the observed mask put it at an end; a chain that has not mixed then
    # shows. From a hub that is as many trades from all, the observed mask is one among its likes.
    calls: list[tuple[np.ndarray, int, np.ndarray]] = []

    def recorded(mask: np.ndarray, trades: int, rng: np.random.Generator) -> np.ndarray:
        calls.append((mask, trades, traded(mask, trades, rng)))
        return calls[-1][2]

    monkeypatch.setattr(masks, "traded", recorded)
    mask = planted_mask((20, 30), 2, 0.5, 0.1, np.random.default_rng(2))[0]
    found = mask_structure(mask, (2,), 0, np.random.default_rng(0), 19)
    (first, _, hub), *others = calls
    assert len(others) == found.n
    assert np.array_equal(first, mask)
    assert all(origin is hub for origin, _, _ in others)
    assert {trades for _, trades, _ in calls} == {5 * 20}


def test_p_is_never_zero() -> None:
    mask, _ = planted_mask((64, 96), 3, 0.4, 0.02, np.random.default_rng(3))
    found = mask_structure(mask, (2, 3, 4), 0, np.random.default_rng(0), 29)
    assert (found.exceedances, found.n, found.planned) == (0, 29, 29)
    assert found.p == 1 / 30
    assert min(sequential_p(0, n) for n in (10, 199, 9999)) > 0


def test_observed_and_replicates_are_measured_alike() -> None:
    # Whichever of a pool is called the observed one, its rank is the same: each rank is held once. Moments of the
    # others alone would give some ranks twice and the extreme ones too often.
    for seed in range(20):
        pool = np.random.default_rng([14, seed]).standard_normal((11, 3))
        ranks = [masks._exceedances(pool[one], np.delete(pool, one, axis=0)) for one in range(11)]
        assert sorted(ranks) == list(range(11))


def test_the_sequential_p_is_valid_at_every_level() -> None:
    # Observed and replicates from one law: p <= a happens at most a share a of the time, stop, moments and all.
    rng = np.random.default_rng(4)
    p = []
    for _ in range(1500):
        q = rng.standard_normal((60, 3)) @ np.array([[1, 0.5, 0], [0, 1, 0.5], [0, 0, 1]])
        for n in range(1, 60):
            exceedances = masks._exceedances(q[0], q[1 : n + 1])
            if exceedances >= STOP_AT:
                break
        p.append(sequential_p(exceedances, n))
    for level in (1 / 60, 0.05, 0.1, 0.3, 0.7):
        share = np.mean(np.array(p) <= level)
        assert share <= level + 3 * np.sqrt(level * (1 - level) / len(p)), level
    # And it is not merely cautious: at 1/60 and 3/60, which it can show, the level is used.
    assert np.mean(np.array(p) <= 0.05) > 0.03


def test_noise_stops_at_the_tenth_exceedance() -> None:
    rng = np.random.default_rng(5)
    found = mask_structure(rng.random((32, 48)) < 0.3, (2, 3), 0, rng, 999)
    assert found.exceedances == STOP_AT
    assert found.n < found.planned == 999
    assert found.p == STOP_AT / found.n


def test_degrees_that_allow_one_mask_only_are_no_structure() -> None:
    # A staircase is the only mask of its degrees: its replicates are itself and nothing stands out.
    staircase = np.triu(np.ones((20, 20), dtype=bool))
    found = mask_structure(staircase, (2, 3), 0, np.random.default_rng(0), 99)
    assert found.p == 1.0
    assert found.excess_q == pytest.approx(0.0, abs=1e-9)
    assert np.isfinite(found.null.statistics).all()


def test_degrees_alone_do_not_cluster() -> None:
    # Odds of row times column: all that is there is degrees. Against a shuffle of the entries, the peers' null, the
    # same masks look less clustered than random ones, so that degrees would hide what is there.
    p, shuffled = [], []
    for seed in range(24):
        rng = np.random.default_rng([6, seed])
        mask = alive(mask_10_uneven(rng, (32, 64)))[0] != 0
        p.append(mask_structure(mask, (2, 3), seed, rng, 59).p)
        own = masks._search(mask, (2,), seed)[1][0]
        others = [masks._search(alive(_shuffled(mask, rng))[0] != 0, (2,), seed)[1][0] for _ in range(9)]
        shuffled.append((own - np.mean(others)) / np.std(others))
    assert sum(value <= 0.05 for value in p) <= 5  # of 24 at .05: six or more once in a thousand
    assert 0.15 < np.median(p) < 0.85
    assert np.mean(shuffled) < -0.8


@pytest.mark.slow
@pytest.mark.parametrize("law", ["mask-30", "mask-10", "mask-05", "mask-10-uneven"])
def test_degrees_alone_do_not_cluster_at_the_calibration_shape(law: str) -> None:
    from checks.clusterability.noise import MASKS

    p, excess = [], []
    for seed in range(40):
        rng = np.random.default_rng([7, seed])
        found = mask_structure(alive(MASKS[law](rng))[0] != 0, (2, 3, 4, 6, 8), seed, rng, 199)
        p.append(found.p)
        excess.append(found.excess_q)
    assert sum(value <= 0.05 for value in p) <= 7  # of 40 at .05: eight or more once in a thousand
    assert np.mean(excess) < 0.01


def _shuffled(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return mask.ravel()[rng.permutation(mask.size)].reshape(mask.shape)


def test_planted_masks_are_found() -> None:
    # Organism G: in/out density .2/.05: p at its minimum, ARI .89 (rows).
    rng = np.random.default_rng(8)
    mask, truth = planted_mask((96, 256), 4, 0.2, 0.05, rng)
    found = mask_structure(mask, (3, 4, 6), 0, rng, 39)
    assert found.p == 1 / 40
    assert found.k == 4
    assert adjusted_rand(found.at(4).rows, truth.rows) == pytest.approx(0.89, abs=0.08)
    assert found.excess_q > 0.08
    assert np.median(mask_stability(mask, found.partition, 4, rng)) > 0.7


def test_faint_masks_are_not_called_clustered() -> None:
    # Organism G at .2/.1: p may fall, but the partition does not hold and the excess is near its floor.
    rng = np.random.default_rng(9)
    mask, truth = planted_mask((96, 256), 4, 0.2, 0.1, rng)
    part = mask_cocluster(mask, 4, 0)
    assert adjusted_rand(part.rows, truth.rows) < 0.4
    assert np.median(mask_stability(mask, part, 4, rng)) < 0.6


def test_orientation_and_order_change_nothing() -> None:
    rng = np.random.default_rng(10)
    mask, _ = planted_mask((48, 80), 3, 0.4, 0.05, rng)
    whole = mask_cocluster(mask, 3, 0)
    turned = mask_cocluster(mask.T, 3, 0)
    assert _joint(Partition(turned.columns, turned.rows), whole) == 1.0
    rows, columns = rng.permutation(48), rng.permutation(80)
    moved = mask_cocluster(mask[np.ix_(rows, columns)], 3, 0)
    assert _joint(moved, Partition(whole.rows[rows], whole.columns[columns])) == 1.0
    first, second = (mask_structure(m, (2, 3), 0, np.random.default_rng(1), 19) for m in (mask, mask.T))
    assert first.q == pytest.approx(second.q, abs=1e-9)


def test_the_embedding_is_of_the_damped_mask() -> None:
    # B = M / sqrt((r_i + mean r)(s_j + mean s)), by another solver; without damping a node of one entry owns a vector.
    rng = np.random.default_rng(11)
    mask = (rng.random((20, 31)) < 0.3).astype(np.float64)
    r, s = mask.sum(axis=1), mask.sum(axis=0)
    b = mask / np.sqrt(np.outer(r + r.mean(), s + s.mean()))
    u, singular, vt = svd(b)
    points = embed(mask, 4, damping=masks.DAMPING)
    assert points.singular[:4] == pytest.approx(singular[:4])
    assert np.abs(points.rows / np.sqrt(20)) == pytest.approx(np.abs(u[:, :4]))
    assert np.abs(points.columns / np.sqrt(31)) == pytest.approx(np.abs(vt[:4].T))


def test_empty_nodes_are_refused_or_left_out() -> None:
    mask, _ = planted_mask((32, 48), 2, 0.5, 0.1, np.random.default_rng(12))
    mask[3] = False
    mask[:, 7] = False
    with pytest.raises(ValueError, match="empty"):
        mask_structure(mask, (2,), 0, np.random.default_rng(0), 19)
    part = mask_cocluster(mask, 2, 0)
    assert (part.rows[3], part.columns[7]) == (-1, -1)
    assert set(part.rows[np.arange(32) != 3]) == {0, 1}


def test_the_same_seeds_give_the_same_answer() -> None:
    mask = np.random.default_rng(13).random((24, 40)) < 0.3
    first, second = (mask_structure(mask, (2, 3), 5, np.random.default_rng(6), 19) for _ in range(2))
    assert (first.p, first.q, first.excess_q) == (second.p, second.q, second.excess_q)
    assert np.array_equal(first.null.q, second.null.q)


def _joint(first: Partition, second: Partition) -> float:
    return adjusted_rand(np.concatenate([first.rows, first.columns]), np.concatenate([second.rows, second.columns]))


def test_a_candidate_with_empty_clusters_is_not_the_number_of_clusters() -> None:
    """Two exact blocks score the same at 2 and, six clusters empty, at 8, where the null's mean may be lower."""
    two, eight = np.repeat([0, 1], 4), np.repeat([0, 7], 4)
    assert best_of(np.array([0.40, 0.45]), (2, 8), [two, eight]) == 0
    assert best_of(np.array([0.40, 0.45]), (2, 3), [two, np.array([0, 0, 1, 1, 2, 2, -1, 2])]) == 1
    assert best_of(np.array([0.40, 0.45]), (3, 8), [two, eight]) == 1  # none is full: the largest, as before
    rng = np.random.default_rng(3)
    mask = np.kron(np.eye(2, dtype=bool), np.ones((32, 32), dtype=bool))[rng.permutation(64)]
    assert mask_structure(mask, (2, 3, 5, 7, 8), 0, rng, 99).k == 2


def test_a_draw_that_leaves_no_weight_counts_as_no_agreement() -> None:
    # One full row and one full column: without both of them nothing is left to cluster.
    mask = np.zeros((16, 16), dtype=bool)
    mask[0] = mask[:, 0] = True
    whole = mask_cocluster(mask, 2, 0)
    drawn = np.concatenate([mask_stability(mask, whole, 2, np.random.default_rng(seed)) for seed in range(20)])
    assert len(drawn) == 200
    assert (drawn == 0).any()
