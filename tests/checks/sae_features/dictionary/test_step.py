"""The sparse step against the dense autograd step, and its selection against a sort."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch

from benchmarks.sae_features.bare import Bare
from checks.sae_features.dictionary import kept as sparse
from checks.sae_features.dictionary.step import SparseStep, Weights

D, M, K, B, STEPS = 24, 96, 5, 128, 20
SILENCE = 2 * B


def batches(dtype: torch.dtype, steps: int = STEPS) -> list[torch.Tensor]:
    rng = np.random.default_rng(3)
    # Every fourth batch is large, so that its gradient is clipped.
    sizes = [8.0 if t % 4 == 3 else 1.0 for t in range(steps)]
    return [torch.from_numpy(size * rng.standard_normal((B, D)) / D**0.5).to(dtype) for size in sizes]


def start() -> np.ndarray:
    return np.random.default_rng(4).standard_normal((M, D))


def furthest(weights: Weights, bare: Bare) -> float:
    """Return the largest relative difference of a tensor."""
    ours = (weights.enc.T, weights.b_enc, weights.dec, weights.b_dec)
    pairs = zip(ours, (bare.enc, bare.b_enc, bare.dec, bare.b_dec), strict=True)
    return max(float((mine - theirs).detach().norm() / theirs.detach().norm()) for mine, theirs in pairs)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 1e-3)])
@pytest.mark.parametrize("sparsifier", ["batchtopk", "topk"])
def test_fast_step_equals_dense_autograd(
    sparsifier: Literal["batchtopk", "topk"], dtype: torch.dtype, limit: float
) -> None:
    weights = Weights.tied(start(), dtype)
    fast, bare = (
        SparseStep(weights, sparsifier=sparsifier, dead_after=SILENCE),
        Bare(weights.dec.clone(), sparsifier=sparsifier, dead_after=SILENCE),
    )
    joined = 0
    for t, x in enumerate(batches(dtype)):
        joined += int((fast.silent >= SILENCE).sum())
        k = max(1, K - t // 4)
        ours, theirs = fast(x, k, 0.01), bare(x, k, 0.01)
        assert float(ours) == pytest.approx(float(theirs), rel=limit)
    assert joined, "no latent fell silent: the auxiliary loss was not compared"
    assert torch.equal(fast.silent, bare.silent)
    assert furthest(weights, bare) < limit


@pytest.mark.parametrize("frozen", ["decoder", "encoder"])
def test_what_is_frozen_stays_byte_equal(frozen: Literal["decoder", "encoder"]) -> None:
    weights = Weights.tied(start())
    before = Weights.tied(start())
    fast, bare = (
        SparseStep(weights, frozen=frozen, dead_after=SILENCE),
        Bare(before.dec.clone(), frozen=frozen, dead_after=SILENCE),
    )
    for x in batches(torch.float32):
        fast(x, K, 0.01), bare(x, K, 0.01)
    assert torch.equal(weights.dec, before.dec) is (frozen == "decoder")
    assert torch.equal(weights.enc, before.enc) is (frozen == "encoder")
    assert furthest(weights, bare) < 1e-3


def test_rows_stay_unit() -> None:
    weights = Weights.tied(start(), torch.float64)
    fast = SparseStep(weights, dead_after=B)
    for x in batches(torch.float64):
        fast(x, K, 0.01)
    assert float((weights.dec.norm(dim=1) - 1).abs().max()) < 1e-12


def chosen(kept: sparse.Kept) -> set[tuple[int, int]]:
    return set(zip(kept.row_of_entry.tolist(), kept.columns.tolist(), strict=True))


def sorted_out(z: torch.Tensor, count: int) -> set[tuple[int, int]]:
    """Return the first `count` positive entries, largest first, then lower flat index."""
    flat = sorted(((-float(value), place) for place, value in enumerate(z.flatten()) if value > 0))[:count]
    return {divmod(place, z.shape[1]) for _, place in flat}


@pytest.mark.parametrize("floor", [0.0, 0.5, 1.4, 99.0])
def test_selection_is_exact_whatever_the_floor(floor: float) -> None:
    z = torch.from_numpy(np.random.default_rng(1).standard_normal((20, 30))).float()
    assert chosen(sparse.largest_of_batch(z, 60, floor)) == sorted_out(z, 60)


def test_ties_go_to_the_lower_flat_index() -> None:
    z = torch.from_numpy(np.random.default_rng(1).integers(-2, 4, (12, 9))).float()
    for count in (1, 10, 25, 40, 200):
        assert chosen(sparse.largest_of_batch(z, count)) == sorted_out(z, count)
    for count in (1, 3, 8, 9, 20):
        by_row = {(row, column) for row in range(12) for _, column in sorted_out(z[row : row + 1], count)}
        assert chosen(sparse.largest_of_rows(z, count)) == by_row


def test_zero_valued_pick_has_not_fired() -> None:
    # Asked for more entries than are positive, a top-k picks zeros: they are not kept and have not fired.
    z = torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
    assert chosen(sparse.largest_of_batch(z, 4)) == {(0, 0)}
    assert chosen(sparse.largest_of_rows(z, 2)) == {(0, 0)}
    step = SparseStep(Weights.tied(start()), dead_after=10**9)
    step(torch.zeros(B, D), K, 0.0)
    assert step.silent.tolist() == [B] * M


def test_products_equal_the_dense_ones() -> None:
    rng = np.random.default_rng(2)
    z, left, right = (torch.from_numpy(rng.standard_normal(shape)) for shape in ((70, 40), (70, 8), (40, 8)))
    kept = sparse.largest_of_batch(z, 900)
    dense = torch.zeros_like(z).index_put((kept.row_of_entry, kept.columns.long()), kept.values)
    assert torch.allclose(kept.product(right), dense @ right, atol=1e-12)
    wanted = (left @ right.T)[kept.row_of_entry, kept.columns.long()]
    assert torch.allclose(sparse.inner_products(kept, left, right), wanted, atol=1e-12)
    assert torch.allclose(sparse.gathered(kept, left, right), wanted, atol=1e-12)
    assert torch.allclose(sparse.transposed_product(kept, kept.values, left), dense.T @ left, atol=1e-12)
    assert torch.allclose(sparse.column_sums(kept, kept.values), dense.sum(0), atol=1e-12)


def test_gather_stands_in_where_the_sampled_product_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> torch.Tensor:
        raise NotImplementedError

    one, two = Weights.tied(start(), torch.float64), Weights.tied(start(), torch.float64)
    x = batches(torch.float64, 1)[0]
    SparseStep(one, dead_after=10**9)(x, K, 0.01)
    monkeypatch.setattr(sparse, "_sampled", missing)
    SparseStep(two, dead_after=10**9)(x, K, 0.01)
    assert torch.allclose(one.enc, two.enc, atol=1e-14)
