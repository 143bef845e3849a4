"""The facts of a declared model are its own: layers, units and heads as torch has them, nothing of a transformer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from checks.errors import LoadRefused
from checks.feedforward import FeedForward, FeedForwardHead
from checks.runtime.architectures import architectures_json
from checks.runtime.facts import model_facts_of
from sandbox.reader.model import ModelReading, read_model
from tests.checks.feedforward_models import INPUTS, NETS, save
from tests.checks.models import files_of


def reading_of(name: str, folder: Path, **changes: Any) -> ModelReading:
    save(name, folder, **changes)
    reading = read_model(files_of(folder), architectures_json())
    assert not reading.refused, reading.decisions
    return reading


def declared(name: str, folder: Path, **changes: Any) -> FeedForward:
    reading = reading_of(name, folder, **changes)
    found = model_facts_of(reading.config, reading.tensors).feedforward
    assert found is not None
    return found


@pytest.mark.parametrize("name", NETS)
def test_shapes_are_those_of_the_net(name: str, tmp_path: Path) -> None:
    found = declared(name, tmp_path)
    net = NETS[name]()
    value = torch.zeros(1, *INPUTS[name])
    shapes = []
    for layer in net:
        value = layer(value)
        shapes.append(tuple(value.shape[1:]))
    assert list(found.shapes) == shapes
    weighted = [index for index, layer in enumerate(net) if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)]
    assert list(found.weighted) == weighted
    sizes = [len(net.get_parameter(f"{index}.weight")) for index in weighted]
    assert [found.units(index) for index in weighted] == sizes


def test_nothing_of_a_transformer_is_claimed(tmp_path: Path) -> None:
    reading = reading_of("cnn", tmp_path)
    facts = model_facts_of(reading.config, reading.tensors)
    assert (facts.kind, facts.architecture, facts.layers) == ("feedforward", "feedforward", 3)
    assert (facts.width, facts.heads, facts.vocabulary, facts.context, facts.causal) == (0, 0, 0, 0, False)
    assert (facts.mlp_in, facts.mlp_out, facts.transposed) == ((), (), frozenset())
    assert facts.tensors["0.weight"] == (6, 2, 3, 3)


def test_heads_are_the_declared_ones_or_all_outputs(tmp_path: Path) -> None:
    assert declared("mlp", tmp_path / "a").heads == (FeedForwardHead(name="out", start=0, stop=4),)
    heads = [{"name": "even", "slice": [2, 4]}, {"name": "odd", "slice": [0, 2]}]
    assert declared("mlp", tmp_path / "b", heads=heads).heads == (
        FeedForwardHead(name="even", start=2, stop=4),
        FeedForwardHead(name="odd", start=0, stop=2),
    )


def test_defaults_reach_the_layers(tmp_path: Path) -> None:
    found = declared("cnn", tmp_path)
    assert (found.layers[0].stride, found.layers[0].padding) == (1, 1)
    assert (found.layers[3].size, found.layers[3].stride) == (2, 2)
    assert found.layers[2].slope is None


def test_tensors_that_are_not_the_declared_ones_are_refused_by_name(tmp_path: Path) -> None:
    """Facts are computed from the table that weights are read from, whatever was read before."""
    reading = reading_of("mlp", tmp_path)
    fewer = [one for one in reading.tensors if one.name != "3.bias"]
    with pytest.raises(LoadRefused, match="load_missing_key") as caught:
        model_facts_of(reading.config, fewer)
    assert caught.value.at == {"path": "architecture.json", "key": "layers.3.bias"}
