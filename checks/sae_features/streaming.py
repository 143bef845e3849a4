"""From a site's passages to dictionaries and held-out states: what is left out, counted, and trained on.

Specification of `sae_features`, sections 3 and 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from checks.check import Refusal
from checks.passages import Site, States
from checks.sae_features.asking import BATCH, PASSES_MAX
from checks.sae_features.dictionary.plan import TAIL_LEAST, Named, Objective, Plan
from checks.sae_features.dictionary.stream import OUTLIER_NORM
from checks.sae_features.dictionary.training import HEAD, Trained, Trainer
from checks.sae_features.held import Held

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

USABLE_LEAST = 100_000
"""Fewer states than this carry no dictionary (section 3)."""

LATENT_TOKENS_LEAST = 500
"""Below so many training states a latent the stream is short, and said to be (section 2)."""


class Sieve:
    """Says which states may be trained on, measured and edited, and counts the others.

    The median norm is that of the first states of the training stream, so that no batch sets its own bound and every
    later sweep uses the same.

    Args:
        median_norm: of states that are not special.
    """

    def __init__(self, median_norm: float) -> None:
        self.median_norm = median_norm

    def usable(self, states: States) -> Bool[np.ndarray, " token"]:
        """Return the states that are neither special nor outliers of norm."""
        norms = np.linalg.norm(states.vectors, axis=1)
        return np.asarray(~states.special & (norms <= OUTLIER_NORM * self.median_norm))


@dataclass(frozen=True, kw_only=True, eq=False)
class Learned:
    """Dictionaries of one model's site, and what they were trained on."""

    trained: Trained
    named: tuple[Named, ...]
    plan: Plan
    sieve: Sieve
    passes: int
    special: int
    outliers: int
    reached: bool
    """Whether as many states were there as were asked for."""

    @property
    def short(self) -> bool:
        """Whether the stream was short for so many latents."""
        return self.trained.states < LATENT_TOKENS_LEAST * self.plan.latents


def median_norm(site: Site, ids: Sequence[str]) -> float:
    """Return the median norm of the first states of a stream that are not special.

    Raises:
        Refusal: `non_finite`, naming the passage and the position.
    """
    norms: list[np.ndarray] = []
    for states in site.states(ids):
        check_finite(states, ids)
        norms.append(np.linalg.norm(states.vectors[~states.special], axis=1))
        if sum(map(len, norms)) >= HEAD:
            break
    found = np.concatenate(norms) if norms else np.zeros(0)
    if not len(found):
        raise Refusal("too_few_tokens", ("usable:0", f"limit:{USABLE_LEAST}"))
    return float(np.median(found[:HEAD]))


