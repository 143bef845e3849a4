"""Feed-forward models as torch.nn runs them: declared from modules, their shapes by running one example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from checks.check import VectorTrial
from checks.feedforward import FeedForward, FeedForwardHead, FeedForwardLayer, Op

Heads = Sequence[tuple[str, int, int]]


class GlobalAvgPool(nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values.mean(dim=(2, 3))


@dataclass(frozen=True)
class Built:
    """A declared model, its tensors, and the same as torch.nn."""

    model: FeedForward
    tensors: Mapping[str, np.ndarray]
    modules: nn.Sequential

    def outputs(self, inputs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(self.modules(torch.from_numpy(inputs)))

    def held(self, trials: Sequence[VectorTrial], lesion: Mapping[str, Sequence[int]]) -> np.ndarray:
        """Return the outputs under a lesion, module by module, means over groups weighted equally."""
        whole = torch.tensor([trial.values for trial in trials], dtype=torch.float64)
        whole = whole.reshape(len(trials), *self.model.input)
        state, groups = whole, sorted({trial.group for trial in trials})
        after = {self.model.held_after(int(site.split(".")[1])): list(units) for site, units in lesion.items()}
        with torch.no_grad():
            for number, module in enumerate(self.modules):
                state, whole = module(state), module(whole)
                if number in after:
                    of_group = [whole[[trial.group == group for trial in trials]].mean(dim=0) for group in groups]
                    state = state.clone()
                    state[:, after[number]] = torch.stack(of_group).mean(dim=0)[after[number]]
        return np.asarray(state)


def built(shape: Sequence[int], *modules: nn.Module, heads: Heads = (), seed: int = 0) -> Built:
    """Declare a model from modules with random float64 tensors."""
    torch.manual_seed(seed)
    net = nn.Sequential(*modules).double().eval()
    layers, shapes, tensors = [], [], {}
    state = torch.randn(1, *shape, dtype=torch.float64)
    with torch.no_grad():
        for number, module in enumerate(net):
            for name, value in [*module.named_parameters(), *module.named_buffers()]:
                if name != "num_batches_tracked":
                    value.copy_(torch.randn_like(value))
                    if name == "running_var" or (name == "weight" and value.ndim == 1):
                        value.abs_().add_(0.5)
                    tensors[f"{number}.{name}"] = value.numpy()
            layers.append(_layer(module, str(number)))
            state = module(state)
            shapes.append(tuple(state.shape[1:]))
    named = tuple(FeedForwardHead(name=name, start=start, stop=stop) for name, start, stop in heads)
    everything = FeedForwardHead(name="out", start=0, stop=shapes[-1][0])
    model = FeedForward(input=tuple(shape), layers=tuple(layers), shapes=tuple(shapes), heads=named or (everything,))
    return Built(model, tensors, net)


def mlp() -> Built:
    return built(
        (6,), nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 7), nn.LayerNorm(7), nn.GELU(),
        nn.Linear(7, 5), heads=(("a", 0, 2), ("b", 2, 5)),
    )  # fmt: skip


def cnn() -> Built:
    return built(
        (2, 9, 8), nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Tanh(),
        nn.Conv2d(6, 5, (3, 2), stride=2, padding=1, bias=False), nn.LeakyReLU(0.2), nn.Flatten(),
        nn.LayerNorm(5 * 2 * 3), nn.Linear(30, 9), nn.SiLU(), nn.Linear(9, 4),
    )  # fmt: skip


def _layer(module: Any, name: str) -> FeedForwardLayer:
    def tensor(kind: str) -> str | None:
        return f"{name}.{kind}" if getattr(module, kind, None) is not None else None

    match module:
        case nn.Linear():
            return FeedForwardLayer(op="linear", weight=tensor("weight"), bias=tensor("bias"))
        case nn.Conv2d():
            stride, padding = module.stride[0], int(module.padding[0])
            return FeedForwardLayer(
                op="conv2d", weight=tensor("weight"), bias=tensor("bias"), stride=stride, padding=padding
            )
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return FeedForwardLayer(
                op="batchnorm",
                weight=tensor("weight"),
                bias=tensor("bias"),
                mean=tensor("running_mean"),
                var=tensor("running_var"),
                eps=module.eps,
            )
        case nn.LayerNorm():
            return FeedForwardLayer(op="layernorm", weight=tensor("weight"), bias=tensor("bias"), eps=module.eps)
        case nn.MaxPool2d() | nn.AvgPool2d():
            size, step = module.kernel_size, module.stride
            assert isinstance(size, int)
            assert isinstance(step, int)
            op: Op = "maxpool2d" if isinstance(module, nn.MaxPool2d) else "avgpool2d"
            return FeedForwardLayer(op=op, size=size, stride=step)
        case nn.LeakyReLU():
            return FeedForwardLayer(op="leaky_relu", slope=module.negative_slope)
        case nn.GELU():
            return FeedForwardLayer(op="gelu", form="tanh" if module.approximate == "tanh" else "erf")
        case nn.ReLU():
            return FeedForwardLayer(op="relu")
        case nn.SiLU():
            return FeedForwardLayer(op="silu")
        case nn.Tanh():
            return FeedForwardLayer(op="tanh")
        case nn.Flatten():
            return FeedForwardLayer(op="flatten")
        case GlobalAvgPool():
            return FeedForwardLayer(op="global_avg_pool")
    raise TypeError(type(module).__name__)
