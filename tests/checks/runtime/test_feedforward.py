"""What the feed-forward runtime says, against torch.nn and against the numpy nets of the lesion plants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from checks.check import Lesion, VectorTrial
from checks.clusterability.lesion_plants import LesionCase, planted_two_nets
from checks.errors import NotAskedFor
from checks.feedforward import FeedForward, FeedForwardHead, FeedForwardLayer
from checks.runtime import feedforward, feedforward_pass
from checks.runtime.feedforward import FeedForwardLesions
from checks.runtime.feedforward_pass import outputs
from tests.checks.runtime.torch_nets import Built, GlobalAvgPool, built, cnn, mlp


def trials_of(one: Built, count: int = 40, seed: int = 1) -> list[VectorTrial]:
    """Return trials of two groups, the first three times as large."""
    rng, heads = np.random.default_rng(seed), one.model.heads
    drawn = []
    for number in range(count):
        head = heads[number % len(heads)]
        values = tuple(rng.standard_normal(int(np.prod(one.model.input))).tolist())
        label = int(rng.integers(0, head.stop - head.start))
        group = "few" if number % 4 == 0 else "many"
        drawn.append(VectorTrial(id=f"r{number}", group=group, values=values, label=label, head=head.name))
    return drawn


def lesions_of(one: Built, trials: Sequence[VectorTrial], budget: int = 100) -> FeedForwardLesions:
    sites = [f"layer.{index}" for index in one.model.hidden]
    return FeedForwardLesions(one.model, one.tensors, trials, sites, budget)


def scored(one: Built, trials: Sequence[VectorTrial], said: np.ndarray) -> tuple[list[bool], list[float]]:
    """Return right answers and losses, one trial at a time."""
    heads = {head.name: head for head in one.model.heads}
    right, loss = [], []
    for trial, row in zip(trials, said, strict=True):
        head = heads[trial.head or "out"]
        logits = row[head.start : head.stop]
        right.append(bool(logits.argmax() == trial.label))
        loss.append(float(np.log(np.sum(np.exp(logits))) - logits[trial.label]))
    return right, loss


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"values": (0.0,) * 5}, "wrong_number_of_values"),
        ({"values": (0.0,) * 5 + (float("nan"),)}, "value_not_finite"),
        ({"values": (0.0,) * 5 + (float("inf"),)}, "value_not_finite"),
        ({"label": 2}, "label_outside_head"),
        ({"label": -1}, "label_outside_head"),
        ({"head": "c"}, "unknown_head"),
        ({"head": None}, "head_missing"),
    ],
)
def test_a_trial_that_cannot_be_scored_is_lost_and_changes_no_other(change: dict[str, object], reason: str) -> None:
    one = mlp()
    trials = trials_of(one)
    bad = VectorTrial(**{"id": "bad", "group": "many", "values": (0.0,) * 6, "label": 0, "head": "a", **change})  # type: ignore[arg-type]
    whole, other = lesions_of(one, trials), lesions_of(one, [*trials[:7], bad, *trials[7:]])
    assert dict(whole.lost) == {}
    assert dict(other.lost) == {"bad": reason}
    lesion: Lesion = {"layer.0": np.array([1, 3])}
    clean, spoilt = whole([lesion]), other([lesion])
    assert not spoilt.correct[0, 7]
    assert np.isnan(spoilt.loss[0, 7])
    assert np.array_equal(np.delete(spoilt.loss, 7, axis=1), clean.loss)
    assert np.array_equal(np.delete(spoilt.correct, 7, axis=1), clean.correct)
    assert np.array_equal(other.unit_sd["layer.3"], whole.unit_sd["layer.3"])


def test_a_trial_that_overflows_the_model_is_lost_and_does_not_spoil_the_means() -> None:
    one = mlp()
    trials = trials_of(one)
    huge = VectorTrial(id="huge", group="few", values=(1e308,) * 6, label=0, head="a")
    other = lesions_of(one, [huge, *trials])
    assert dict(other.lost) == {"huge": "activation_not_finite"}
    lesion: Lesion = {"layer.0": np.array([0])}
    assert np.array_equal(other([lesion]).loss[:, 1:], lesions_of(one, trials)([lesion]).loss)


def test_trials_that_are_all_lost_are_all_wrong() -> None:
    one = mlp()
    bad = [VectorTrial(id=f"b{n}", group="g", values=(0.0,), label=0, head="a") for n in range(2)]
    here = lesions_of(one, bad)
    said = here([{}, {"layer.0": np.array([1])}])
    assert said.correct.shape == (2, 2)
    assert not said.correct.any()
    assert np.isnan(said.loss).all()
    assert np.isnan(here.unit_sd["layer.0"]).all()


@pytest.mark.parametrize(
    ("lesion", "told"),
    [
        ({"layer.1": np.array([0])}, "layer.1"),
        ({"mlp.0": np.array([0])}, "mlp.0"),
        ({"layer.3": np.array([0])}, "layer.3"),
        ({"layer.0": np.array([8])}, "unit 8"),
        ({"layer.0": np.array([-1])}, "unit -1"),
        ({"layer.0": np.array([0.0])}, "whole numbers"),
    ],
)
def test_a_unit_that_was_not_asked_for_is_not_held(lesion: Lesion, told: str) -> None:
    one = mlp()
    here = FeedForwardLesions(one.model, one.tensors, trials_of(one), ["layer.0"], 2)
    with pytest.raises(NotAskedFor, match=told):
        here([{}, lesion])
    assert len(here([{}, {}]).loss) == 2  # what was refused costs nothing


@pytest.mark.parametrize("site", ["layer.6", "layer.1", "layer.00", "layer.x", "heads.0"])
def test_a_site_that_has_no_hidden_units_is_refused(site: str) -> None:
    one = mlp()
    with pytest.raises(NotAskedFor, match=site):
        FeedForwardLesions(one.model, one.tensors, trials_of(one), [site], 2)


def test_the_budget_is_kept() -> None:
    here = lesions_of(mlp(), trials_of(mlp()), budget=3)
    here([{}, {}])
    with pytest.raises(NotAskedFor, match="2 lesions, and 1 left"):
        here([{}, {}])
    here([{}])
    with pytest.raises(NotAskedFor):
        here([{}])


Make = Callable[[], list[nn.Module]]

OPS: dict[str, tuple[tuple[int, ...], Make]] = {
    "linear without bias": ((5,), lambda: [nn.Linear(5, 4, bias=False)]),
    "batchnorm of neurons": ((5,), lambda: [nn.Linear(5, 4), nn.BatchNorm1d(4, eps=0.1)]),
    "batchnorm of inputs": ((3, 4, 4), lambda: [nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 2)]),
    "layernorm": ((5,), lambda: [nn.Linear(5, 6), nn.LayerNorm(6, eps=0.1)]),
    "relu": ((5,), lambda: [nn.Linear(5, 6), nn.ReLU()]),
    "leaky_relu": ((5,), lambda: [nn.Linear(5, 6), nn.LeakyReLU(0.3)]),
    "gelu by erf": ((5,), lambda: [nn.Linear(5, 6), nn.GELU()]),
    "gelu by tanh": ((5,), lambda: [nn.Linear(5, 6), nn.GELU(approximate="tanh")]),
    "silu": ((5,), lambda: [nn.Linear(5, 6), nn.SiLU()]),
    "tanh": ((5,), lambda: [nn.Linear(5, 6), nn.Tanh()]),
    "conv2d without padding": ((2, 7, 6), lambda: [nn.Conv2d(2, 3, 3), nn.Flatten()]),
    "conv2d stride 2 padding 2": ((2, 7, 6), lambda: [nn.Conv2d(2, 3, 5, stride=2, padding=2), nn.Flatten()]),
    "conv2d of an oblong kernel": ((2, 7, 6), lambda: [nn.Conv2d(2, 3, (1, 4), stride=3), nn.Flatten()]),
    "maxpool2d": ((2, 7, 6), lambda: [nn.Conv2d(2, 3, 1), nn.MaxPool2d(2), nn.Flatten()]),
    "maxpool2d overlapping": ((2, 8, 6), lambda: [nn.Conv2d(2, 3, 1), nn.MaxPool2d(3, stride=2), nn.Flatten()]),
    "avgpool2d": ((2, 7, 6), lambda: [nn.Conv2d(2, 3, 1), nn.AvgPool2d(3), nn.Flatten()]),
    "avgpool2d apart": ((2, 7, 6), lambda: [nn.Conv2d(2, 3, 1), nn.AvgPool2d(2, stride=3), nn.Flatten()]),
    "global_avg_pool": ((2, 7, 6), lambda: [nn.Conv2d(2, 3, 1), GlobalAvgPool(), nn.Linear(3, 2)]),
    "flatten in C order": ((2, 3, 4), lambda: [nn.Flatten(), nn.Linear(24, 5)]),
}


@pytest.mark.parametrize("name", OPS)
def test_every_op_is_what_torch_does(name: str) -> None:
    shape, make = OPS[name]
    one = built(shape, *make())
    inputs = np.random.default_rng(0).standard_normal((11, *shape))
    assert outputs(one.model, one.tensors, inputs) == pytest.approx(one.outputs(inputs), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("make", [mlp, cnn])
def test_a_lesion_is_what_holding_units_by_hand_gives(make: Callable[[], Built]) -> None:
    one = make()
    trials, rng = trials_of(one), np.random.default_rng(3)
    here = lesions_of(one, trials)
    sites = {f"layer.{index}": one.model.units(index) for index in one.model.hidden}
    held: list[dict[str, list[int]]] = [{}, {site: [] for site in sites}]
    held += [{site: rng.choice(size, size // 2, replace=False).tolist()} for site, size in sites.items()]
    held += [{site: rng.choice(size, 2, replace=False).tolist() for site, size in sites.items()} for _ in range(3)]
    held += [{site: list(range(size)) for site, size in reversed(sites.items())}]
    said = here([{site: np.array(units, dtype=np.int64) for site, units in one_.items()} for one_ in held])
    for number, lesion in enumerate(held):
        right, loss = scored(one, trials, one.held(trials, lesion))
        assert said.loss[number] == pytest.approx(loss, rel=1e-5, abs=1e-5)
        assert said.correct[number].tolist() == right
    plain = scored(one, trials, one.outputs(np.array([t.values for t in trials]).reshape(-1, *one.model.input)))
    assert said.loss[0] == pytest.approx(plain[1], rel=1e-5, abs=1e-5)
    assert np.array_equal(said.loss[0], said.loss[1])


def test_means_and_spreads_count_groups_equally() -> None:
    one = cnn()
    trials = trials_of(one)
    inputs = np.array([trial.values for trial in trials]).reshape(-1, *one.model.input)
    few = np.array([trial.group == "few" for trial in trials])
    sd = lesions_of(one, trials).unit_sd
    for index in one.model.hidden:
        states = np.asarray(one.modules[: one.model.held_after(index) + 1](torch.from_numpy(inputs)).detach())
        states = states.reshape(len(trials), states.shape[1], -1)
        mean = (states[few].mean(axis=(0, 2)) + states[~few].mean(axis=(0, 2))) / 2
        apart = np.square(states - mean[:, None])
        square = (apart[few].mean(axis=(0, 2)) + apart[~few].mean(axis=(0, 2))) / 2
        assert sd[f"layer.{index}"] == pytest.approx(np.sqrt(square), rel=1e-5)
        assert sd[f"layer.{index}"].dtype == np.float64


def as_declared(case: LesionCase) -> tuple[FeedForward, dict[str, np.ndarray], list[VectorTrial]]:
    """Return a plain ReLU net and its rows as a declared model and trials."""
    net, last = case.net, len(case.net.weights) - 1
    layers: list[FeedForwardLayer] = []
    shapes: list[tuple[int, ...]] = []
    tensors: dict[str, np.ndarray] = {}
    for number, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
        tensors |= {f"w{number}": weight, f"b{number}": bias}
        layers.append(FeedForwardLayer(op="linear", weight=f"w{number}", bias=f"b{number}"))
        layers += [FeedForwardLayer(op="relu")] if number < last else []
        shapes += [(len(weight),)] * (2 if number < last else 1)
    heads = tuple(FeedForwardHead(name=f"h{n}", start=a, stop=b) for n, (a, b) in enumerate(net.heads))
    model = FeedForward(input=case.inputs.shape[1:], layers=tuple(layers), shapes=tuple(shapes), heads=heads)
    rows = zip(case.inputs, case.labels, case.head, case.rows.task, strict=True)
    trials = [
        VectorTrial(id=f"r{n}", group=f"t{task}", values=tuple(row.tolist()), label=int(label), head=f"h{head}")
        for n, (row, label, head, task) in enumerate(rows)
    ]
    return model, tensors, trials


def test_planted_nets_are_scored_as_the_lesion_plants_score_them() -> None:
    case, owner = planted_two_nets(np.random.default_rng(0))
    model, tensors, trials = as_declared(case)
    here = FeedForwardLesions(model, tensors.__getitem__, trials, ["layer.0", "layer.2"], 100)
    rng, layer = np.random.default_rng(1), case.net.layer_of_unit
    units = [np.flatnonzero(owner == 0), *(np.sort(rng.choice(len(owner), 40, replace=False)) for _ in range(20))]
    first = int((layer == 0).sum())
    said = here([{"layer.0": one[one < first], "layer.2": one[one >= first] - first} for one in units])
    wanted = case.scored()(units)
    assert said.loss == pytest.approx(wanted.loss, abs=1e-9)
    assert np.array_equal(said.correct, wanted.correct)
    plain = here([{}])
    other = case.head == 1
    assert np.array_equal(said.loss[0, other], plain.loss[0, other])  # the net next door never notices


@pytest.mark.parametrize("make", [mlp, cnn])
def test_an_answer_depends_neither_on_company_nor_on_memory(
    make: Callable[[], Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make()
    trials = trials_of(one)
    lesions: list[Lesion] = [{f"layer.{index}": np.array([0, 2])} for index in one.model.hidden]
    here = lesions_of(one, trials)
    whole = here(lesions)
    for number, lesion in enumerate(lesions):
        assert np.array_equal(here([lesion]).loss[0], whole.loss[number])
    monkeypatch.setattr(feedforward, "KEPT_BYTES", 0)
    assert np.array_equal(lesions_of(one, trials)(lesions).loss, whole.loss)
    monkeypatch.setattr(feedforward_pass, "VALUES_AT_ONCE", 300)
    assert lesions_of(one, trials)(lesions).loss == pytest.approx(whole.loss, rel=1e-5, abs=1e-5)


def test_small_models_run_on_one_thread_and_leave_the_count_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    one, before, seen = mlp(), torch.get_num_threads(), []
    here = lesions_of(one, trials_of(one))
    run = feedforward_pass.Layers.run

    def told(self: feedforward_pass.Layers, *given: Any) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return run(self, *given)

    monkeypatch.setattr(feedforward_pass.Layers, "run", told)
    torch.set_num_threads(2)
    here([{"layer.0": np.array([1])}])
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert (after, set(seen)) == (2, {1})


def test_of_equal_outputs_the_lowest_counts() -> None:
    one = built((2,), nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4))
    tensors = {**one.tensors, "2.weight": np.zeros((4, 3)), "2.bias": np.array([0.0, 1.0, 1.0, 0.0])}
    trials = [VectorTrial(id=f"r{n}", group="g", values=(1.0, 2.0), label=n) for n in range(4)]
    said = FeedForwardLesions(one.model, tensors, trials, ["layer.0"], 1)([{}])
    assert said.correct[0].tolist() == [False, True, False, False]
    assert said.loss[0, 1] == pytest.approx(np.log(2 + 2 / np.e))


def test_under_a_lesion_that_overflows_a_trial_is_wrong_and_has_no_loss() -> None:
    one = built((1,), nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    tensors = {"0.weight": np.array([[1.0], [-1.0]]), "2.weight": np.array([[1e308, 1e308], [0.0, 0.0]])}
    trials = [VectorTrial(id=f"r{n}", group="g", values=(value,), label=0) for n, value in enumerate((1.5, -1.5))]
    said = FeedForwardLesions(one.model, tensors, trials, ["layer.0"], 2)([{}, {"layer.0": np.array([0])}])
    assert said.correct.tolist() == [[True, True], [True, False]]
    assert np.isnan(said.loss).tolist() == [[False, False], [False, True]]


def test_holding_every_unit_makes_all_trials_alike() -> None:
    one = cnn()
    trials = [VectorTrial(id=t.id, group=t.group, values=t.values, label=1) for t in trials_of(one)]
    said = lesions_of(one, trials)([{"layer.5": np.arange(5)}])
    assert np.ptp(said.loss[0]) == 0.0
