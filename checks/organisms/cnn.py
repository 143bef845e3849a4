"""A small convolutional net on handwritten digits: what an audit of a CNN is tried on. Nothing is planted in it.

Regenerate: `python -m checks.organisms.small_nets`. Specification: clusterability, sections 3 and 11.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file

from checks.organisms.nets import BATCH, CLASSES, RATE, Examples

if TYPE_CHECKING:
    import torch

SIDE = 8
"""Of a digit, in pixels."""

CHANNELS, FEATURES = (16, 32), 64
"""Channels of the two convolutions and neurons of the hidden linear layer: each matrix but the last and the first can
be tested alone, which takes 16 units on either side."""

STEPS, SEED = 300, 0
"""Batches, and the seed of the committed net."""


def network() -> torch.nn.Sequential:
    """Return the untrained net; its positions shrink by a pool and by a stride, from 64 to 4."""
    from torch import nn

    first, second = CHANNELS
    return nn.Sequential(
        nn.Conv2d(1, first, 3, padding=1),
        nn.BatchNorm2d(first),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, stride=2, padding=1),
        nn.BatchNorm2d(second),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(second * (SIDE // 4) ** 2, FEATURES),
        nn.ReLU(),
        nn.Linear(FEATURES, CLASSES),
    )


def _weighed(number: int, **more: Any) -> dict[str, Any]:
    return {"weight": f"{number}.weight", "bias": f"{number}.bias", **more}


def _normed(number: int) -> dict[str, Any]:
    moments = {"mean": f"{number}.running_mean", "var": f"{number}.running_var"}
    return {"op": "batchnorm", **_weighed(number), **moments, "eps": 1e-5}


LAYERS: tuple[Mapping[str, Any], ...] = (
    {"op": "conv2d", **_weighed(0), "stride": 1, "padding": 1},
    _normed(1),
    {"op": "relu"},
    {"op": "maxpool2d", "size": 2, "stride": 2},
    {"op": "conv2d", **_weighed(4), "stride": 2, "padding": 1},
    _normed(5),
    {"op": "relu"},
    {"op": "flatten"},
    {"op": "linear", **_weighed(8)},
    {"op": "relu"},
    {"op": "linear", **_weighed(10)},
)
"""The same as `network`, as `architecture.json` declares it."""


def train(data: Examples, seed: int, *, steps: int = STEPS) -> dict[str, np.ndarray]:
    """Train the net by Adam on the cross-entropy of its answers and return its tensors, float32.

    Args:
        data: single digits.
        seed: of the starting weights and of the batches.
        steps: batches.
    """
    import torch
    from torch.nn import functional

    rng = np.random.default_rng(seed)
    inputs = torch.tensor(data.inputs, dtype=torch.float32).reshape(-1, 1, SIDE, SIDE)
    labels = torch.from_numpy(data.labels[:, 0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = network()
        optimiser = torch.optim.Adam(net.parameters(), lr=RATE)
        for _ in range(steps):
            rows = torch.from_numpy(rng.choice(len(inputs), min(BATCH, len(inputs)), replace=False))
            optimiser.zero_grad()
            loss = functional.cross_entropy(net(inputs[rows]), labels[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return {name: value.numpy().copy() for name, value in net.state_dict().items() if value.ndim}


def load(folder: Path | None = None) -> dict[str, np.ndarray]:
    """Return the committed net's tensors, float32."""
    return load_file((folder or Path(__file__).with_name("data")) / "cnn.safetensors")
