from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control, mannwhitneyu

from checks.sae_features.probes.concept_latents import benjamini_hochberg, latent_p_values
from tests.checks.sae_features.probes.concept_drawn import rows_of


def drawn(n: int = 120, m: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(2 * n) % 2
    latents = np.maximum(rng.standard_normal((2 * n, m)), 0)
    latents[:, 5] = 0
    return labels, latents


def test_adjusted_p_are_scipys() -> None:
    p = np.random.default_rng(0).random(50) ** 3
    p[7] = p[9]
    np.testing.assert_allclose(benjamini_hochberg(p.tolist()), false_discovery_control(p), rtol=1e-12)


def test_the_best_of_many_latents_of_noise_is_no_finding() -> None:
    # The least of 299 p is near 1/300; corrected it is not below .05.
    labels, latents = drawn(m=300)
    rows = rows_of(latents[:, :4], labels, ["train"] * 120 + ["test"] * 120)
    told = latent_p_values(rows, latents, np.random.default_rng(1), 2000)
    assert [one.latent for one in told] == [one for one in range(300) if one != 5]
    assert min(one.p for one in told) < 0.05 < min(one.p_bh for one in told)
    assert np.mean([one.p for one in told]) == pytest.approx(0.5, abs=0.12)


def test_a_planted_latent_is_found_on_either_side_and_on_test_only() -> None:
    labels, latents = drawn()
    test = np.arange(240) >= 120
    latents[:, 7] += 0.9 * labels * test
    latents[:, 8] += 0.9 * (1 - labels) * test
    latents[:, 9] += 5 * labels * ~test
    rows = rows_of(latents[:, :4], labels, ["train"] * 120 + ["test"] * 120)
    told = {one.latent: one for one in latent_p_values(rows, latents, np.random.default_rng(1), 2000)}
    assert {latent for latent, one in told.items() if one.p_bh <= 0.05} == {7, 8}
    assert told[7].auroc > 0.6 > 0.4 > told[8].auroc
    assert told[9].p > 0.01


def test_p_of_single_rows_is_that_of_the_rank_sum() -> None:
    labels, latents = drawn()
    latents[:, 3] += 0.3 * labels
    rows = rows_of(latents[:, :4], labels, ["train"] * 120 + ["test"] * 120)
    told = {one.latent: one for one in latent_p_values(rows, latents, np.random.default_rng(1), 4000)}
    for latent in (0, 3, 20):
        up, down = (latents[120:, latent][labels[120:] == side] for side in (1, 0))
        assert told[latent].p == pytest.approx(mannwhitneyu(up, down).pvalue, abs=0.03)


def test_bad_rows_are_refused() -> None:
    labels, latents = drawn()
    rows = rows_of(latents[:, :4], labels, ["train"] * 120 + ["test"] * 120)
    with pytest.raises(ValueError, match="239 rows"):
        latent_p_values(rows, latents[1:], np.random.default_rng(0))
    single = rows_of(latents[:, :4], np.where(np.arange(240) < 120, labels, 1), rows.split)
    with pytest.raises(ValueError, match="one class"):
        latent_p_values(single, latents, np.random.default_rng(0))
