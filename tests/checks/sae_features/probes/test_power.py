"""Power: what is planted is what is told, nothing planted is not seen, and a dictionary's own rows are seen earlier."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from checks.organisms.sae_toy import planted
from checks.sae_features.dictionary.value import Relu
from checks.sae_features.probes.concept import ProbeSettings
from checks.sae_features.probes.power import AMPLITUDES, PowerPoint, power_table
from checks.sae_features.probes.power_plants import _middle
from tests.checks.sae_features.probes.concept_drawn import background_only, draws, knows

WORLD = planted(0.0)


def states(n: int = 300) -> np.ndarray:
    return WORLD.draw(np.zeros(n, dtype=bool), np.random.default_rng(5)).numpy()


def singles(n: int) -> list[str]:
    return [f"g{row}" for row in range(n)]


@pytest.fixture(scope="module")
def told() -> dict[tuple[str, float, str], PowerPoint]:
    points = power_table(states(), singles(300), background_only(WORLD), ProbeSettings(), draws(), draws=8)
    return {(one.place, one.amplitude, one.probe): one for one in points}


def test_every_point_is_told(told: dict[tuple[str, float, str], PowerPoint]) -> None:
    wanted = {("out", 0.0)} | {(place, a) for place in ("in", "out") for a in AMPLITUDES}
    assert set(told) == {(*point, probe) for point in wanted for probe in ("dense", "sparse_5", "either")}
    for (_, amplitude, _), one in told.items():
        assert one.draws == (8 if amplitude else 20)
        assert 0 <= one.low <= one.detected <= one.high <= 1
        assert (one.n, one.groups) == (300, 300)


def test_nothing_planted_is_not_detected(told: dict[tuple[str, float, str], PowerPoint]) -> None:
    blank = told["out", 0.0, "either"]
    assert blank.detected <= 2 / 20
    assert blank.auroc == pytest.approx(0.5, abs=0.05)
    assert blank.high < 0.35


def test_strong_plants_are_seen_and_strength_helps(told: dict[tuple[str, float, str], PowerPoint]) -> None:
    # The control of section 10: a plant of .5 R along a latent's row is read by both probes.
    for probe in ("dense", "sparse_5"):
        assert told["in", 0.5, probe].auroc >= 0.90
        assert told["in", 0.5, probe].detected == 1.0
        rising = [told["in", a, probe].auroc for a in AMPLITUDES]
        assert rising == sorted(rising)
    assert told["in", 0.1, "sparse_5"].detected < 0.5


def test_a_direction_the_dictionary_lacks_is_the_harder_one(told: dict[tuple[str, float, str], PowerPoint]) -> None:
    assert told["out", 0.5, "sparse_5"].auroc < told["in", 0.5, "sparse_5"].auroc - 0.05
    assert told["out", 0.5, "dense"].auroc > 0.95


def test_strength_is_in_units_of_the_states() -> None:
    # Plants of a fixed length would be invisible in a model of large states, and its power a fiction.
    x = states(120)
    reads = replace(knows(np.eye(64)), gate=Relu())
    one, other = (power_table(size * x, singles(120), reads, ProbeSettings(), draws(), draws=2) for size in (1.0, 64.0))
    dense = [[point.auroc for point in points if point.probe == "dense"] for points in (one, other)]
    np.testing.assert_allclose(dense[0], dense[1], atol=1e-3)


def test_whole_groups_are_planted_in_and_none_is_split() -> None:
    # States of one document are alike: planted state by state, a probe would know the document from train.
    few = [f"g{row // 10}" for row in range(400)]
    points = power_table(states(400), few, background_only(WORLD), ProbeSettings(), draws(), draws=2)
    assert {one.groups for one in points} == {40}
    assert {one.detected for one in points if one.amplitude == 0} <= {0.0, 0.05, 0.1}


def test_more_concepts_need_more_power() -> None:
    args = (states(150), singles(150), background_only(WORLD), ProbeSettings(), draws(), 2)
    alone, among = power_table(*args), power_table(*args, tests=40)
    assert all(one.detected >= other.detected for one, other in zip(alone, among, strict=True))
    assert [one.auroc for one in alone] == [one.auroc for one in among]


def test_latents_of_middle_density_are_planted() -> None:
    density = np.array([0.0, 0.5, 0.01, 0.2, 0.0, 0.3, 0.4, 0.02])
    assert _middle(density).tolist() == [3, 5]
    assert _middle(np.array([0.0, 0.1])).tolist() == [1]
    with pytest.raises(ValueError, match="no latent is live"):
        _middle(np.zeros(3))


def test_bad_states_are_refused() -> None:
    args = (background_only(WORLD), ProbeSettings(), draws())
    with pytest.raises(ValueError, match="300 states and 299 groups"):
        power_table(states(), singles(299), *args)
    with pytest.raises(ValueError, match="19 groups"):
        power_table(states(19), singles(19), *args)
    with pytest.raises(ValueError, match="do not vary"):
        power_table(np.ones((30, 64)), singles(30), *args)
