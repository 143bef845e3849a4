"""Matrices of feed-forward models: folding changes no output, sums keep channels apart, a broken tensor is named."""

from __future__ import annotations

import numpy as np
import pytest

from checks.clusterability.layers import folded, layer_matrices, network_of
from checks.feedforward import FeedForward, FeedForwardLayer
from tests.checks.clusterability.nets import (
    Tensors,
    batchnorm,
    declared,
    linear,
    norm_tensors,
    op,
    outputs,
    standard,
    step,
)


def folded_outputs(model: FeedForward, x: np.ndarray, tensors: Tensors) -> np.ndarray:
    """Return the outputs of the folded model, by a pass of its own."""
    chain = folded(model, tensors.__getitem__)
    for at, layer in enumerate(model.layers):
        if at in chain.gone:
            continue
        if at in chain.plain:
            x = standard(x, layer.eps or 0.0)
        elif at in chain.affines:
            own = {"w": chain.affines[at].weight, "b": chain.affines[at].bias}
            more = {"stride": layer.stride, "padding": layer.padding}
            x = step(FeedForwardLayer(op=layer.op, weight="w", bias="b", **more), x, own)  # type: ignore[arg-type]
        else:
            x = step(layer, x, tensors)
    return x


def mlp(rng: np.random.Generator) -> tuple[FeedForward, dict[str, np.ndarray]]:
    """A batch norm at the input, one behind a layer, one behind an activation, a layer norm before a layer."""
    tensors = {
        **norm_tensors(0, 6, rng),
        "1.weight": rng.normal(size=(5, 6)),
        "1.bias": rng.normal(size=5),
        **norm_tensors(2, 5, rng),
        **norm_tensors(4, 5, rng),
        "5.weight": rng.normal(size=(7, 5)),
        "7.weight": rng.normal(size=7),
        "7.bias": rng.normal(size=7),
        "8.weight": rng.normal(size=(4, 7)),
    }
    layers = [
        batchnorm(0),
        linear(1, bias="1.bias"),
        batchnorm(2),
        op("relu"),
        batchnorm(4),
        linear(5),
        op("tanh"),
        FeedForwardLayer(op="layernorm", weight="7.weight", bias="7.bias", eps=1e-5),
        linear(8),
    ]
    return declared((6,), layers, tensors), tensors


def cnn(rng: np.random.Generator) -> tuple[FeedForward, dict[str, np.ndarray]]:
    """Batch norms behind convolutions, before one that pads (it stays), and before a flattened linear layer."""
    tensors = {
        "0.weight": rng.normal(size=(4, 2, 3, 3)),
        "0.bias": rng.normal(size=4),
        **norm_tensors(1, 4, rng),
        **norm_tensors(3, 4, rng),
        "4.weight": rng.normal(size=(3, 4, 3, 3)),
        **norm_tensors(6, 3, rng),
        "8.weight": rng.normal(size=(5, 27)),
    }
    conv = {"op": "conv2d", "stride": 2}
    layers = [
        FeedForwardLayer(weight="0.weight", bias="0.bias", padding=0, **conv),  # type: ignore[arg-type]
        batchnorm(1),
        op("relu"),
        batchnorm(3),
        FeedForwardLayer(weight="4.weight", padding=1, **conv),  # type: ignore[arg-type]
        op("relu"),
        batchnorm(6),
        op("flatten"),
        linear(8),
    ]
    return declared((2, 11, 11), layers, tensors), tensors


@pytest.mark.parametrize("make", [mlp, cnn])
def test_folding_changes_no_output(make) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(1)
    model, tensors = make(rng)
    x = rng.normal(size=(9, *model.input))
    assert folded_outputs(model, x, tensors) == pytest.approx(outputs(model, x, tensors), abs=1e-5)


def test_every_step_is_told_and_what_stays_too() -> None:
    model, tensors = mlp(np.random.default_rng(2))
    assert [one.steps for one in layer_matrices(model, tensors.__getitem__)] == [
        ("batchnorm_folded:2", "batchnorm_folded:0"),
        ("batchnorm_folded:4", "no_scale_symmetry:tanh"),
        ("layernorm_gain_folded:7", "row_means_removed:7"),
    ]
    model, tensors = cnn(np.random.default_rng(2))
    assert [one.steps for one in layer_matrices(model, tensors.__getitem__)] == [
        ("batchnorm_folded:1", "batchnorm_left:3", "kernel_summed"),
        ("kernel_summed",),
        ("batchnorm_folded:6", "positions_summed:9"),
    ]


