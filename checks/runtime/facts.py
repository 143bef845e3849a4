"""What is known of a model before any weight is read: config and tensor table, checked against each other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from checks.check import ModelFacts
from checks.errors import LoadRefused
from checks.runtime.architectures import Architecture, architecture
from checks.runtime.feedforward_facts import feedforward_facts_of, is_feedforward
from sandbox.reader.safetensors import TensorEntry

CONFIG = "config.json"


def model_facts_of(config: Mapping[str, Any], tensors: Sequence[TensorEntry]) -> ModelFacts:
    """Return the facts, after the config has been held against its rules and against the tensors.

    A config that asks for more blocks than the files hold would load with random blocks and no exception; here it is
    refused before anything is loaded.

    Args:
        config: canonical config, used keys only; or the canonical declaration of a feed-forward model.
        tensors: table of all tensors of the model's files.

    Raises:
        LoadRefused: architecture_unknown, config_range, config_type, load_missing_key, load_unexpected_key, load_shape;
            of a feed-forward model any code of `sandbox.reader.feedforward`.
    """
    if is_feedforward(config):
        return feedforward_facts_of(config, tensors)
    entry = architecture(str(config.get("model_type", "")))
    _check_rules(entry, config)
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    prefix = entry.prefix if any(name.startswith(entry.prefix) for name in shapes) else ""
    layers = int(config[entry.layers])
    _check_blocks(entry, prefix, layers, shapes)
    _check_embedding(entry, prefix, config, shapes)

    def in_order(template: str) -> tuple[str, ...]:
        return tuple(prefix + template.format(l=layer) for layer in range(layers))

    return ModelFacts(
        architecture=str(config["model_type"]),
        layers=layers,
        width=int(config[entry.width]),
        heads=int(config[entry.heads]),
        vocabulary=int(config[entry.vocabulary]),
        context=int(config[entry.context]),
        causal=entry.causal,
        tensors=shapes,
        mlp_in=in_order(entry.mlp_in),
        mlp_out=in_order(entry.mlp_out),
        transposed=frozenset(name for template in entry.transposed for name in in_order(template)),
    )


def _check_rules(entry: Architecture, config: Mapping[str, Any]) -> None:
    for key, rule in entry.used.items():
        if not rule.allows(config.get(key)):
            raise LoadRefused("config_range", {"path": CONFIG, "key": key})
    width, heads = int(config[entry.width]), int(config[entry.heads])
    if width % heads and config.get("head_dim") is None:
        raise LoadRefused("config_range", {"path": CONFIG, "key": entry.heads})
    shared = config.get("num_key_value_heads")
    if shared is not None and heads % int(shared):
        raise LoadRefused("config_range", {"path": CONFIG, "key": "num_key_value_heads"})


def _check_blocks(entry: Architecture, prefix: str, layers: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """The files hold exactly the blocks that the config counts, each with its MLP."""
    number = re.compile(re.escape(prefix + entry.block).replace(r"\{l\}", r"(\d+)"))
    held = {int(found[1]): name for name in shapes if (found := number.match(name))}
    beyond = sorted(layer for layer in held if layer >= layers)
    if beyond:
        raise LoadRefused("load_unexpected_key", {"tensor": held[beyond[0]]}, tuple(held[layer] for layer in beyond))
    owed = [prefix + part.format(l=layer) for layer in range(layers) for part in (entry.mlp_in, entry.mlp_out)]
    missing = tuple(name for name in owed if name not in shapes)
    if missing:
        raise LoadRefused("load_missing_key", {"tensor": missing[0]}, missing)


def _check_embedding(
    entry: Architecture, prefix: str, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    name = prefix + entry.embedding
    if name not in shapes:
        raise LoadRefused("load_missing_key", {"tensor": name}, (name,))
    if shapes[name] != (config[entry.vocabulary], config[entry.width]):
        raise LoadRefused("load_shape", {"tensor": name}, (name,))
