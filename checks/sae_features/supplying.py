"""The dictionary that came with an audit: read, held against other readings of its files, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from checks.check import Refusal
from checks.sae_features.dictionary.convention import ROWS_MIN, Confirmed, Declared, confirm
from checks.sae_features.dictionary.formats import check_site, load_sae
from checks.sae_features.dictionary.value import Dictionary
from checks.sae_features.held import Held
from checks.sae_features.learning import FROZEN, Learning
from checks.sae_features.streaming import Sieve, head_of, median_norm

CONVENTION_STATES = 8192
"""Held-out states on which a supplied dictionary's reading is tested; the specification asks for 4096."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Supplied:
    """A dictionary that came with the audit."""

    dictionary: Dictionary | None
    """None where it was refused."""
    convention: Confirmed | None
    refusal: Refusal | None
    statements: tuple[str, ...]
    """What the sender states and nobody verified: which of its statements differ, never the sender's own text."""
    dropped: tuple[str, ...] = ()
    """Keys of its configuration that no rule reads, as the sender spells them."""
    untested: tuple[str, ...] = ()
    """Neighbouring sites that it is not held against: too few usable states, or of another width."""


class Supplying(Learning):
    """The trainings, and the dictionary that came beside them."""

    @cached_property
    def judged(self) -> Mapping[str, Dictionary]:
        """The dictionaries that words are said of: the trained ones and, where it was read, the supplied one."""
        found = {} if self.check.dictionary == "supplied" else {n: d for n, d in self.own.items() if n != FROZEN}
        if self.supplied is not None and self.supplied.dictionary is not None:
            found["supplied"] = self.supplied.dictionary
        return found

    @cached_property
    def supplied(self) -> Supplied | None:
        """The dictionary that came with the audit, read and confirmed or refused; None where none came."""
        if not self.asked.supplied:
            return None
        try:
            dictionary = load_sae(self.evidence.blob("sae_config"), self.evidence.blob("sae"))
            stated = check_site(dictionary.origin, self.check.site)
            width = self.site().width
            if dictionary.width != width:
                raise Refusal("wrong_width", (f"dictionary:{dictionary.width}", f"site:{width}"))
            confirmed, untested = self._confirmed(dictionary)
        except Refusal as refusal:
            if self.check.dictionary == "supplied":
                raise
            return Supplied(dictionary=None, convention=None, refusal=refusal, statements=())
        # An audit knows no name of its model, so that a name the sender states can be held against nothing.
        model = () if dictionary.origin.model_name is None else ("model:unverified",)
        differs = tuple(f"{one.partition(':')[0]}:differs" for one in stated)
        return Supplied(
            dictionary=dictionary,
            convention=confirmed,
            refusal=None,
            statements=(*differs, *model, f"trained_on:{dictionary.origin.trained_on}"),
            dropped=dictionary.origin.dropped,
            untested=untested,
        )

    def _confirmed(self, dictionary: Dictionary) -> tuple[Confirmed, tuple[str, ...]]:
        site = self.check.site
        by_layer = {0: torch.from_numpy(self.held.x[:CONVENTION_STATES])}
        untested = []
        for other in self.asked.neighbours:
            there = self._neighbour(other, dictionary.width)
            if there is None:
                untested.append(other)
            else:
                by_layer[int(other.partition(".")[2]) - int(site.partition(".")[2])] = torch.from_numpy(there.x)
        declared = Declared(l0=dictionary.origin.declared_l0, l0_tolerance=float(self.check.l0_tolerance))
        found = confirm(dictionary, by_layer, declared)
        if not isinstance(found, Confirmed) or hasattr(found, "causes"):
            raise found.refusal()  # type: ignore[attr-defined]
        return found, tuple(untested)

    def _neighbour(self, name: str, width: int) -> Held | None:
        """Return held-out states of a neighbouring site, sieved by its own norm; None where they can decide nothing."""
        place = self.evidence.site(name)
        if place.width != width:
            return None
        try:
            own = Sieve(median_norm(place, head_of(place, self.held_ids)))
            held = self._hold(place, own, CONVENTION_STATES)[0]
        except Refusal as refusal:
            if refusal.reason != "too_few_tokens":
                raise
            return None
        return held if len(held.x) >= ROWS_MIN else None
