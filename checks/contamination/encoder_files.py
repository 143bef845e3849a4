"""Weights and config of the encoder, taken from its files without a guess.

Specification: contamination, section 6.5. A file that lacks a tensor is refused: libraries that fill in random layers
give an encoder that runs and finds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

LAYERS = 6
"""`num_hidden_layers` of the published config."""

CONFIG = {
    "model_type": "bert",
    "hidden_size": 384,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "vocab_size": 30522,
    "position_embedding_type": "absolute",
}
"""What the forward pass takes for granted: the published config of all-MiniLM-L6-v2."""

IGNORED = ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias")
"""Tensors that the file holds and mean pooling does not use."""


def check_config(config: Mapping[str, Any]) -> None:
    """Refuse a config of another architecture.

    Raises:
        ValueError: naming the first field that differs.
    """
    for field, value in CONFIG.items():
        if config.get(field) != value:
            raise ValueError(f"the encoder's config is of another model: {field}")


def read_weights(path: Path, dtype: torch.dtype) -> dict[str, Any]:
    """Return the weights by their part in the forward pass; matrices of query, key and value joined.

    Args:
        path: a safetensors file.
        dtype: type of the computation.

    Raises:
        ValueError: a tensor is missing, unexpected or of another shape.
    """
    import torch
    from safetensors.torch import load_file

    raw = load_file(path)
    _check_shapes({name: tuple(tensor.shape) for name, tensor in raw.items()})
    raw = {name: tensor.to(dtype) for name, tensor in raw.items()}

    def both(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        return raw[f"{name}.weight"], raw[f"{name}.bias"]

    out: dict[str, Any] = {
        "words": raw["embeddings.word_embeddings.weight"],
        "places": raw["embeddings.position_embeddings.weight"],
        "types": raw["embeddings.token_type_embeddings.weight"],
        "embed_norm": both("embeddings.LayerNorm"),
    }
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        parts = [both(f"{at}.attention.self.{name}") for name in ("query", "key", "value")]
        out[f"layer.{layer}"] = {
            "qkv": (torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts])),
            "out": both(f"{at}.attention.output.dense"),
            "attention_norm": both(f"{at}.attention.output.LayerNorm"),
            "inner": both(f"{at}.intermediate.dense"),
            "outer": both(f"{at}.output.dense"),
            "norm": both(f"{at}.output.LayerNorm"),
        }
    return out


def expected_shapes() -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor that the forward pass needs."""
    width, inner = 384, 1536
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (30522, width),
        "embeddings.position_embeddings.weight": (512, width),
        "embeddings.token_type_embeddings.weight": (2, width),
        "embeddings.LayerNorm.weight": (width,),
        "embeddings.LayerNorm.bias": (width,),
    }
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        dense = [f"attention.self.{name}" for name in ("query", "key", "value")] + ["attention.output.dense"]
        for name, shape in [(name, (width, width)) for name in dense] + [
            ("intermediate.dense", (inner, width)),
            ("output.dense", (width, inner)),
        ]:
            shapes[f"{at}.{name}.weight"] = shape
            shapes[f"{at}.{name}.bias"] = shape[:1]
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"{at}.{name}.weight"] = shapes[f"{at}.{name}.bias"] = (width,)
    return shapes


def _check_shapes(found: Mapping[str, tuple[int, ...]]) -> None:
    expected = expected_shapes()
    for name, shape in expected.items():
        if name not in found:
            raise ValueError(f"the encoder's weights lack {name}")
        if found[name] != shape:
            raise ValueError(f"the encoder's weights have another shape: {name}")
    if strange := sorted(set(found) - set(expected) - set(IGNORED)):
        raise ValueError(f"the encoder's weights hold {len(strange)} tensors of another model")
