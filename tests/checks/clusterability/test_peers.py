"""Defects of peer tools as regression tests, specification section 9: those that concern what is told of a matrix.

Others of that section stand where their subject is tested: `grep -rn "def test_" tests/checks/clusterability`.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from assay.result import Measured

from checks.clusterability.check import Clusterability
from checks.clusterability.cocluster import Partition, assign, cocluster, embed
from checks.clusterability.controls import c_of_plant, planted
from checks.clusterability.findings import matrices_of, word_of
from checks.clusterability.lesion_findings import DETECTED
from checks.clusterability.network import network_partition
from checks.clusterability.scores import adjusted_rand
from checks.clusterability.structure import stability
from checks.clusterability.transformer import virtual_mlp
from checks.clusterability.views import normal_scores
from tests.checks.clusterability.evidence import evidence_of

RHOS = {"fc1": 0.2, "fc2": 0.5, "fc3": 0.35}


@pytest.fixture(scope="module")
def three() -> Measured:
    rng = np.random.default_rng(1)
    return Clusterability().measure(
        evidence_of({name: planted((96, 256), 4, rho, rng)[0] for name, rho in RHOS.items()})
    )


def test_score_reads_the_clustered_matrix(three: Measured) -> None:
    """7vik/nn-modularity: the notebook scores fc2, whatever matrix was clustered."""
    for name, rho in RHOS.items():
        told = three.find("c", matrix=name, view="raw")
        assert told is not None
        assert float(told.value) == pytest.approx(c_of_plant(4, rho), abs=0.03)


HIDDEN, NEXT, WIDTH, K = 72, 60, 40, 3


def signals(sides: tuple[np.ndarray, np.ndarray], rng: np.random.Generator, weak: float = 0.2) -> np.ndarray:
    """Return a matrix [out, in] between nodes whose clusters are given, weights across clusters weaker."""
    outputs, inputs = sides
    inside = outputs[:, None] == inputs
    return np.asarray(rng.standard_normal(inside.shape) * np.where(inside, 1.0, weak))


def agree(found: np.ndarray, truth: np.ndarray) -> bool:
    return len(found) == len(truth) and adjusted_rand(found, truth) >= 0.95


def test_rows_are_outputs_in_every_family() -> None:
    """7vik/nn-modularity: labels were chained with rows and columns mixed up, [out, in] read as [in, out]."""
    rng = np.random.default_rng(2)
    hidden, follower, width = (rng.permutation(np.arange(side) % K) for side in (HIDDEN, NEXT, WIDTH))
    w_in, w_out, w_next = (signals(sides, rng) for sides in ((hidden, width), (width, hidden), (follower, width)))
    taller, wider = cocluster(w_in, K, 0), cocluster(w_out, K, 0)
    assert agree(taller.rows, hidden)
    assert agree(taller.columns, width)
    assert agree(wider.rows, width)
    assert agree(wider.columns, hidden)
    virtual = cocluster(virtual_mlp(w_next, w_out), K, 0)
    assert agree(virtual.rows, follower)
    assert agree(virtual.columns, hidden)
    chain = network_partition([w_in, w_out, w_next], K, 0)
    assert all(agree(got, truth) for got, truth in zip(chain.layers, (width, hidden, width, follower), strict=True))


def joined(part: Partition) -> np.ndarray:
    return np.concatenate([part.rows, part.columns])


@pytest.mark.parametrize("draw", range(3))
def test_seed_ari_does_not_vouch(draw: int) -> None:
    """Peers vouch for a partition by the agreement of k-means seeds: on pure noise that is 1 at two clusters."""
    noise = np.random.default_rng(draw).standard_normal((96, 256))
    points = embed(normal_scores(noise).mass, 2)
    by_seed = [assign(points, 2, seed) for seed in range(5)]
    seeds_agree = np.mean([adjusted_rand(joined(a), joined(b)) for a, b in combinations(by_seed, 2)])
    assert seeds_agree > 0.9
    limits = Clusterability().limits()
    assert np.median(stability(noise, by_seed[0], 2, np.random.default_rng(0))) < limits.min_stability
    measured = Clusterability(k=(2, 3)).measure(evidence_of({"w": noise}))
    assert word_of(matrices_of(measured)[0], limits)[0] != DETECTED