def test_rows_lose_the_mean_that_a_layer_norm_takes_away() -> None:
    model, tensors = mlp(np.random.default_rng(3))
    last = layer_matrices(model, tensors.__getitem__)[-1]
    assert np.allclose(last.values.sum(axis=1), 0.0)
    gained = tensors["8.weight"] * tensors["7.weight"]
    assert np.allclose(last.values, gained - gained.mean(axis=1, keepdims=True))


def test_kernels_and_positions_are_summed_channel_by_channel() -> None:
    model, tensors = cnn(np.random.default_rng(4))
    first, _, last = layer_matrices(model, tensors.__getitem__)
    assert (first.family, first.values.shape, last.family, last.values.shape) == ("conv", (4, 2), "linear", (5, 3))
    scale = tensors["1.weight"] / np.sqrt(tensors["1.var"] + 1e-5)
    for out in range(4):
        for read in range(2):
            kernel = tensors["0.weight"][out, read] * scale[out]
            assert first.values[out, read] == pytest.approx(np.sqrt((kernel**2).sum()))
            assert first.signs[out, read] == np.sign(kernel.flat[np.abs(kernel).argmax()])
    gain = tensors["6.weight"] / np.sqrt(tensors["6.var"] + 1e-5)
    of_channel = tensors["8.weight"][:, 9:18] * gain[1]
    assert last.values[:, 1] == pytest.approx(np.sqrt((of_channel**2).sum(axis=1)))


def test_a_matrix_that_is_not_summed_keeps_its_signs() -> None:
    weight = np.array([[1.0, -2.0], [0.0, 3.0], [-1.0, 1.0]])
    model = declared((2,), [linear(0)], {"0.weight": weight})
    (one,) = layer_matrices(model, {"0.weight": weight}.__getitem__)
    assert np.array_equal(one.signed, weight)


def test_positions_of_the_input_are_nodes_of_their_own() -> None:
    # A net on images that are flattened at once has pixels as inputs, not one node a colour.
    tensors = {"1.weight": np.random.default_rng(5).normal(size=(4, 18))}
    model = declared((2, 3, 3), [op("flatten"), linear(1)], tensors)
    assert layer_matrices(model, tensors.__getitem__)[0].values.shape == (4, 18)


def test_neighbours_meet() -> None:
    for make in (mlp, cnn):
        model, tensors = make(np.random.default_rng(6))
        chain = network_of(layer_matrices(model, tensors.__getitem__))
        assert [after.shape[1] for after in chain[1:]] == [before.shape[0] for before in chain[:-1]]


@pytest.mark.parametrize(
    ("tensor", "at", "spoiled", "fault"),
    [
        ("0.weight", (1, 0, 2, 2), 0, "0.weight:1:0:2:2"),
        ("1.var", (3,), 0, "1.var:3"),
        ("6.weight", (2,), 2, "6.weight:2"),
        ("0.bias", (0,), None, None),
    ],
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_broken_tensor_spoils_its_own_matrix_alone(
    tensor: str, at: tuple[int, ...], spoiled: int | None, fault: str | None, value: float
) -> None:
    model, tensors = cnn(np.random.default_rng(7))
    whole = layer_matrices(model, tensors.__getitem__)
    tensors[tensor] = tensors[tensor].copy()
    tensors[tensor][at] = value
    broken = layer_matrices(model, tensors.__getitem__)
    for place, (before, after) in enumerate(zip(whole, broken, strict=True)):
        assert after.fault == (fault if place == spoiled else None)
        assert place == spoiled or np.array_equal(before.values, after.values)
    if spoiled is not None:
        with pytest.raises(ValueError, match="finite"):
            network_of(broken)


def test_a_variance_below_zero_is_named() -> None:
    model, tensors = cnn(np.random.default_rng(8))
    tensors["1.var"] = np.array([1.0, -1.0, 1.0, 1.0])
    assert layer_matrices(model, tensors.__getitem__)[0].fault == "1.var:1"


def test_huge_weights_are_summed_without_overflow() -> None:
    model, tensors = cnn(np.random.default_rng(9))
    whole = layer_matrices(model, tensors.__getitem__)[1].values
    tensors["4.weight"] = tensors["4.weight"] * 1e200
    huge = layer_matrices(model, tensors.__getitem__)[1].values
    assert np.isfinite(huge).all()
    assert huge / huge.max() == pytest.approx(whole / whole.max())
