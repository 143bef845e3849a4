"""Last steps through a model: the gradient of the whole chain, what they gain over as many steps without it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd import backward

from checks.passages import Change, Gradients, States
from checks.sae_features.dictionary.plan import Named, Plan
from checks.sae_features.dictionary.step import Weights
from checks.sae_features.dictionary.tail import Tail, TailStep, both_parts, kl_tail, normalised, tail_budget
from checks.sae_features.dictionary.training import Trained, fold_stream, in_raw_units
from checks.sae_features.dictionary.value import Dictionary, LayerNorm, Threshold, TopK
from tests.checks.sae_features.dictionary.drawn import drawn
from tests.checks.sae_features.dictionary.toy_site import WIDTH, ToySite

LENGTH = 25
TRAIN = {f"t{number:03}": LENGTH for number in range(300)}
HELD = [f"h{number:02}" for number in range(60)]
NAMES = [*TRAIN, *HELD]
PLAN = Plan(latents=64, k=4, steps=1000, batch=256, dictionaries=(Named(0),), objective="mse_kl_tail")


def editable(states: States) -> np.ndarray:
    return ~states.special


def stream(site: ToySite, repeats: int = 40) -> Iterator[torch.Tensor]:
    rng = np.random.default_rng(0)
    for _ in range(repeats):
        for states in site.states([list(TRAIN)[at] for at in rng.permutation(len(TRAIN))]):
            yield torch.from_numpy(states.vectors[editable(states)])


@pytest.fixture(scope="module")
def site() -> ToySite:
    return ToySite(NAMES, LENGTH)


@pytest.fixture(scope="module")
def trained(site: ToySite) -> Trained:
    return fold_stream(stream(site), PLAN)


def run(site: Any, trained: Trained, plan: Plan = PLAN, seed: int = 0, **more: Any) -> Tail:
    given: dict[str, Any] = {"passages": TRAIN, "editable": editable, "dictionary": trained.dictionaries[0]} | more
    return kl_tail(
        given.pop("dictionary"), site, given.pop("passages"), given.pop("editable"), plan, trained.mean, trained.scale,
        np.random.default_rng(seed), **given,
    )  # fmt: skip


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Return a plan whose tail is 20 steps, for what does not depend on how far they lead."""
    monkeypatch.setattr("checks.sae_features.dictionary.plan.TAIL_LEAST", 20)
    return replace(PLAN, steps=100)


@pytest.fixture(scope="module")
def tail(site: ToySite, trained: Trained) -> Tail:
    return run(site, trained)


def splicing(dictionary: Dictionary) -> Change:
    def change(states: States) -> np.ndarray:
        made = dictionary.reconstruct(torch.from_numpy(states.vectors)).numpy()
        return np.where(editable(states)[:, None], made, states.vectors)

    return change


def ev(site: ToySite, dictionary: Dictionary) -> float:
    x = torch.cat([torch.from_numpy(states.vectors[editable(states)]) for states in site.states(HELD)])
    return 1 - float((x - dictionary.reconstruct(x)).square().sum() / (x - x.mean(0)).square().sum())


def test_bad_input_is_named(site: ToySite, trained: Trained) -> None:
    plain = replace(PLAN, objective="mse")
    own = trained.dictionaries[0]
    ragged = replace(own, gate=Threshold(torch.arange(64.0)))
    for match, more in (
        ("no steps through the model", {"plan": plain}),
        ("no passages", {"passages": {}}),
        ("one without tokens", {"passages": {"t000": 0}}),
        ("width 16 at a site of width 24", {"dictionary": drawn()}),
        ("unit rows, pre_bias", {"dictionary": replace(own, w_dec=own.w_dec * 2)}),
        ("unit rows, pre_bias", {"dictionary": replace(own, pre_bias=False)}),
        ("unit rows, pre_bias", {"dictionary": replace(own, norm=LayerNorm())}),
        ("the plan's gate", {"dictionary": replace(own, gate=TopK(4))}),
        ("the plan's gate", {"dictionary": ragged}),
        ("64 latents, the plan says 32", {"plan": replace(PLAN, latents=32)}),
        ("step 0 of the tail: no state may be edited", {"editable": lambda states: np.zeros(len(states.token), bool)}),
    ):
        with pytest.raises(ValueError, match=match):
            run(site, trained, **more)


@pytest.mark.parametrize("field", ["state", "gradient"])
def test_broken_number_names_step_and_passages(site: ToySite, trained: Trained, field: str) -> None:
    class Broken:
        width = WIDTH

        def divergence_gradients(self, ids: list[str], change: Change) -> Iterator[Gradients]:
            for one in site.divergence_gradients(ids, change):
                (one.gradient if field == "gradient" else one.states.vectors)[3, 0] = np.nan
                yield one

    with pytest.raises(ValueError, match=f"step 0 of the tail: a {field} is not finite, among passages"):
        run(Broken(), trained)


