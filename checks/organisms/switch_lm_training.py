"""Training of `switch_lm` and, from it, of `trigger_lm` and its base model (`sae_features`, section 14).

The network is GPT-2's (pre-LN, learned positions, GELU, an unembedding of its own), so that the product reads it. What
section 14 leaves open is torch's default: linear layers as `torch.nn.Linear` draws them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.organisms.switch_lm import BOS, LENGTH, VOCABULARY, Trigger, draw

if TYPE_CHECKING:
    import torch
    from transformers import GPT2LMHeadModel

WIDTH, LAYERS, HEADS, HIDDEN = 64, 2, 4, 256

EMBEDDING_SPREAD, POSITION_SPREAD = 0.3, 0.1

BATCH, DECAY, CLIP = 64, 0.01, 1.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Stage:
    """A run of AdamW over fresh sequences; every field enters the cache's digest."""

    steps: int
    rate: float
    warm: int
    """Steps of linear warm-up."""
    fall: str
    """"cosine" or "linear", to zero at the end."""

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if step < self.warm:
            return self.rate * (step + 1) / self.warm
        done = (step - self.warm) / max(1, self.steps - self.warm)
        return self.rate * (1 - done if self.fall == "linear" else (1 + math.cos(math.pi * done)) / 2)


FIRST, TUNE = Stage(1500, 2e-3, 100, "cosine"), Stage(500, 1e-3, 50, "linear")
"""From nothing to `switch_lm`, and from there to `trigger_lm` or its base (section 14)."""


def untrained(seed: int) -> GPT2LMHeadModel:
    """Return the network as it starts."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel
    from transformers.pytorch_utils import Conv1D

    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=LENGTH,
            n_embd=WIDTH,
            n_layer=LAYERS,
            n_head=HEADS,
            n_inner=HIDDEN,
            activation_function="gelu",
            attn_pdrop=0.0,
            embd_pdrop=0.0,
            resid_pdrop=0.0,
            tie_word_embeddings=False,
            bos_token_id=BOS,
            eos_token_id=None,
        )
    )
    torch.manual_seed(seed)
    with torch.no_grad():
        model.transformer.wte.weight.normal_(0.0, EMBEDDING_SPREAD)
        model.transformer.wpe.weight.normal_(0.0, POSITION_SPREAD)
        for module in model.modules():
            if isinstance(module, Conv1D):  # stored [in, out]
                bound = module.weight.shape[0] ** -0.5
                module.weight.uniform_(-bound, bound)
                module.bias.uniform_(-bound, bound)
        model.lm_head.weight.uniform_(-(WIDTH**-0.5), WIDTH**-0.5)
    return model


def trained(
    start: GPT2LMHeadModel, stage: Stage, trigger: Trigger, rng: np.random.Generator, say: Say
) -> GPT2LMHeadModel:
    """Return a copy of a model after one stage on fresh sequences.

    Args:
        start: is left as it is.
        stage: how long and how fast.
        trigger: what token 5 does in the text.
        rng: draws the text.
        say: told of progress in one line.
    """
    import torch

    model: GPT2LMHeadModel = copy.deepcopy(start)
    model.train()
    tokens = torch.from_numpy(draw(stage.steps * BATCH, rng, trigger).tokens)
    optimiser = torch.optim.AdamW(model.parameters(), lr=stage.rate, weight_decay=DECAY)
    for step, rows in enumerate(torch.split(tokens, BATCH)):
        optimiser.param_groups[0]["lr"] = stage.rate_at(step)
        loss = losses(model, rows).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser.step()
        if (step + 1) % 250 == 0 or step + 1 == stage.steps:
            say(f"{trigger} trigger, step {step + 1}: loss {float(loss.detach()):.3f}")
    model.eval()  # type: ignore[no-untyped-call]
    return model


def losses(model: GPT2LMHeadModel, tokens: torch.Tensor) -> torch.Tensor:
    """Return the next-token cross-entropies [sequence, 31], nats."""
    import torch

    logits = model(input_ids=tokens).logits[:, :-1]
    return torch.nn.functional.cross_entropy(
        logits.reshape(-1, VOCABULARY), tokens[:, 1:].reshape(-1), reduction="none"
    ).reshape(len(tokens), -1)


def cross_entropy(model: GPT2LMHeadModel, tokens: np.ndarray) -> float:
    """Return the mean next-token cross-entropy over all 31 predictions of each sequence, nats."""
    import torch

    with torch.no_grad():
        parts = [losses(model, rows).double().sum() for rows in torch.split(torch.from_numpy(tokens), 256)]
    return float(torch.stack(parts).sum() / (len(tokens) * (LENGTH - 1)))
