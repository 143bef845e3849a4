"""Facts of a feed-forward model: its canonical declaration and its tensors, as checks see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from checks.check import ModelFacts
from checks.errors import LoadRefused
from checks.feedforward import WEIGHTED, FeedForward, FeedForwardHead, FeedForwardLayer
from sandbox.reader.feedforward import FILE, SCHEMA, read_feedforward
from sandbox.reader.safetensors import TensorEntry

ARCHITECTURE = "feedforward"


def is_feedforward(config: Mapping[str, Any]) -> bool:
    """Tell whether a model's canonical configuration declares layers; no transformer's has a schema."""
    return config.get("schema") == SCHEMA


def feedforward_facts_of(declaration: Mapping[str, Any], tensors: Sequence[TensorEntry]) -> ModelFacts:
    """Return the facts of a declared MLP or CNN; the shapes are those that the reader of declarations computes.

    Args:
        declaration: what `architecture.json` says, canonical or as it was written.
        tensors: table of all tensors of the model's files.

    Raises:
        LoadRefused: the declaration and the tensors do not make a model; a code of `read_feedforward`, every place.
    """
    reading = read_feedforward(dict(declaration), tensors)
    if reading.problems:
        first = reading.problems[0]
        kind, _, place = first.at.partition(":")
        at = {"path": FILE, kind: place} if kind else {"path": FILE}
        raise LoadRefused(first.code, at, tuple(one.at.partition(":")[2] for one in reading.problems))
    document = reading.document
    layers = tuple(FeedForwardLayer(**layer) for layer in document["layers"])
    heads = tuple(
        FeedForwardHead(name=head["name"], start=head["slice"][0], stop=head["slice"][1]) for head in document["heads"]
    )
    return ModelFacts(
        architecture=ARCHITECTURE,
        layers=sum(layer.op in WEIGHTED for layer in layers),
        width=0,
        heads=0,
        vocabulary=0,
        context=0,
        causal=False,
        tensors={tensor.name: tensor.shape for tensor in tensors},
        mlp_in=(),
        mlp_out=(),
        transposed=frozenset(),
        feedforward=FeedForward(input=tuple(document["input"]), layers=layers, shapes=reading.shapes, heads=heads),
    )