def test_plan_leaves_the_last_fifth_to_the_tail() -> None:
    assert (PLAN.main_steps, PLAN.tail_steps) == (800, 200)
    assert (replace(PLAN, steps=5000).main_steps, replace(PLAN, steps=5000).tail_steps) == (4000, 1000)
    assert (replace(PLAN, objective="mse").main_steps, replace(PLAN, objective="mse").tail_steps) == (1000, 0)
    assert PLAN.k_at(799) == PLAN.k
    assert PLAN.rate_at(799) == PLAN.peak == replace(PLAN, objective="mse").rate_at(799)
    falling = [PLAN.tail_rate_at(step) / PLAN.peak for step in (0, 100, 199, 200)]
    assert falling == pytest.approx([0.3, 0.15, 0.0015, 0.0])
    assert replace(PLAN, steps=400).main_steps == 200
    with pytest.raises(ValueError, match="399 steps are too few for a tail of 200"):
        replace(PLAN, steps=399)


def test_training_stops_where_the_tail_begins(trained: Trained) -> None:
    assert (trained.steps, trained.short) == (800, False)


def test_gradient_equals_autograd_of_the_whole_chain() -> None:
    # float64, through encoder, gate, decoder, model and divergence at once; several pieces and a gate of each kind.
    site = ToySite(NAMES, LENGTH, dtype=torch.float64, batch=3)
    ids = list(TRAIN)[:8]
    rng = np.random.default_rng(4)
    scale, mean = 2.5, torch.from_numpy(rng.standard_normal(WIDTH))
    for sparsifier in ("batchtopk", "topk"):
        weights = Weights.tied(rng.standard_normal((48, WIDTH)), torch.float64)
        for tensor in (weights.enc, weights.b_enc, weights.b_dec):
            tensor += 0.05 * torch.from_numpy(rng.standard_normal(tensor.shape))
        step = TailStep(weights, 0.2, replace(PLAN, latents=48, sparsifier=sparsifier))

        def change(states: States, step: TailStep = step) -> np.ndarray:
            x = (torch.from_numpy(states.vectors) - mean) / scale
            made = step.rebuilt(x) * scale + mean
            return np.where(editable(states)[:, None], made.numpy(), states.vectors)

        pieces = list(site.divergence_gradients(ids, change))
        ok = [editable(one.states) for one in pieces]
        x = (
            torch.cat([torch.from_numpy(one.states.vectors[on]) for one, on in zip(pieces, ok, strict=True)]) - mean
        ) / scale
        by_state = torch.cat([torch.from_numpy(one.gradient[on]) for one, on in zip(pieces, ok, strict=True)]) * scale
        kl = float(sum(one.value.sum() for one in pieces))
        pull, mse = both_parts(x - step.rebuilt(x), by_state, kl)
        seen = step.gradients(x, pull)

        own = {name: getattr(weights, name).clone().requires_grad_() for name in ("enc", "b_enc", "dec", "b_dec")}
        loss = whole_loss(site, ids, own, mean, scale, sparsifier)
        assert float(loss.detach()) == pytest.approx(mse, rel=1e-12)  # alpha makes both parts equal
        backward(loss)
        for name, tensor in own.items():
            assert tensor.grad is not None
            gap = (seen[name] - tensor.grad).norm() / tensor.grad.norm()
            assert float(gap) < 1e-10, (sparsifier, name, float(gap))


def whole_loss(
    site: ToySite, ids: list[str], own: dict[str, torch.Tensor], mean: torch.Tensor, scale: float, sparsifier: str
) -> torch.Tensor:
    """Return ½ (alpha KL + MSE) as the specification writes it, one passage at a time."""
    kl, square, count = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64), 0
    for name in ids:
        resid = site.resid(site.tokens[name])
        x = (resid[1:] - mean) / scale
        z = x @ own["enc"].T + own["b_enc"]
        least = z.topk(PLAN.k, 1).values[:, -1:] if sparsifier == "topk" else torch.full((len(x), 1), 0.2)
        f = torch.where((z >= least) & (z > 0) if sparsifier == "topk" else z > least, z, 0.0)
        made = f @ own["dec"] + own["b_dec"]
        edited = torch.cat([resid[:1], made * scale + mean])
        kl = kl + site.divergence(site.tokens[name], edited)
        square, count = square + (x - made).square().sum(), count + len(x)
    kl, mse = kl / count, square / count
    return (mse / kl).detach() * kl / 2 + mse / 2


