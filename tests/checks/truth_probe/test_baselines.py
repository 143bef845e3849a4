"""Label-free baselines: the leading axis, VINC against its definition written out, halves of any method."""

from __future__ import annotations

import numpy as np
import pytest

from checks.truth_probe import baselines
from checks.truth_probe.baselines import split_half, tpc, vinc
from checks.truth_probe.displacement import displacement, solve_md, stability
from checks.truth_probe.pairs import PairActivations
from tests.checks.truth_probe.planting import pairs_of
from tests.checks.truth_probe.section_ten import plant

rng = np.random.default_rng


def written_out(pairs: PairActivations, item: np.ndarray, w_var: float, w_neg: float) -> np.ndarray:
    """Return VINC's direction by loops over items, as section 5.5 words it."""
    names, width = np.unique(item), pairs.pos.shape[1]
    between, within, cross = (np.zeros((width, width)) for _ in range(3))
    means = {}
    for side, states in (("pos", pairs.pos), ("neg", pairs.neg)):
        means[side] = np.array([states[item == name].mean(axis=0) for name in names])
        between += np.cov(means[side], rowvar=False, bias=True) / 2
        for name in names:
            within += np.cov(states[item == name], rowvar=False, bias=True) / len(names) / 2
    for pos, neg in zip(means["pos"], means["neg"], strict=True):
        cross += (np.outer(pos, neg) + np.outer(neg, pos)) / len(names)
    return np.asarray(np.linalg.eigh(w_var * between - (1 - w_neg) * within - w_neg / 2 * cross)[1][:, -1])


def several(items: int, width: int, seed: int) -> tuple[PairActivations, np.ndarray]:
    """Return items of one to four templates each, with an axis that only some templates have."""
    draw = rng(seed)
    item = np.repeat(np.arange(items), draw.integers(1, 5, items))
    sign = draw.choice([-1.0, 1.0], items)[item][:, None]
    odd = draw.standard_normal((len(item), 1)) * 3
    half = sign * np.eye(width)[0] + odd * np.eye(width)[1]
    shared = draw.standard_normal((items, width))[item]
    noise = draw.standard_normal((2, len(item), width)) * 0.5
    return pairs_of(shared + half + noise[0], shared - half + noise[1]), item


def test_tpc_is_the_first_axis_of_centred_displacement() -> None:
    for n, d in ((200, 24), (20, 60)):
        pairs = plant(3.0, seed=0, n=n, d=d).train
        moved = PairActivations(pairs.pos + 7.0, pairs.neg, pairs.template, pairs.cluster)
        u = displacement(moved)
        top = np.linalg.svd(u - u.mean(axis=0))[2][0]
        assert abs(top @ tpc(moved).vector) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(("w_var", "w_neg"), [(0.0, 0.5), (0.3, 0.5), (0.0, 0.2), (1.0, 0.9)])
@pytest.mark.parametrize("width", [8, 200])
def test_vinc_against_its_definition(width: int, w_var: float, w_neg: float) -> None:
    pairs, item = several(30, width, 1)
    found = vinc(pairs, item, w_var, w_neg)
    assert abs(written_out(pairs, item, w_var, w_neg) @ found.vector) == pytest.approx(1.0, abs=1e-6)
    assert (found.method, found.flags) == ("vinc", ())


@pytest.mark.parametrize(("n", "d"), [(200, 24), (20, 60)])
def test_vinc_of_one_template_is_md_at_one_half(n: int, d: int) -> None:
    pairs = plant(2.0, seed=2, n=n, d=d).train
    found = vinc(pairs, rng(0).permutation(n)).vector
    assert abs(found @ solve_md(pairs, 0.5).vector) >= 1 - 1e-6


def test_vinc_leaves_an_axis_that_templates_disagree_about() -> None:
    # Without its template term the method follows the larger displacement, which is one of wording.
    pairs, item = several(300, 12, 3)
    assert abs(tpc(pairs).vector[1]) > 0.95
    assert abs(vinc(pairs, item, w_neg=0.2).vector[0]) > 0.9


def test_order_of_rows_and_names_of_items_change_nothing() -> None:
    pairs, item = several(40, 12, 4)
    order = rng(0).permutation(len(item))
    renamed = rng(1).permutation(1000)[item]
    again = vinc(pairs.take(order), renamed[order]).vector
    assert again == pytest.approx(vinc(pairs, item).vector, abs=1e-9)


def test_very_wide_vinc_is_flagged_restricted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "DENSE_MAX", 20)
    pairs = plant(4.0, seed=5, n=200, d=40).train
    found = vinc(pairs, np.arange(200))
    assert found.flags == ("restricted",)
    # All 40 components fit in the restriction here, so the answer is the full one.
    assert abs(found.vector @ solve_md(pairs, 0.5).vector) >= 1 - 1e-6


def test_halves_of_md_are_its_stability() -> None:
    pairs = plant(2.0, seed=6, n=200, d=24).train
    halved = split_half(lambda rows: solve_md(pairs.take(rows), 0.1), pairs.cluster, rng(3))
    assert halved == pytest.approx(stability(pairs, 0.1, rng(3)))
    assert (halved < 1).all()


def test_halves_of_a_plant_agree_and_of_noise_do_not() -> None:
    for a, low, high in ((4.0, 0.85, 1.0), (0.0, 0.0, 0.3)):
        pairs = plant(a, seed=7, n=400, d=64).train
        for fit in (tpc, lambda half: vinc(half, np.arange(len(half)), w_neg=0.1)):
            halved = split_half(lambda rows, fit=fit, of=pairs: fit(of.take(rows)), pairs.cluster, rng(0))  # type: ignore[misc]
            assert low <= halved.mean() <= high
