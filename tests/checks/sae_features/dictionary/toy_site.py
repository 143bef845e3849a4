"""A causal language model of a few lines, and its site: embeddings of this token and the last, read through a mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from checks.passages import Change, Gradients, States

VOCABULARY, WIDTH, READ = 40, 24, 5
"""Tokens; width of the stream; directions of it, all of small variance, that the output depends on."""


class ToySite:
    """Implements what a dictionary asks of `checks.passages.Site`, by torch's own differentiation.

    Args:
        names: ids of the passages.
        length: tokens of each; the first is special.
        dtype: of the model's arithmetic, and of the states and gradients handed out.
        batch: passages that run together.
    """

    name = "resid.0"
    width = WIDTH

    def __init__(self, names: Sequence[str], length: int, dtype: torch.dtype = torch.float32, batch: int = 8) -> None:
        rng = np.random.default_rng(77)
        small = np.where(np.arange(WIDTH) < READ, 0.35, 1.0)

        def tensor(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(array).to(dtype)

        self.own = tensor(rng.standard_normal((VOCABULARY, WIDTH)) * small)
        self.last = tensor(0.6 * rng.standard_normal((VOCABULARY, WIDTH)) * small)
        self.mixing = tensor(rng.standard_normal((READ, 32)) * 1.5)
        self.unembedding = tensor(rng.standard_normal((32, VOCABULARY)) / 4)
        self.tokens = {
            name: torch.from_numpy(np.concatenate([[0], rng.integers(1, VOCABULARY, length - 1)])) for name in names
        }
        self.length = length
        self.batch, self.ran = batch, 0

    def resid(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the states of passages."""
        before = torch.cat([tokens[..., :1], tokens[..., :-1]], dim=-1)
        return self.own[tokens] + self.last[before]

    def logits(self, resid: torch.Tensor) -> torch.Tensor:
        """Return the logits of passages: every token reads the mean of those before it, too."""
        counts = torch.arange(1, resid.shape[-2] + 1, dtype=resid.dtype)[:, None]
        read = (resid + resid.cumsum(-2) / counts)[..., :READ]
        return torch.tanh(read @ self.mixing) @ self.unembedding

    def divergence(self, tokens: torch.Tensor, edited: torch.Tensor) -> torch.Tensor:
        """Return the summed KL(unedited || edited) of each passage over its scored tokens."""
        p, q = (torch.log_softmax(self.logits(one)[..., 1:-1, :], -1) for one in (self.resid(tokens), edited))
        return (p.exp() * (p - q)).sum((-2, -1))

    def states(self, ids: Sequence[str]) -> Iterator[States]:
        """Yield states batch by batch."""
        for begin in range(0, len(ids), self.batch):
            some = [self.tokens[name] for name in ids[begin : begin + self.batch]]
            tokens = torch.cat(some).numpy()
            sizes = [len(one) for one in some]
            yield States(
                vectors=torch.cat([self.resid(one) for one in some]).numpy(),
                passage=np.repeat(np.arange(begin, begin + len(some)), sizes),
                position=np.concatenate([np.arange(size) for size in sizes]),
                token=tokens,
                special=tokens == 0,
                read=np.zeros(len(tokens), bool),
            )

    def divergence_gradients(self, ids: Sequence[str], change: Change) -> Iterator[Gradients]:
        """Yield gradients of the summed divergence with respect to what stands at the site."""
        for states in self.states(ids):
            stands = torch.from_numpy(np.asarray(change(states))).requires_grad_()
            tokens = torch.from_numpy(states.token).view(-1, self.length)
            with torch.enable_grad():
                values = self.divergence(tokens, stands.view(*tokens.shape, WIDTH))
                (gradient,) = torch.autograd.grad(values.sum(), stands)
            self.ran += 3 * len(stands)
            value = values.detach().double().numpy()
            yield Gradients(states=states, gradient=gradient.numpy(), value=value)

    def kl(self, ids: Sequence[str], change: Change) -> float:
        """Return the mean KL a token of held-out passages."""
        values = [one.value.sum() for one in self.divergence_gradients(ids, change)]
        return float(sum(values) / sum(len(self.tokens[name]) - 2 for name in ids))