def learn(site: Site, ids: Sequence[str], wanted: int, make: PlanMaker) -> Learned:
    """Return dictionaries trained on a stream of passages, in at most two passes over them.

    Args:
        site: where.
        ids: training passages, in the order in which they stream.
        wanted: states to train on.
        make: makes the plan for so many steps.

    Raises:
        Refusal: `too_few_tokens`, `non_finite`, `constant_site`.
    """
    once = trainable(site, ids)
    sieve = Sieve(median_norm(site, head_of(site, ids)))
    length = min(wanted, PASSES_MAX * once)
    plan = make(max(1, length // BATCH))
    trainer, counts = Trainer(plan), _Counts()
    passes = 0
    while not trainer.full and passes < PASSES_MAX:
        passes += 1
        for rows in _rows(site, ids, sieve, counts if passes == 1 else _Counts()):
            _take(trainer, rows)
            if trainer.full:
                break
        else:
            if counts.usable < USABLE_LEAST:
                raise Refusal("too_few_tokens", (f"usable:{counts.usable}", f"limit:{USABLE_LEAST}"))
    trained = trainer.finish()
    return Learned(
        trained=trained,
        named=plan.dictionaries,
        plan=plan,
        sieve=sieve,
        passes=passes,
        special=counts.special,
        outliers=counts.outliers,
        reached=length >= wanted and not trained.short,
    )


class PlanMaker:
    """Makes the plan of a training of so many steps.

    Args:
        latents: of every dictionary.
        k: mean active latents.
        sparsifier: batchtopk or topk.
        named: the dictionaries.
        seed: of rows and order.
        objective: mse or mse_kl_tail.
    """

    def __init__(
        self, *, latents: int, k: int, sparsifier: str, named: tuple[Named, ...], seed: int, objective: Objective
    ) -> None:
        self.latents, self.k, self.sparsifier, self.named, self.seed = latents, k, sparsifier, named, seed
        self.objective = objective

    def __call__(self, steps: int) -> Plan:
        """Return the plan.

        Raises:
            Refusal: `too_few_tokens`, the steps are too few for a tail.
        """
        if self.objective == "mse_kl_tail" and steps < 2 * TAIL_LEAST:
            raise Refusal("too_few_tokens", (f"steps:{steps}", f"limit:{2 * TAIL_LEAST}", "params.objective"))
        return Plan(
            latents=self.latents,
            k=self.k,
            steps=steps,
            batch=BATCH,
            sparsifier="topk" if self.sparsifier == "topk" else "batchtopk",
            dictionaries=self.named,
            seed=self.seed,
            objective=self.objective,
        )


def trainable(site: Site, ids: Sequence[str]) -> int:
    """Return how many states a pass over the passages holds at most; nothing runs for it.

    Raises:
        Refusal: `too_few_tokens`.
    """
    once = int(site.lengths(ids).sum())
    if once < USABLE_LEAST:
        raise Refusal("too_few_tokens", (f"usable:{once}", f"limit:{USABLE_LEAST}"))
    return once


def head_of(site: Site, ids: Sequence[str]) -> Sequence[str]:
    """Return the first passages that hold as many states as set the median norm and the normalisation."""
    counted = np.cumsum(site.lengths(ids))
    return ids[: int(np.searchsorted(counted, HEAD)) + 1]


def check_finite(states: States, ids: Sequence[str]) -> None:
    """Refuse states that are not finite, naming the first.

    Raises:
        Refusal: `non_finite`.
    """
    wrong = ~np.isfinite(states.vectors).all(axis=1)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise Refusal(
            "non_finite", (f"passage:{ids[int(states.passage[first])]}", f"position:{int(states.position[first])}")
        )


class _Counts:
    """What a pass over the training passages left out."""

    def __init__(self) -> None:
        self.special = self.outliers = self.usable = 0


def _rows(site: Site, ids: Sequence[str], sieve: Sieve, counts: _Counts) -> Iterator[Float[torch.Tensor, "row d"]]:
    for states in site.states(ids):
        check_finite(states, ids)
        usable = sieve.usable(states)
        counts.special += int(states.special.sum())
        counts.outliers += int((~usable & ~states.special).sum())
        counts.usable += int(usable.sum())
        yield torch.from_numpy(np.ascontiguousarray(states.vectors[usable]))


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadRow:
    """One passage where it asked to be read."""

    vectors: Float[np.ndarray, "token d"]
    """States of the tokens that are read, float32."""
    places: Int[np.ndarray, " token"]
    """Their positions in the passage."""
    tokens: tuple[int, ...]
    """Tokens up to and with the last that is read."""
    length: int
    """Tokens of the passage."""


Chosen = Callable[[States, "Int[np.ndarray, ' token']"], "Int[np.ndarray, ' token']"]
"""Takes the states of a batch and which of them are one passage's; returns those that are read."""


def read_rows(site: Site, ids: Sequence[str], chosen: Chosen) -> dict[str, ReadRow]:
    """Return what is read of each passage, by id; one of which nothing is chosen is not among them.

    Raises:
        Refusal: `non_finite`.
    """
    found: dict[str, ReadRow] = {}
    for states in site.states(ids) if ids else ():
        check_finite(states, ids)
        for number in np.unique(states.passage):
            mine = np.flatnonzero(states.passage == number)
            there = chosen(states, mine)
            if len(there):
                end = int(np.flatnonzero(mine == there[-1])[0])
                found[ids[int(number)]] = ReadRow(
                    vectors=np.array(states.vectors[there], dtype=np.float32),
                    places=np.array(states.position[there]),
                    tokens=tuple(int(one) for one in states.token[mine[: end + 1]]),
                    length=len(mine),
                )
    return found


def _take(trainer: Trainer, rows: Float[torch.Tensor, "row d"]) -> None:
    try:
        trainer.take(rows)
    except ValueError as error:  # the only one left: states that do not vary
        raise Refusal("constant_site", ()) from error


def hold(site: Site, ids: Sequence[str], groups: Sequence[str], sieve: Sieve, most: int) -> tuple[Held, int, int]:
    """Return held-out states of passages, whole ones until so many are held; and how many were special and outliers.

    Args:
        site: where.
        ids: passages, in order.
        groups: group of each.
        sieve: of the training stream.
        most: states.

    Raises:
        Refusal: `non_finite`, `too_few_tokens`.
    """
    lengths = np.cumsum(site.lengths(ids))
    taken = max(1, int(np.searchsorted(lengths, most, side="right")))
    kept, special, outliers = [], 0, 0
    for states in site.states(ids[:taken]):
        check_finite(states, ids)
        usable = sieve.usable(states)
        special += int(states.special.sum())
        outliers += int((~usable & ~states.special).sum())
        kept.append((states.vectors[usable], states.passage[usable], states.position[usable], states.token[usable]))
    if not kept or not sum(len(part[0]) for part in kept):
        raise Refusal("too_few_tokens", ("held:0",))
    vectors, passage, position, token = (np.concatenate(part) for part in zip(*kept, strict=True))
    return (
        Held(
            x=np.asarray(vectors, dtype=np.float32),
            groups=tuple(groups[int(one)] for one in passage),
            passages=tuple(ids[int(one)] for one in passage),
            positions=position,
            tokens=token,
        ),
        special,
        outliers,
    )
