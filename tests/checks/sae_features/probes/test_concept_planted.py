"""The table of O2 (specification, section 14) with dictionaries trained here, on two seeds, and acceptance 12 on them.

The table's cliff between .5 and .75 belongs to training without the fall of k. With it (Plan.anneal, the default of
audits) a dictionary finds the concept at .5 as well, so that the organism of a blind dictionary is trained without.
"""

from __future__ import annotations

import numpy as np
import pytest

from checks.sae_features.probes.concept import ConceptTable
from tests.checks.sae_features.probes.concept_drawn import drawn_rows, learned, read, table

pytestmark = pytest.mark.slow

SEEDS = (0, 1)


def found(amplitude: float, seed: int, train_rows: int = 400, draws: int = 1) -> list[ConceptTable]:
    world, dictionary, frozen = learned(amplitude, seed)
    every = [drawn_rows(world, 50 * seed + draw, train_rows, 2000) for draw in range(draws)]
    return [table(rows, dictionary, frozen=read(frozen, rows.x), seed=seed) for rows in every]


def area(told: list[ConceptTable], probe: str) -> float:
    return float(np.mean([one.read["trained-0"].auroc[probe].value for one in told]))


@pytest.mark.parametrize("seed", SEEDS)
def test_below_the_cliff_the_dense_probe_alone_sees(seed: int) -> None:
    told = found(0.5, seed)
    assert area(told, "dense") == pytest.approx(0.94, abs=0.02)
    assert area(told, "sparse_5") == pytest.approx(0.53, abs=0.02)
    # .536 and .519 here: which 400 rows are drawn decides the second digit.
    assert area(told, "sparse_16") == pytest.approx(0.53, abs=0.02)
    one = told[0].read["trained-0"]
    assert one.delta_sae.low is not None
    assert one.delta_sae.low <= 0
    assert one.delta_sparse_16.high is not None
    assert one.delta_sparse_16.high < -0.05
    assert one.delta_surface.low is not None
    assert one.delta_surface.low > 0
    assert one.p is not None
    assert one.p <= 0.05


@pytest.mark.parametrize("seed", SEEDS)
def test_above_the_cliff_few_labels_favour_the_dictionary(seed: int) -> None:
    world, dictionary, frozen = learned(0.75, seed)

    def at(train_rows: int, draws: int = 8) -> list[ConceptTable]:
        every = [drawn_rows(world, 50 * seed + draw, train_rows, 1000) for draw in range(draws)]
        return [table(rows, dictionary, frozen=read(frozen, rows.x), seed=seed) for rows in every]

    for rows, dense in ((24, 0.917), (80, 0.970), (400, 0.986)):
        told = at(rows, 1 if rows == 400 else 8)
        assert area(told, "sparse_1") == pytest.approx(0.969, abs=0.02)
        # Five subsamples of 80 % have fewer labels than the figure of the table was measured with.
        assert area(told, "dense") == pytest.approx(dense, abs=0.02 if rows > 24 else 0.035)
        if rows == 24:
            assert area(told, "sparse_1") > area(told, "dense") + 0.03


@pytest.mark.parametrize("seed", SEEDS)
def test_a_strong_concept_is_read_from_frozen_rows(seed: int) -> None:
    told = found(1.5, seed)
    assert area(told, "frozen_sparse_16") == pytest.approx(0.992, abs=0.02)
    assert area(told, "sparse_5") == pytest.approx(1.0, abs=0.02)
    assert area(told, "dense") == pytest.approx(1.0, abs=0.02)


def test_annealing_finds_what_the_table_lacks() -> None:
    world, dictionary, _ = learned(0.5, 0, anneal=True)
    one = table(drawn_rows(world, 0, 400, 1000), dictionary).read["trained-0"]
    cosines = dictionary.rows.double().numpy() @ world.direction
    assert cosines.max() > 0.95
    assert one.auroc["sparse_1"].value == pytest.approx(0.84, abs=0.04)
