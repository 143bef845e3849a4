"""What the head says at single positions: cross-entropy, divergence and margins, and their derivatives.

From float32 logits everything is float64. The head is applied to a few positions at a time, and the distributions of
the model as it is are kept between changes where they are few enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.runtime.forward import NUMBERS_AT_ONCE

if TYPE_CHECKING:
    import torch
    from jaxtyping import Bool, Float32, Float64, Int64

    Head = Callable[[Float32[torch.Tensor, "place d"]], Float32[torch.Tensor, "place vocabulary"]]
    """Takes what the head reads, returns logits."""

KEPT_NUMBERS = 2**25
"""Log-probabilities of the unedited model that are kept between changes, 256 MiB in float64; more are worked out
again for each change."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Compared:
    """One change held against the model as it is, place by place."""

    cross_entropy: Float64[np.ndarray, " place"]
    divergence: Float64[np.ndarray, " place"]
    same_top: Bool[np.ndarray, " place"]
    variation: Float64[np.ndarray, " place"]


class Reference:
    """The model's own distributions at some places.

    Args:
        head: the unembedding.
        final: what it reads there.
        following: the token that comes next at each place.
    """

    def __init__(self, head: Head, final: Float32[torch.Tensor, "place d"], following: Int64[torch.Tensor, " place"]):
        self._head, self._final, self._following = head, final, following
        self._at_once = 0
        self._kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def itself(self) -> Compared:
        """Return the model held against itself: no divergence, and its own cross-entropy."""
        import torch

        parts = [_taken(own, following) for _, (own, _), following in self._parts()]
        loss = -torch.cat(parts).numpy() if parts else np.empty(0)
        none = np.zeros(len(loss))
        return Compared(
            cross_entropy=loss, divergence=none, same_top=np.ones(len(loss), dtype=np.bool_), variation=none.copy()
        )

    def against(self, final: Float32[torch.Tensor, "place d"]) -> Compared:
        """Return what is said with another stream, held against the model's own distributions."""
        import torch

        found: list[tuple[torch.Tensor, ...]] = []
        for part, (own, top), following in self._parts():
            logits = self._head(final[part])
            other = torch.log_softmax(logits.double(), dim=-1)
            p = own.exp()
            found.append((
                -_taken(other, following),
                # 0 · (log 0 - log q) is 0, and rounding may not make a divergence negative.
                torch.where(p > 0, p * (own - other), 0.0).sum(dim=-1).clamp(min=0.0),
                logits.argmax(dim=-1) == top,
                0.5 * (p - other.exp()).abs().sum(dim=-1),
            ))  # fmt: skip
        columns = [torch.cat(column).numpy() for column in zip(*found, strict=True)]
        return Compared(cross_entropy=columns[0], divergence=columns[1], same_top=columns[2], variation=columns[3])

    def pull(
        self, final: Float32[torch.Tensor, "place d"], scored: Bool[torch.Tensor, " place"]
    ) -> tuple[Float64[np.ndarray, " place"], Float32[torch.Tensor, "place d"]]:
        """Return KL(own || other) at scored places, 0 elsewhere, and the derivative of its sum to the other stream.

        By the logits the derivative is softmax(other) - p (cross-entropy's own); autograd takes it through the head.
        """
        import torch

        values, gradients = [], []
        for part, (own, _), _following in self._parts():
            read = final[part].detach().requires_grad_(True)
            with torch.enable_grad():
                logits = self._head(read)
            other = torch.log_softmax(logits.detach().double(), dim=-1)
            p, counts = own.exp(), scored[part].double()
            divergence = torch.where(p > 0, p * (own - other), 0.0).sum(dim=-1).clamp(min=0.0)
            values.append(divergence * counts)
            slope = ((other.exp() - p) * counts[:, None]).to(logits.dtype)
            gradients.append(torch.autograd.grad(logits, read, grad_outputs=slope)[0])
        return torch.cat(values).numpy(), torch.cat(gradients)

    def _parts(self) -> Iterator[tuple[slice, tuple[torch.Tensor, torch.Tensor], torch.Tensor]]:
        """Yield places that are handled in one go: their own log-probabilities, likeliest tokens and next tokens."""
        import torch

        places = len(self._final)
        if places and not self._at_once:
            self._at_once = max(1, NUMBERS_AT_ONCE // self._head(self._final[:1]).shape[-1])
        for begin in range(0, places, self._at_once or 1):
            part = slice(begin, begin + self._at_once)
            if begin in self._kept:
                yield part, self._kept[begin], self._following[part]
                continue
            logits = self._head(self._final[part])
            own = (torch.log_softmax(logits.double(), dim=-1), logits.argmax(dim=-1))
            if places * logits.shape[-1] <= KEPT_NUMBERS:
                self._kept[begin] = own
            yield part, own, self._following[part]


def _taken(
    scores: Float64[torch.Tensor, "place token"], tokens: Int64[torch.Tensor, " place"]
) -> Float64[torch.Tensor, " place"]:
    return scores.gather(1, tokens[:, None])[:, 0]


def margins(
    head: Head, final: Float32[torch.Tensor, "contrast d"], answers: Int64[torch.Tensor, "contrast 2"]
) -> Float64[np.ndarray, " contrast"]:
    """Return log p(target) - log p(foil) (nats): what the two share cancels, and their logits' difference is left."""
    import torch

    at_once = max(1, NUMBERS_AT_ONCE // head(final[:1]).shape[-1])
    pairs = [
        head(part).gather(1, asked).double()
        for part, asked in zip(torch.split(final, at_once), torch.split(answers, at_once), strict=True)
    ]
    both = torch.cat(pairs)
    differences: np.ndarray = (both[:, 0] - both[:, 1]).numpy()
    return differences


def margin_pull(
    head: Head, final: Float32[torch.Tensor, "contrast d"], answers: Int64[torch.Tensor, "contrast 2"]
) -> tuple[Float64[np.ndarray, " contrast"], Float32[torch.Tensor, "contrast d"]]:
    """Return the margins, and the derivative of each to its own stream."""
    import torch

    read = final.detach().requires_grad_(True)
    with torch.enable_grad():
        both = head(read).gather(1, answers)
        gradient = torch.autograd.grad((both[:, 0] - both[:, 1]).sum(), read)[0]
    exact = both.detach().double()
    differences: np.ndarray = (exact[:, 0] - exact[:, 1]).numpy()
    return differences, gradient
