"""What a claim says of its own strength: draws that were made, power that was measured, and what speaks for a model."""

from __future__ import annotations

import numpy as np

from checks.clusterability.check import Clusterability
from checks.clusterability.findings import Limits, findings
from checks.clusterability.intervals import clopper_pearson, stopped_at
from tests.checks.clusterability.evidence import evidence_of

LIMITS = Limits(alpha=0.05, min_excess_q=0.02, min_stability=0.7, min_cluster_share=0.01)


def test_a_mask_whose_null_stopped_early_tells_the_draws_that_were_made() -> None:
    rng = np.random.default_rng(70)
    sparse = rng.standard_normal((32, 48)) * (rng.random((32, 48)) < 0.3)
    check = Clusterability(nulls=499, k=(2,), families=("mlp_in",))
    measured = check.measure(evidence_of({"w": sparse}))
    p, held = measured.find("p", matrix="w"), measured.find("p_holm", matrix="w")
    assert p is not None
    assert held is not None
    assert 10 <= p.n < held.n == 499
    assert p.interval is not None
    assert p.interval.method == "inverse-binomial"
    claim = findings(measured, check.limits(), ())[0].claim
    assert f"{p.n} null draws of 499 planned, stopped early" in claim
    dense = check.measure(evidence_of({"w": rng.standard_normal((32, 48))}))
    drawn = dense.find("p", matrix="w")
    assert drawn is not None
    assert drawn.interval is not None
    assert drawn.interval.method == "clopper-pearson"
    assert "499 null draws." in findings(dense, check.limits(), ())[0].claim


def test_an_interval_after_stopping_covers_what_it_should() -> None:
    rng = np.random.default_rng(71)
    for p in (0.05, 0.3, 0.8):
        drawn = 10 + rng.negative_binomial(10, p, size=2000)
        bounds = {int(n): stopped_at(10, int(n)) for n in np.unique(drawn)}
        covered = np.mean([bounds[int(n)][0] <= p <= bounds[int(n)][1] for n in drawn])
        assert covered >= 0.94
    assert stopped_at(10, 10)[1] == 1.0
    # One success was bound to be the last draw: the upper end lies below that of a fixed number of draws.
    assert stopped_at(10, 40)[1] < clopper_pearson(10, 40)[1]
    assert stopped_at(10, 40)[0] == clopper_pearson(10, 40)[0]