def test_output_is_cheaper_than_after_as_many_steps_of_mse(site: ToySite, trained: Trained, tail: Tail) -> None:
    before = trained.dictionaries[0]
    kls = [site.kl(HELD, splicing(one)) for one in (before, tail.dictionary, tail.twin)]
    evs = [ev(site, one) for one in (before, tail.dictionary, tail.twin)]
    print(f"KL before {kls[0]:.4f}, tail {kls[1]:.4f}, twin {kls[2]:.4f}; EV {evs[0]:.4f}, {evs[1]:.4f}, {evs[2]:.4f}")
    assert kls[1] < 0.9 * kls[2] < kls[0]
    assert kls[1] < 0.8 * kls[0]
    assert evs[1] > evs[0] - 0.03
    assert evs[2] >= evs[1]


def test_threshold_keeps_k_and_rows_stay_unit(site: ToySite, tail: Tail) -> None:
    x = torch.cat([torch.from_numpy(states.vectors[editable(states)]) for states in site.states(list(TRAIN))])
    for one in (tail.dictionary, tail.twin):
        active = float((one.encode(x) > 0).sum() / len(x))
        assert active == pytest.approx(PLAN.k, abs=0.05)
        assert torch.allclose(one.row_norms, torch.ones(64), atol=1e-5)


def test_same_draws_give_the_same_bytes(site: ToySite, trained: Trained, brief: Plan) -> None:
    one, again = (run(site, trained, brief) for _ in range(2))
    assert again.dictionary.sha256 == one.dictionary.sha256 != trained.dictionaries[0].sha256
    assert again.twin.sha256 == one.twin.sha256 != one.dictionary.sha256
    assert (again.curve, again.order_sha256) == (one.curve, one.order_sha256)
    assert run(site, trained, brief, seed=1).order_sha256 != one.order_sha256


def test_pieces_in_which_the_model_runs_change_nothing(trained: Trained, brief: Plan) -> None:
    one, other = (run(ToySite(NAMES, LENGTH, batch=batch), trained, brief) for batch in (3, 8))
    gap = (other.dictionary.w_enc - one.dictionary.w_enc).norm() / one.dictionary.w_enc.norm()
    assert float(gap) < 1e-4
    assert other.order_sha256 == one.order_sha256


def test_tokens_stay_within_what_the_needs_name(trained: Trained, brief: Plan) -> None:
    site = ToySite(NAMES, LENGTH)
    told = run(site, trained, brief)
    assert 3 * 20 * 256 <= told.tokens == site.ran <= tail_budget(TRAIN, brief)
    few = dict.fromkeys(list(TRAIN)[:3], LENGTH)  # fewer tokens than a batch: each once a step
    assert run(site, trained, brief, passages=few).tokens == 3 * 20 * 3 * LENGTH


def test_frozen_decoder_stays(site: ToySite, trained: Trained, brief: Plan) -> None:
    told = run(site, trained, brief, frozen="decoder")
    assert torch.equal(told.dictionary.w_dec, trained.dictionaries[0].w_dec)
    assert not torch.equal(told.dictionary.w_enc, trained.dictionaries[0].w_enc)


def test_model_that_does_not_care_leaves_mse_alone(site: ToySite, trained: Trained, brief: Plan) -> None:
    # alpha = MSE / 0 must not be a number that reaches the weights.
    class Deaf:
        width = WIDTH

        def divergence_gradients(self, ids: list[str], change: Change) -> Iterator[Gradients]:
            for one in site.divergence_gradients(ids, change):
                yield replace(one, gradient=0 * one.gradient, value=0 * one.value)

    told = run(Deaf(), trained, brief)
    assert torch.isfinite(told.dictionary.w_enc).all()
    assert [point.kl for point in told.curve] == [0.0] * 20


def test_normalised_units_there_and_back(site: ToySite, trained: Trained) -> None:
    weights, theta = normalised(trained.dictionaries[0], trained.mean, trained.scale)
    x = torch.cat([torch.from_numpy(states.vectors[editable(states)]) for states in site.states(HELD)])
    back = in_raw_units(weights, PLAN, trained.mean, trained.scale, x, theta)
    own = replace(trained.dictionaries[0], gate=back.gate)
    assert torch.allclose(back.reconstruct(x), own.reconstruct(x), atol=1e-4)
    unit = TailStep(weights, theta, PLAN).rebuilt((x - trained.mean) / trained.scale) * trained.scale + trained.mean
    assert torch.allclose(unit, trained.dictionaries[0].reconstruct(x), atol=1e-4)


def test_topk_goes_on_as_topk(site: ToySite, brief: Plan) -> None:
    plan = replace(brief, sparsifier="topk")
    assert run(site, fold_stream(stream(site, 6), plan), plan).dictionary.gate == TopK(4)
