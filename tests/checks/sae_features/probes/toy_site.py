"""A small language model of known weights with one site, and dictionaries of known rows for it.

After the token 1, a direction b of the site is raised by a first nonlinear layer, and a second one reads b and lifts
the logit of the token `TARGET`. The rows 0 and 1 of `dictionary()` carry b, or a direction that none of its rows has,
so that only the error term does. All is float64 inside; each batch overwrites the memory of the last one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal

import numpy as np
import torch

from checks.passages import Change, Gradients, Spliced, States
from checks.sae_features.dictionary.value import Dictionary, Relu

VOCABULARY, D, LATENTS = 16, 28, 24
SPECIAL, TRIGGER, TARGET, FOIL = 0, 1, 14, 15
MARK, ERROR_CARRIER, OUT = LATENTS, LATENTS + 1, LATENTS + 2
"""Directions that no row of the dictionary has: the trigger token's, the one that the error carries, the output's."""

Carrier = Literal["latents", "error", "nothing"]


def directions() -> np.ndarray:
    """Return D orthonormal rows; the first LATENTS are those of `dictionary`."""
    return np.asarray(np.linalg.qr(np.random.default_rng(7).standard_normal((D, D)))[0])


def dictionary(**over: Any) -> Dictionary:
    rows = torch.tensor(directions()[:LATENTS], dtype=torch.float32)
    parts: dict[str, Any] = {
        "w_enc": rows.T.contiguous(),
        "b_enc": torch.zeros(LATENTS),
        "w_dec": rows,
        "b_dec": torch.zeros(D),
    }
    return Dictionary(**{**parts, "gate": Relu(), **over})


class ToySite:
    """Implements `checks.passages.Site`; `linear` makes everything after the site linear in its states."""

    name, width = "resid.0", D

    def __init__(
        self,
        carrier: Carrier = "latents",
        linear: bool = False,
        rows: int = 40,
        batch: int = 16,
        bias: float = -1.5,
    ) -> None:
        rng = np.random.default_rng(11)
        q = directions()
        self.linear, self.batch, self.charged = linear, batch, 0
        codes = rng.uniform(0.5, 1.5, (VOCABULARY, LATENTS)) * (rng.random((VOCABULARY, LATENTS)) < 0.5)
        codes[:, :2] = 0.0
        embedding = codes @ q[:LATENTS]
        embedding[TRIGGER] += 3.0 * q[MARK]
        embedding[SPECIAL] = 5.0 * q[D - 1]
        self.carried = {"latents": q[0] + 0.8 * q[1], "error": 1.3 * q[ERROR_CARRIER], "nothing": 0.0 * q[0]}[carrier]
        self.embedding, self.mark = torch.tensor(embedding), torch.tensor(q[MARK])
        self.b = torch.tensor(self.carried)
        self.out = torch.tensor(q[OUT])
        self.w1 = torch.tensor(0.05 * rng.standard_normal((D, D)))
        unembedding = 0.05 * rng.standard_normal((D, VOCABULARY))
        unembedding[:, TARGET] += 1.5 * q[OUT]
        if linear:
            unembedding[:, TARGET] += q[: LATENTS + 2].T @ rng.uniform(0.1, 0.5, LATENTS + 2)
        self.unembedding = torch.tensor(unembedding)
        self.bias = torch.zeros(VOCABULARY, dtype=torch.float64)
        self.bias[TARGET] = bias
        self.passages: dict[str, tuple[int, ...]] = {}
        self.contrasts: dict[str, tuple[tuple[int, ...], int, int]] = {}
        self.groups: dict[str, str] = {}
        self.lost: set[str] = set()
        for row in range(rows):
            content = rng.integers(2, 14, 5).tolist()
            place = int(rng.integers(0, 4))
            self._add(f"c{row}", (SPECIAL, *content[:place], TRIGGER, *content[place:]), f"g{row // 2}")
            self._add(f"plain{row}", (SPECIAL, *content), f"g{row // 2}")
            self.passages[f"n{row}"] = (SPECIAL, *rng.integers(2, 14, 7).tolist())
        self._memory = np.empty((4096, D), dtype=np.float32)

    def _add(self, name: str, tokens: tuple[int, ...], group: str) -> None:
        self.contrasts[name], self.groups[name] = (tokens, TARGET, FOIL), group

    def named(self, prefix: str = "c") -> tuple[list[str], list[str]]:
        """Return the ids of a kind of contrasts, and their groups: "c" has the behaviour, "plain" has not."""
        ids = [name for name in self.contrasts if name.rstrip("0123456789") == prefix]
        return ids, [self.groups[name] for name in ids]

    def tokens(self, ids: Sequence[str]) -> int:
        return sum(len(self._tokens(name)) for name in ids)

    def average(self) -> np.ndarray:
        """Return the mean of editable states over the contrasts of both kinds."""
        parts = [part.vectors[~part.special].astype(np.float64) for part in self._free(list(self.contrasts))]
        return np.asarray(np.concatenate(parts).mean(axis=0))

    def masses(self, dictionary: Dictionary) -> np.ndarray:
        """Return the mean contribution of each latent there."""
        parts = [
            dictionary.contributions(dictionary.encode(torch.tensor(part.vectors[~part.special])))
            for part in self._free(list(self.contrasts))
        ]
        return torch.cat(parts).double().mean(0).numpy()

    def _free(self, ids: Sequence[str]) -> Iterator[States]:
        for _, states, _, _ in self._batches(ids, 0):
            yield states

    def _tokens(self, name: str) -> tuple[int, ...]:
        return self.contrasts[name][0] if name in self.contrasts else self.passages[name]

    def _batches(self, ids: Sequence[str], times: int) -> Iterator[tuple[list[int], States, torch.Tensor, np.ndarray]]:
        """Yield numbers of passages, their states, the matrix of causal means, and where each passage ends."""
        for begin in range(0, len(ids), self.batch):
            numbers = list(range(begin, min(begin + self.batch, len(ids))))
            sequences = [self._tokens(ids[number]) for number in numbers]
            token = np.concatenate([np.array(one) for one in sequences])
            self.charged += times * len(token)
            passage = np.repeat(numbers, [len(one) for one in sequences])
            position = np.concatenate([np.arange(len(one)) for one in sequences])
            sees = (passage[:, None] == passage) & (position[:, None] >= position)
            means = torch.tensor(sees / sees.sum(axis=1, keepdims=True))
            embedded = self.embedding[torch.from_numpy(token)]
            fired = torch.tanh(2.0 * (means @ embedded) @ self.mark)
            vectors = self._memory[: len(token)]
            vectors[:] = (embedded + 2.0 * fired[:, None] * self.b).numpy()
            ends = np.cumsum([len(one) for one in sequences]) - 1
            read = np.isin(np.arange(len(token)), ends)
            yield (
                numbers,
                States(
                    vectors=vectors,
                    passage=passage,
                    position=position,
                    token=token,
                    special=token == SPECIAL,
                    read=read,
                ),
                means,
                ends,
            )

    def logits(self, h: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
        if self.linear:
            return (h + 0.5 * means @ h) @ self.unembedding + self.bias
        heard = torch.tanh(0.6 * h @ self.b + 0.3 * means @ h @ self.b)
        return (h + 4.0 * heard[:, None] * self.out + 0.1 * torch.tanh(h @ self.w1)) @ self.unembedding + self.bias

    def states(self, ids: Sequence[str]) -> Iterator[States]:
        for _, states, _, _ in self._batches(ids, 1):
            yield states

    def margins(self, ids: Sequence[str], changes: Sequence[Change]) -> np.ndarray:
        found = np.empty((1 + len(changes), len(ids)))
        for numbers, states, means, ends in self._batches(ids, 1 + len(changes)):
            for row, change in enumerate((None, *changes)):
                h = torch.tensor(states.vectors if change is None else change(states), dtype=torch.float64)
                found[row, numbers] = self._margin(h, means, ends, [ids[number] for number in numbers]).numpy()
        found[:, [name in self.lost for name in ids]] = np.nan
        return found

    def _margin(self, h: torch.Tensor, means: torch.Tensor, ends: np.ndarray, ids: Sequence[str]) -> torch.Tensor:
        log_p = torch.log_softmax(self.logits(h, means)[torch.from_numpy(ends)], dim=-1)
        asked = torch.tensor([self.contrasts[name][1:] for name in ids])
        picked = log_p.gather(1, asked)
        return picked[:, 0] - picked[:, 1]

    def margin_gradients(self, ids: Sequence[str], change: Change | None = None) -> Iterator[Gradients]:
        for numbers, states, means, ends in self._batches(ids, 3):
            h = torch.tensor(states.vectors if change is None else change(states), dtype=torch.float64)
            h.requires_grad_(True)
            margin = self._margin(h, means, ends, [ids[number] for number in numbers])
            (gradient,) = torch.autograd.grad(margin.sum(), h)
            lost = [number for number in numbers if ids[number] in self.lost]
            there = ~np.isin(states.passage, lost)
            value = margin.detach().numpy().copy()
            value[np.isin(numbers, lost)] = np.nan
            left = States(**{field.name: getattr(states, field.name)[there] for field in fields(States)})
            yield Gradients(states=left, gradient=gradient.numpy().astype(np.float32)[there], value=value)

    def splice(self, ids: Sequence[str], changes: Sequence[Change]) -> Iterator[Spliced]:
        for _, states, means, ends in self._batches(ids, 1 + len(changes)):
            rows = np.setdiff1d(np.arange(len(states.token)), ends)
            log_p = [
                torch.log_softmax(
                    self.logits(torch.tensor(vectors, dtype=torch.float64), means)[torch.from_numpy(rows)], dim=-1
                )
                for vectors in (states.vectors, *(change(states) for change in changes))
            ]
            p = log_p[0].exp()
            following = torch.from_numpy(states.token[rows + 1])[:, None]
            yield Spliced(
                passage=states.passage[rows],
                position=states.position[rows],
                scored=~states.special[rows] & ~states.special[rows + 1],
                cross_entropy=np.stack([-one.gather(1, following)[:, 0].numpy() for one in log_p]),
                divergence=np.stack([(p * (log_p[0] - one)).sum(-1).numpy() for one in log_p]),
                same_top=np.stack([(one.argmax(-1) == p.argmax(-1)).numpy() for one in log_p]),
                variation=np.stack([((p - one.exp()).abs().sum(-1) / 2).numpy() for one in log_p]),
            )

    def divergence_gradients(self, ids: Sequence[str], change: Change) -> Iterator[Gradients]:
        raise NotImplementedError

    def logit_weights(self) -> np.ndarray:
        raise NotImplementedError

    def lengths(self, ids: Sequence[str]) -> np.ndarray:
        return np.array([len(self._tokens(name)) - 1 for name in ids])

    def cut(self) -> int:
        return 0


def editable(states: States) -> np.ndarray:
    return np.asarray(~states.special)


def draw(label: str) -> np.random.Generator:
    """Return a generator of a label."""
    return np.random.default_rng(list(label.encode()))


def by_hand(site: ToySite, tokens: Sequence[int], edit: Mapping[int, np.ndarray] | None = None) -> float:
    """Return the margin after a prompt, token by token in numpy; `edit` puts states in place by position."""
    e = site.embedding.numpy()
    states = []
    for position in range(len(tokens)):
        seen = np.mean([e[token] for token in tokens[: position + 1]], axis=0)
        state = e[tokens[position]] + 2.0 * np.tanh(2.0 * float(seen @ site.mark.numpy())) * site.carried
        states.append(state if edit is None or position not in edit else edit[position])
    last, before = states[-1], np.mean(states, axis=0)
    if site.linear:
        after = last + 0.5 * before
    else:
        heard = np.tanh(0.6 * float(last @ site.carried) + 0.3 * float(before @ site.carried))
        after = last + 4.0 * heard * site.out.numpy() + 0.1 * np.tanh(last @ site.w1.numpy())
    logits = after @ site.unembedding.numpy() + site.bias.numpy()
    return float(logits[TARGET] - logits[FOIL])
