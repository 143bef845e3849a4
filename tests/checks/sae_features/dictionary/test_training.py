"""Training from a stream: what it folds, what it shares, what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from checks.organisms.sae_toy import superposition
from checks.sae_features.dictionary.plan import Named, Plan
from checks.sae_features.dictionary.step import SparseStep
from checks.sae_features.dictionary.stream import RING_BATCHES, Ring, usable
from checks.sae_features.dictionary.training import TAIL, Trained, fold_stream, initial, threshold, train
from checks.sae_features.dictionary.value import Relu, Threshold, TopK

SMALL = Plan(latents=48, k=3, steps=120, batch=256)


def stream(states: int = 120 * 256, seed: int = 5, mean: float = 0.0, scale: float = 1.0) -> Iterator[torch.Tensor]:
    rng = np.random.default_rng(seed)
    world = superposition(16, 32)
    for begin in range(0, states, 5000):
        yield world.draw(min(5000, states - begin), rng)[0] * scale + mean


@pytest.fixture(scope="module")
def trained() -> Trained:
    return fold_stream(stream(), SMALL)


def same(one: Trained, other: Trained) -> bool:
    digests = [[dictionary.sha256 for dictionary in each.dictionaries] for each in (one, other)]
    return digests[0] == digests[1] and one.row_order_sha256 == other.row_order_sha256 and one.curves == other.curves


def test_same_seed_gives_the_same_bytes(trained: Trained) -> None:
    assert same(trained, fold_stream(stream(), SMALL))
    other = fold_stream(stream(), Plan(latents=48, k=3, steps=120, batch=256, seed=1))
    assert other.row_order_sha256 != trained.row_order_sha256
    assert other.dictionaries[0].sha256 != trained.dictionaries[0].sha256


def test_stream_pieces_change_nothing(trained: Trained) -> None:
    again = torch.cat(tuple(stream()))
    assert same(trained, fold_stream(torch.split(again, 777), SMALL))


def test_dictionaries_eat_the_same_batches_and_do_not_touch_each_other(trained: Trained) -> None:
    alone = fold_stream(stream(), Plan(latents=48, k=3, steps=120, batch=256, dictionaries=(Named(1),)))
    assert alone.row_order_sha256 == trained.row_order_sha256
    assert alone.dictionaries[0].sha256 == trained.dictionaries[1].sha256


def test_frozen_decoder_keeps_its_first_rows() -> None:
    plan = Plan(latents=48, k=3, steps=120, batch=256, dictionaries=(Named(0, "decoder"), Named(0, "encoder")))
    decoder, encoder = train(stream(), plan)
    start = initial(plan, 0, 16)
    assert torch.equal(decoder.w_dec, start.dec)
    assert not torch.equal(decoder.w_enc, start.enc.T)
    assert torch.equal(encoder.w_enc, start.enc.T)
    assert not torch.equal(encoder.w_dec, start.dec)


def test_mean_and_scale_are_folded(trained: Trained) -> None:
    moved = fold_stream(
        stream(mean=64.0, scale=8.0), SMALL
    )  # powers of two: the same numbers but for the mean's digits
    x = next(stream(2000, seed=9))
    here, there = trained.dictionaries[0], moved.dictionaries[0]
    away = there.reconstruct(x * 8.0 + 64.0)
    assert torch.allclose((away - 64.0) / 8.0, here.reconstruct(x), atol=2e-2)
    error = float((away - 64.0 - 8.0 * x).square().sum() / (64.0 * (x - x.mean(0)).square().sum()))
    assert error == pytest.approx(
        float((here.reconstruct(x) - x).square().sum() / (x - x.mean(0)).square().sum()), abs=0.01
    )
    assert moved.scale == pytest.approx(8.0 * trained.scale, rel=1e-4)


def test_threshold_is_recalibrated_at_the_end(trained: Trained) -> None:
    # A running mean of the least kept value gave L0 7.44 for k 8.
    tail = torch.cat(tuple(stream()))[-TAIL:]
    for dictionary in trained.dictionaries:
        assert isinstance(dictionary.gate, Threshold)
        active = int((dictionary.encode(tail) > 0).sum())
        assert active == pytest.approx(SMALL.k * len(tail), abs=2)


def test_threshold_falls_to_zero_where_too_few_are_positive(trained: Trained) -> None:
    ungated = replace(trained.dictionaries[0], gate=Relu())
    x = next(stream(500))
    assert threshold(ungated, x, 48, floor=99.0) == 0.0
    assert threshold(ungated, x, 3, floor=99.0) == threshold(ungated, x, 3)


def test_topk_is_stored_as_topk() -> None:
    plan = Plan(latents=48, k=3, steps=20, batch=256, sparsifier="topk", dictionaries=(Named(0),))
    (dictionary,) = train(stream(), plan)
    assert dictionary.gate == TopK(3)
    assert dictionary.fold().gate == TopK(3)  # rows of norm 1: folding is legal


def test_auxk_fires_in_short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    # At a fixed 10 M silent tokens no latent of a run of 100,000 ever counts as dead.
    called = []
    auxiliary = SparseStep._auxiliary

    def noted(*given: object) -> object:
        called.append(1)
        return auxiliary(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(SparseStep, "_auxiliary", noted)
    plan = Plan(latents=512, k=1, steps=100, batch=1000, dictionaries=(Named(0),))
    assert plan.dead_after == 20_000
    fold_stream(stream(100_000), plan)
    assert called


def test_long_runs_wait_a_tenth_of_themselves() -> None:
    assert Plan(latents=8, k=1, steps=4000, batch=512).dead_after == 204_800


def test_schedules() -> None:
    plan = Plan(latents=16384, k=8, steps=1000, batch=1)
    assert [plan.k_at(t) for t in (0, 250, 499, 500, 999)] == [24, 16, 8, 8, 8]
    assert Plan(latents=10, k=8, steps=10).k_at(0) == 10
    assert Plan(latents=64, k=8, steps=10, anneal=False).k_at(0) == 8
    rates = [plan.rate_at(t) / 2e-4 for t in (0, 49, 50, 800, 900, 999)]
    assert rates == pytest.approx([0.02, 1.0, 1.0, 1.0, 0.5, 0.005])
    assert Plan(latents=4096, k=8, steps=10**6).rate_at(10**5) == pytest.approx(4e-4)


def test_ring_hands_out_every_state_once_and_shuffled() -> None:
    ring = Ring(4, 1, np.random.default_rng(0))
    rows = torch.arange(203.0)[:, None]
    out = [*ring.put(rows[:90]), *ring.put(rows[90:]), *ring.drain()]
    states, positions = torch.cat([x for x, _ in out])[:, 0], torch.cat([at for _, at in out])
    assert torch.equal(states, positions.float())
    assert len(states) == 200 == len(set(states.tolist()))
    assert all(len(x) == 4 for x, _ in out)
    # No state leaves before a ring of them was read, and none stays in its place.
    assert int(positions[: 4 * RING_BATCHES // 2].max()) < 4 * RING_BATCHES
    assert not torch.equal(positions, positions.sort().values)


def test_bos_is_neither_trained_nor_edited() -> None:
    # SAELens #350: BOS has a norm of its own and fills the dictionary. By its id, and by its norm where no id tells.
    x = torch.ones(4, 3)
    x[1] *= 11
    assert usable(x, torch.tensor([True, False, False, False]), 3**0.5).tolist() == [False, False, True, True]


def test_short_stream_is_told() -> None:
    told = fold_stream(stream(3000), SMALL)
    assert told.short
    assert (told.steps, told.states) == (3000 // 256, 3000)


def test_loss_falls_and_is_a_share_of_the_variance(trained: Trained) -> None:
    assert not trained.short
    for curve in trained.curves:
        steps, losses = zip(*curve, strict=True)
        assert steps == tuple(range(1, 121))
        assert 0 < losses[-1] < 0.6 * losses[0] < 2


def test_bad_streams_are_refused_with_the_place() -> None:
    broken = torch.ones(10, 16)
    broken[7, 3] = torch.nan
    with pytest.raises(ValueError, match="state 3007 of the stream is not finite"):
        train([*stream(3000), broken], SMALL)
    with pytest.raises(ValueError, match="do not vary"):
        train([torch.ones(1000, 16)], SMALL)
    with pytest.raises(ValueError, match="less than one batch of 256"):
        train(stream(200), SMALL)
    with pytest.raises(ValueError, match="holds no state"):
        train([], SMALL)
    with pytest.raises(ValueError, match="more than the 4 latents"):
        Plan(latents=4, k=5, steps=1)
