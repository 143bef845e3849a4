"""Feed-forward models as directories, made of torch modules: small enough to make in a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


def mlp(seed: int = 0) -> torch.nn.Sequential:
    """Return 6-16-12-4 with a batch norm whose running moments are not those of a fresh one."""
    torch.manual_seed(seed)
    net = torch.nn.Sequential(
        torch.nn.Linear(6, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Linear(16, 12), torch.nn.GELU(),
        torch.nn.Linear(12, 4, bias=False),
    )  # fmt: skip
    return _moved(net)


def cnn(seed: int = 0) -> torch.nn.Sequential:
    """Return a convolutional net on [2, 8, 8] with a stride, padding, a norm, a pool and flattened channels."""
    torch.manual_seed(seed)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 6, 3, padding=1), torch.nn.BatchNorm2d(6), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(6, 5, 3, stride=2), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(5, 3),
    )  # fmt: skip
    return _moved(net)


def _moved(net: torch.nn.Sequential) -> torch.nn.Sequential:
    for name, values in net.state_dict().items():
        if name.endswith("running_var"):
            values.uniform_(0.5, 2)
        elif values.is_floating_point():
            values.normal_(std=0.5)
    return net.eval()


LAYERS: dict[str, list[dict[str, Any]]] = {
    "mlp": [
        {"op": "linear", "weight": "0.weight", "bias": "0.bias"},
        {
            "op": "batchnorm", "weight": "1.weight", "bias": "1.bias", "mean": "1.running_mean",
            "var": "1.running_var", "eps": 1e-5,
        },
        {"op": "relu"},
        {"op": "linear", "weight": "3.weight", "bias": "3.bias"},
        {"op": "gelu", "form": "erf"},
        {"op": "linear", "weight": "5.weight"},
    ],
    "cnn": [
        {"op": "conv2d", "weight": "0.weight", "bias": "0.bias", "padding": 1},
        {
            "op": "batchnorm", "weight": "1.weight", "bias": "1.bias", "mean": "1.running_mean",
            "var": "1.running_var", "eps": 1e-5,
        },
        {"op": "relu"},
        {"op": "maxpool2d", "size": 2},
        {"op": "conv2d", "weight": "4.weight", "bias": "4.bias", "stride": 2},
        {"op": "tanh"},
        {"op": "flatten"},
        {"op": "linear", "weight": "7.weight", "bias": "7.bias"},
    ],
}  # fmt: skip
NETS = {"mlp": mlp, "cnn": cnn}
INPUTS: dict[str, list[int]] = {"mlp": [6], "cnn": [2, 8, 8]}


def tensors(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return what a declaration names: all but the count of a batch norm's batches."""
    return {name: values for name, values in net.state_dict().items() if not name.endswith("num_batches_tracked")}


def save(name: str, folder: Path, **changes: Any) -> torch.nn.Sequential:
    """Write a net as a model directory, with changes to its declaration; return the net, in eval mode."""
    net = NETS[name]()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors(net), folder / "model.safetensors")
    document = {"schema": "assay.feedforward/1", "input": INPUTS[name], "layers": LAYERS[name]} | changes
    (folder / "architecture.json").write_text(json.dumps(document))
    return net
