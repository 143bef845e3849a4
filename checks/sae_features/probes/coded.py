"""What a dictionary says of the states of a batch, worked out once and shared by every change that is made to them.

An ablation with its controls is more than a hundred changes to the same states. The encoder is the only part that costs
more than a copy of the states, so a batch is encoded when the first change sees it, and the others read what is kept:
the reconstruction, and the values of the latents that some change names. Specification of `sae_features`, section 8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from checks.sae_features.dictionary.value import LayerNorm, Scale, TokenRms

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from checks.passages import Change, States
    from checks.sae_features.dictionary.value import Dictionary

Editable = Callable[["States"], "Bool[np.ndarray, ' token']"]
"""Says which tokens of a batch may be edited: neither special nor an outlier by norm."""

CODES_AT_ONCE = 2**22
"""Latent values held at a time while encoding: 16 MiB of float32; bounds memory, not the result."""


@dataclass(frozen=True, eq=False)
class Code:
    """The editable states of a batch, and what the dictionary makes of each; raw units throughout."""

    x: Float[np.ndarray, "token d"]
    made: Float[np.ndarray, "token d"]
    """x̂."""
    bare: Float[np.ndarray, "token d"]
    """What the dictionary says where every latent is 0."""
    latents: Int[np.ndarray, " named"]
    """Ascending numbers of the latents whose values are kept."""
    values: Float[np.ndarray, "token named"]
    """f times what undoes a norm: value times row is what the latent adds to the state."""
    rows: Float[np.ndarray, "named d"]

    @property
    def error(self) -> Float[np.ndarray, "token d"]:
        """What the dictionary leaves out, x - x̂."""
        return np.asarray(self.x - self.made)

    def added(self, latents: Sequence[int]) -> Float[np.ndarray, "token d"]:
        """Return the sum over these latents of f_i w_dec[i].

        Raises:
            KeyError: a latent that was not named before the batch was encoded.
        """
        wanted = np.asarray(latents, dtype=np.int64)
        columns = np.searchsorted(self.latents, wanted)
        if np.any(columns >= len(self.latents)) or np.any(self.latents[columns] != wanted):
            raise KeyError(f"latents {sorted(set(wanted.tolist()) - set(self.latents.tolist()))} were not named")
        return np.asarray(self.values[:, columns] @ self.rows[columns])


class Coded:
    """Changes that share one encoding of each batch.

    A batch is recognised by what it holds, never by where it lies: a runtime may reuse its memory.

    Args:
        dictionary: what encodes.
        editable: which tokens may be edited.
        latents: every latent that some change names.
    """

    def __init__(self, dictionary: Dictionary, editable: Editable, latents: Iterable[int] = ()) -> None:
        self.dictionary = dictionary
        self.encodings = 0
        self._editable = editable
        self._latents = np.unique(np.fromiter((int(one) for one in latents), dtype=np.int64))
        if len(self._latents) and not 0 <= self._latents[0] <= self._latents[-1] < dictionary.latents:
            raise ValueError(f"latents {self._latents[[0, -1]].tolist()} outside 0..{dictionary.latents - 1}")
        self._rows = dictionary.rows[torch.from_numpy(self._latents)].detach().numpy()
        self._seen: tuple[np.ndarray, np.ndarray] | None = None
        self._code: tuple[Bool[np.ndarray, " token"], Code] | None = None

    def change(self, made: Callable[[Code], Float[np.ndarray, "token d"]]) -> Change:
        """Return the change that puts what `made` says in place of the editable states, and leaves the others."""

        def change(states: States) -> Float[np.ndarray, "token d"]:
            edit, code = self.of(states)
            changed = np.array(states.vectors, dtype=np.float32)
            changed[edit] = made(code)
            return changed

        return change

    def without(self, latents: Sequence[int]) -> Change:
        """Return the ablation x - sum of f_i w_dec[i]: the error term stays."""
        return self.change(lambda code: code.x - code.added(latents))

    def of(self, states: States) -> tuple[Bool[np.ndarray, " token"], Code]:
        """Return which tokens may be edited, and the code of those."""
        if self._code is None or self._seen is None or not _same(self._seen, states):
            self._seen = (np.array(states.vectors), np.array(states.special))
            self._code = self._encoded(states)
        return self._code

    def _encoded(self, states: States) -> tuple[Bool[np.ndarray, " token"], Code]:
        self.encodings += 1
        edit = np.asarray(self._editable(states), dtype=bool)
        x = np.asarray(states.vectors[edit])
        made, bare = np.empty_like(x), np.empty_like(x)
        values = np.empty((len(x), len(self._latents)), dtype=x.dtype)
        for place, part, f in encoded(self.dictionary, x):
            with torch.no_grad():
                made[place] = self.dictionary.decode(f, part).numpy()
                bare[place] = self.dictionary.decode(torch.zeros_like(f[:, :1]).expand_as(f), part).numpy()
                values[place] = (f[:, torch.from_numpy(self._latents)] * undone(self.dictionary, part)).numpy()
        return edit, Code(x, made, bare, self._latents, values, self._rows)


def encoded(
    dictionary: Dictionary, x: Float[np.ndarray, "token d"]
) -> Iterator[tuple[slice, Float[torch.Tensor, "part d"], Float[torch.Tensor, "part m"]]]:
    """Yield parts of the states with their place and latents, few enough that memory stays bounded."""
    step = max(1, CODES_AT_ONCE // dictionary.latents)
    for begin in range(0, len(x), step):
        part = torch.from_numpy(np.ascontiguousarray(x[begin : begin + step]))
        with torch.no_grad():  # closed before yielding: else it would hold in the caller too
            f = dictionary.encode(part)
        yield slice(begin, begin + len(part)), part, f


def undone(dictionary: Dictionary, x: Float[torch.Tensor, "row d"]) -> Float[torch.Tensor, "row 1"]:
    """Return what a latent's row is multiplied by, state by state, when the norm is undone."""
    norm, states = dictionary.norm, x.to(dictionary.w_dec.dtype)
    if isinstance(norm, TokenRms):
        lengths = torch.linalg.vector_norm(states, dim=1, keepdim=True)
        return torch.where(lengths > 0, lengths, 1.0) / float(x.shape[1] ** 0.5)
    if isinstance(norm, LayerNorm):
        return states.std(dim=1, keepdim=True)
    return torch.full_like(states[:, :1], 1 / norm.s if isinstance(norm, Scale) else 1.0)


def _same(seen: tuple[np.ndarray, np.ndarray], states: States) -> bool:
    return np.array_equal(seen[0], states.vectors) and np.array_equal(seen[1], states.special)
