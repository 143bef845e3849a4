"""Dictionaries drawn from a seed, and an encoder and decoder of their own in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from checks.sae_features.dictionary.value import (
    Dictionary,
    Gate,
    Gated,
    LayerNorm,
    Norm,
    Relu,
    Scale,
    Threshold,
    TokenRms,
    TopK,
)

D, M = 16, 48


def drawn(kind: str = "relu", seed: int = 0, **over: Any) -> Dictionary:
    """Return a dictionary of random weights with uneven rows, a bias and b_dec that all matter."""
    rng = np.random.default_rng(seed)

    def tensor(*shape: int, low: float = 0.0) -> torch.Tensor:
        return torch.tensor(low + rng.standard_normal(shape), dtype=torch.float32)

    d, m = over.pop("d", D), over.pop("m", M)
    w_dec = tensor(m, d) * torch.tensor(rng.uniform(0.3, 3.0, (m, 1)), dtype=torch.float32)
    gates: dict[str, Gate] = {
        "relu": Relu(),
        "topk": TopK(5),
        "threshold": Threshold(tensor(m).abs()),
        "gated": Gated(tensor(m), tensor(m), 0.3 * tensor(m)),
    }
    b_enc = torch.zeros(m) if kind == "gated" else 0.5 * tensor(m)
    fields: dict[str, Any] = {"w_enc": tensor(d, m) / d**0.5, "b_enc": b_enc, "w_dec": w_dec, "b_dec": tensor(d)}
    return Dictionary(**{**fields, "gate": gates[kind], **over})


def silent(x: torch.Tensor, norm: Norm) -> Dictionary:
    """Return a dictionary no latent of which is ever on; its bias times a state's scale fits the states best."""
    exact, d = x.double(), x.shape[1]
    if isinstance(norm, LayerNorm):
        scale, exact = exact.std(dim=1, keepdim=True), exact - exact.mean(dim=1, keepdim=True)
    else:
        scale = exact.square().mean(dim=1, keepdim=True).sqrt()
    bias = ((scale * exact).sum(dim=0) / scale.square().sum()).float()
    never = Threshold(torch.full((4,), 1e9))
    return Dictionary(torch.zeros(d, 4), torch.zeros(4), torch.eye(4, d), bias, never, norm=norm)


def states(rows: int = 200, d: int = D, seed: int = 1, mean: float = 1.0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.tensor(3.0 * rng.standard_normal((rows, d)) + mean, dtype=torch.float32)


def by_hand(dictionary: Dictionary, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return latents and reconstructions of each row, one row at a time, in float64 and without the code under test."""
    w = {name: tensor.double().numpy() for name, tensor in dictionary.tensors().items()}
    norms = np.sqrt((w["w_dec"] ** 2).sum(axis=1))
    latents, made = [], []
    for row in x.double().numpy():
        scale, mean, undo = 1.0, 0.0, 1.0
        match dictionary.norm:
            case Scale(s):
                scale, undo = s, 1 / s
            case TokenRms():
                scale = len(row) ** 0.5 / np.sqrt((row**2).sum())
                undo = 1 / scale
            case LayerNorm():
                mean, undo = row.mean(), row.std(ddof=1)
                scale = 1 / (undo + 1e-5)
        state = (row - mean) * scale - (w["b_dec"] if dictionary.pre_bias else 0.0)
        p = np.array([(state * column).sum() for column in w["w_enc"].T])
        z = p + w["b_enc"]
        match dictionary.gate:
            case Relu():
                f = np.maximum(z, 0)
            case Threshold():
                f = np.where(z > w["theta"], np.maximum(z, 0), 0)
            case Gated():
                f = np.where(p + w["b_gate"] > 0, np.maximum(p * np.exp(w["r_mag"]) + w["b_mag"], 0), 0)
            case TopK(k):
                z = z * norms if dictionary.rescale else z
                f = np.zeros_like(z)
                best = np.argsort(-z)[:k]
                f[best] = np.maximum(z[best], 0)
        rows = w["w_dec"] / norms[:, None] if dictionary.rescale else w["w_dec"]
        latents.append(f)
        made.append((f @ rows + w["b_dec"]) * undo + mean)
    return np.array(latents), np.array(made)


def relative(seen: torch.Tensor, truth: np.ndarray | torch.Tensor) -> float:
    """Return the norm of the difference over the norm of the truth."""
    wanted = truth.double().numpy() if isinstance(truth, torch.Tensor) else truth
    return float(np.linalg.norm(seen.double().numpy() - wanted) / np.linalg.norm(wanted))
