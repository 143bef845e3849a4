"""What one audit trains: dictionaries of the submitted model and of its twin, and the states held out from them.

Everything here is computed when it is first asked for, and kept with the evidence (`Evidence.kept`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from checks.check import Evidence, Refusal
from checks.passages import Site, States, Which
from checks.sae_features.asking import HELD_TOKENS_MAX, Asked, asked
from checks.sae_features.dictionary.codelength import first_half
from checks.sae_features.dictionary.plan import Named
from checks.sae_features.dictionary.tail import Tail, kl_tail
from checks.sae_features.dictionary.value import Dictionary
from checks.sae_features.held import Held
from checks.sae_features.streaming import Learned, PlanMaker, Sieve, hold, learn, trainable

if TYPE_CHECKING:
    from checks.sae_features.check import SaeFeatures

FROZEN = "frozen"
"""Label of the dictionary whose decoder stays as it was drawn."""

HELD_GROUPS_LEAST = 20
"""Held-out groups below which there is no answer: intervals resample groups, the code gain is fitted on half of them,
and plants part them in three; as many as the specification asks of a concept's test (section 3)."""


class Learning:
    """The trainings of one check on one audit's evidence.

    Args:
        check: the question.
        evidence: the real one; never a control's.
    """

    def __init__(self, check: SaeFeatures, evidence: Evidence) -> None:
        self.check, self.evidence = check, evidence

    def rng(self, label: str) -> np.random.Generator:
        """Return a generator of the audit's seed and the check's own."""
        return self.evidence.rng(f"{self.check.seed}/{label}")

    @cached_property
    def asked(self) -> Asked:
        """What was asked for."""
        evidence = self.evidence
        binary = {one.name for one in self.check.data_roles if one.name in ("sae", "sae_config")}
        data = {role: () if role in binary else evidence.data(role) for role in evidence.roles()}
        return asked(self.check, evidence.facts, data)

    def site(self, which: Which = "submitted") -> Site:
        """Return the check's site in a model."""
        return self.evidence.site(self.check.site, which)

    @cached_property
    def train_ids(self) -> tuple[str, ...]:
        """Training passages, in stream order."""
        return tuple(f"corpus/{row.id}" for row in self.asked.train)

    @cached_property
    def held_ids(self) -> tuple[str, ...]:
        """Held-out passages, in order."""
        return tuple(f"corpus/{row.id}" for row in self.asked.held)

    @cached_property
    def held_groups(self) -> Mapping[str, str]:
        """Group of each held-out passage."""
        return {f"corpus/{row.id}": row.group for row in self.asked.held}

    @cached_property
    def learned(self) -> Learned:
        """The audit's own dictionaries: seeds, then the frozen decoder; all on the same batches.

        Raises:
            Refusal: `too_few_groups`, before anything runs, and as `learn`.
        """
        trainable(self.site(), self.train_ids)
        _check_groups(self.held_groups.values(), "corpus")
        seeds = tuple(Named(seed) for seed in range(self.check.dictionary_seeds))
        return self._learn("submitted", (*seeds, Named(0, frozen="decoder")))

    @cached_property
    def twin(self) -> Learned:
        """The shuffled twin's own dictionary, of equal budget."""
        return self._learn("shuffled", (Named(0),))

    def _learn(self, which: Which, named: tuple[Named, ...]) -> Learned:
        site = self.site(which)
        latents = self.check.latents(site.width)
        make = PlanMaker(
            latents=latents,
            k=self.check.active(latents),
            sparsifier=self.check.sparsifier,
            named=named,
            seed=self.check.seed,
            objective=self.check.objective,
        )
        return learn(site, self.train_ids, self.check.length(latents), make)

    @cached_property
    def own(self) -> Mapping[str, Dictionary]:
        """The trained dictionaries by label: trained-0, trained-1, ..., frozen."""
        labels = [FROZEN if one.frozen == "decoder" else f"trained-{one.seed}" for one in self.learned.named]
        ended = [one.dictionary for one in self.tails] or self.learned.trained.dictionaries
        return dict(zip(labels, ended, strict=True))

    @cached_property
    def tails(self) -> tuple[Tail, ...]:
        """The last steps of each dictionary through the model; none where the objective is reconstruction alone."""
        return self._tails(self.learned, "submitted")

    @cached_property
    def twin_dictionary(self) -> Dictionary:
        """The twin's own dictionary, of equal budget and objective."""
        tails = self._tails(self.twin, "shuffled")
        return tails[0].dictionary if tails else self.twin.trained.dictionaries[0]

    def _tails(self, learned: Learned, which: Which) -> tuple[Tail, ...]:
        if not learned.plan.tail_steps:
            return ()
        site = self.site(which)
        lengths = dict(zip(self.train_ids, site.lengths(self.train_ids).tolist(), strict=True))
        spoken = {name: length for name, length in lengths.items() if length}
        return tuple(
            kl_tail(
                dictionary,
                site,
                spoken,
                learned.sieve.usable,
                learned.plan,
                learned.trained.mean,
                learned.trained.scale,
                self.rng("tail"),
                frozen=named.frozen,
            )
            for named, dictionary in zip(learned.named, learned.trained.dictionaries, strict=True)
        )

    @property
    def sieve(self) -> Sieve:
        """What may be edited and measured at the site."""
        return self.learned.sieve

    @cached_property
    def held(self) -> Held:
        """Held-out states of the submitted model."""
        return self._held[0]

    @property
    def left_out(self) -> tuple[int, int]:
        """Special tokens and outliers among held-out and training tokens."""
        _, special, outliers = self._held
        return special + self.learned.special, outliers + self.learned.outliers

    @cached_property
    def _held(self) -> tuple[Held, int, int]:
        held = self._hold(self.site(), self.sieve, HELD_TOKENS_MAX)
        _check_groups(held[0].groups, "corpus")
        return held

    @cached_property
    def twin_held(self) -> Held:
        """The twin's states over the same passages."""
        held = self._hold(self.site("shuffled"), self.twin.sieve, HELD_TOKENS_MAX)[0]
        _check_groups(held.groups, "shuffled")
        return held

    @cached_property
    def base_held(self) -> Held:
        """The base model's states over the same passages."""
        return self._hold(self.site("base"), self.sieve, HELD_TOKENS_MAX)[0]

    def _hold(self, site: Site, sieve: Sieve, most: int) -> tuple[Held, int, int]:
        groups = [self.held_groups[one] for one in self.held_ids]
        return hold(site, self.held_ids, groups, sieve, most)


def _check_groups(groups: Iterable[str], whose: str) -> None:
    """Refuse too few held-out groups, and groups that all fall into one half of the code gain's.

    Raises:
        Refusal: `too_few_groups`.
    """
    names = sorted(set(groups))
    if len(names) < HELD_GROUPS_LEAST:
        raise Refusal("too_few_groups", (f"{whose}:held:{len(names)}", f"limit:{HELD_GROUPS_LEAST}"))
    if len(set(first_half(names).tolist())) < 2:
        raise Refusal("too_few_groups", (f"{whose}:held:{len(names)}", f"{whose}:halves:1"))


def sliced(held: Held, rows: Sequence[int] | np.ndarray) -> Held:
    """Return some of the held-out states."""
    chosen = np.asarray(rows)
    return replace(
        held,
        x=held.x[chosen],
        groups=tuple(held.groups[int(one)] for one in chosen),
        passages=tuple(held.passages[int(one)] for one in chosen),
        positions=held.positions[chosen],
        tokens=held.tokens[chosen],
    )


def editable(sieve: Sieve) -> Callable[[States], np.ndarray]:
    """Return which states an edit may touch: those that are measured."""
    return lambda states: sieve.usable(states)
