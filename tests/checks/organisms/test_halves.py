"""Organism F holds what it plants, and hides it from single matrices."""

from __future__ import annotations

import numpy as np
import pytest

from checks.clusterability.scores import scores
from checks.organisms.halves import HalvesRecipe, halves

LEAKS = (0.0, 0.3, 0.5, 1.0)


@pytest.mark.parametrize("leak", LEAKS)
def test_writers_and_readers_meet_in_their_half(leak: float) -> None:
    # Within a half, 32 of 64 axes give products of variance 1 and 32 give leak^4; between halves all give leak^2.
    here, after = halves(leak, 0)[:2]
    product = after.mlp_in @ here.mlp_out
    share = (1 + leak**4) / (1 + leak**4 + 2 * leak**2)
    assert scores(product, after.neurons, here.neurons, "raw").c == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("leak", LEAKS)
def test_residual_axes_tell_nothing_of_the_halves(leak: float) -> None:
    # Without the rotation, a neuron's weights would have variance 1 on its half's axes and leak^2 on the others.
    for block in halves(leak, 1):
        power = np.array([np.square(block.mlp_in[block.neurons == half]).mean(axis=0) for half in (0, 1)])
        assert np.abs(np.log(power[0] / power[1])).mean() < 1.0
        assert np.abs(np.log(power[0] / power[1])).min() < 0.5
        assert power.mean() == pytest.approx((1 + leak**2) / 2, rel=0.05)


def test_every_block_has_both_halves() -> None:
    blocks = halves(0.3, 2)
    assert [int(block.heads.sum()) for block in blocks] == [3, 4, 3, 4]
    assert {int(block.neurons.sum()) for block in blocks} == {128}
    assert any(np.any(one.neurons != blocks[0].neurons) for one in blocks[1:])


def test_shapes_follow_the_recipe() -> None:
    size = HalvesRecipe(width=32, hidden=40, layers=2, heads=4, first_heads=(1,), head_width=6)
    blocks = halves(0.5, 3, size)
    assert len(blocks) == 2
    assert blocks[0].mlp_in.shape == (40, 32)
    assert blocks[0].mlp_out.shape == (32, 40)
    assert blocks[0].query.shape == blocks[0].key.shape == blocks[0].value.shape == (4, 6, 32)
    assert blocks[0].output.shape == (4, 32, 6)


def test_a_seed_is_one_organism() -> None:
    first, again, other = (halves(0.3, seed)[0] for seed in (4, 4, 5))
    assert np.array_equal(first.mlp_in, again.mlp_in)
    assert not np.array_equal(first.mlp_in, other.mlp_in)


@pytest.mark.parametrize("leak", [-0.1, 1.1, float("nan")])
def test_a_leak_outside_its_range_is_refused(leak: float) -> None:
    with pytest.raises(ValueError, match="leak"):
        halves(leak, 0)
