"""What one audit trains and reads once: dictionaries, held-out states, concept rows. Controls join it.

Everything here is computed when it is first asked for, and kept with the evidence (`Evidence.kept`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from checks.check import Evidence, Refusal
from checks.passages import Site, States, Which
from checks.sae_features.asking import HELD_TOKENS_MAX, Asked, asked
from checks.sae_features.dictionary.convention import Confirmed, Declared, confirm
from checks.sae_features.dictionary.formats import check_site, load_sae
from checks.sae_features.dictionary.plan import Named
from checks.sae_features.dictionary.tail import Tail, kl_tail
from checks.sae_features.dictionary.value import Dictionary
from checks.sae_features.held import Held
from checks.sae_features.probes.concept import concept_table
from checks.sae_features.probes.concept_values import (
    ConceptRefused,
    ConceptRows,
    ConceptTable,
    Features,
    ProbeSettings,
    Twin,
    least_permutations,
    split_of,
)
from checks.sae_features.rows import ConceptRow
from checks.sae_features.streaming import Learned, PlanMaker, Sieve, check_finite, hold, learn

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from checks.sae_features.check import SaeFeatures

FROZEN = "frozen"
"""Label of the dictionary whose decoder stays as it was drawn."""

ENCODED_AT_ONCE = 4096
"""States encoded at a time: bounds memory, not the result."""

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
    """What the sender states and nobody verified."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Read:
    """Concept rows as one model sees them."""

    x: Float[np.ndarray, "row d"]
    """Pooled at the marked tokens, float32."""
    marked: tuple[Float[np.ndarray, "token d"], ...]
    """States of the marked tokens of each row."""
    tokens: tuple[tuple[int, ...], ...]
    """Tokens of each row up to and with its last marked one."""
    positions: Int[np.ndarray, " row"]
    lengths: Int[np.ndarray, " row"]


class Session:
    """One check on one audit's evidence.

    Args:
        check: the question.
        evidence: the real one; never a control's.
    """

    def __init__(self, check: SaeFeatures, evidence: Evidence) -> None:
        self.check, self.evidence = check, evidence

    @classmethod
    def of(cls, check: SaeFeatures, evidence: Evidence) -> Session:
        """Return the session of this evidence, made once."""
        session = evidence.kept.get("session")
        if not isinstance(session, Session):
            session = evidence.kept["session"] = cls(check, evidence)
        return session

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
        """The audit's own dictionaries: seeds, then the frozen decoder; all on the same batches."""
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

    @cached_property
    def judged(self) -> Mapping[str, Dictionary]:
        """The dictionaries that words are said of: the trained ones and, where it was read, the supplied one."""
        found = {} if self.check.dictionary == "supplied" else {n: d for n, d in self.own.items() if n != FROZEN}
        if self.supplied is not None and self.supplied.dictionary is not None:
            found["supplied"] = self.supplied.dictionary
        return found

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
        return self._hold(self.site(), self.sieve, HELD_TOKENS_MAX)

    @cached_property
    def twin_held(self) -> Held:
        """The twin's states over the same passages."""
        return self._hold(self.site("shuffled"), self.twin.sieve, HELD_TOKENS_MAX)[0]

    @cached_property
    def base_held(self) -> Held:
        """The base model's states over the same passages."""
        return self._hold(self.site("base"), self.sieve, HELD_TOKENS_MAX)[0]

    def _hold(self, site: Site, sieve: Sieve, most: int) -> tuple[Held, int, int]:
        groups = [self.held_groups[one] for one in self.held_ids]
        return hold(site, self.held_ids, groups, sieve, most)

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
            confirmed = self._confirmed(dictionary)
        except Refusal as refusal:
            if self.check.dictionary == "supplied":
                raise
            return Supplied(dictionary=None, convention=None, refusal=refusal, statements=())
        statements = (*stated, f"trained_on:{dictionary.origin.trained_on}")
        return Supplied(dictionary=dictionary, convention=confirmed, refusal=None, statements=statements)

    def _confirmed(self, dictionary: Dictionary) -> Confirmed:
        site = self.check.site
        by_layer = {0: torch.from_numpy(self.held.x[:CONVENTION_STATES])}
        for other in self.asked.neighbours:
            place = self.evidence.site(other)
            if place.width == dictionary.width:
                step = int(other.partition(".")[2]) - int(site.partition(".")[2])
                held = self._hold(place, self.sieve, CONVENTION_STATES)[0]
                by_layer[step] = torch.from_numpy(held.x)
        declared = Declared(l0=dictionary.origin.declared_l0, l0_tolerance=float(self.check.l0_tolerance))
        found = confirm(dictionary, by_layer, declared)
        if not isinstance(found, Confirmed) or hasattr(found, "causes"):
            raise found.refusal()  # type: ignore[attr-defined]
        return found

    @cached_property
    def concept_names(self) -> tuple[str, ...]:
        """Concepts that are asked, in the order of their first rows."""
        return tuple(dict.fromkeys(row.concept for row in self.asked.concepts))

    def concept_rows(self, concept: str) -> tuple[ConceptRow, ...]:
        """Return the rows of a concept."""
        return tuple(row for row in self.asked.concepts if row.concept == concept)

    @cached_property
    def read(self) -> Mapping[str, Read]:
        """Rows of each concept in the submitted model."""
        return {name: self._read(name, "submitted") for name in self.concept_names}

    @cached_property
    def twin_read(self) -> Mapping[str, Read]:
        """The same in the twin."""
        return {name: self._read(name, "shuffled") for name in self.concept_names}

    @cached_property
    def base_read(self) -> Mapping[str, Read]:
        """The same in the base model."""
        return {name: self._read(name, "base") for name in self.concept_names}

    def _read(self, concept: str, which: Which) -> Read:
        ids = [f"concepts/{row.id}" for row in self.concept_rows(concept)]
        marked: list[np.ndarray] = []
        tokens: list[tuple[int, ...]] = []
        last: list[int] = []
        lengths: list[int] = []
        for states in self.site(which).states(ids):
            check_finite(states, ids)
            for number in np.unique(states.passage):
                mine = np.flatnonzero(states.passage == number)
                there = mine[states.read[mine]]
                if self.check.pool == "last":
                    there = there[-1:]
                if not len(there):
                    raise Refusal("nothing_to_read", (f"passage:{ids[int(number)]}",))
                marked.append(np.array(states.vectors[there], dtype=np.float32))
                end = int(np.flatnonzero(mine == there[-1])[0])
                tokens.append(tuple(int(one) for one in states.token[mine[: end + 1]]))
                last.append(int(states.position[there[-1]]))
                lengths.append(len(mine))
        return Read(
            x=np.stack([part.mean(axis=0, dtype=np.float64) for part in marked]).astype(np.float32),
            marked=tuple(marked),
            tokens=tuple(tokens),
            positions=np.array(last),
            lengths=np.array(lengths),
        )

    def features(self, read: Read, dictionary: Dictionary) -> Features:
        """Return a dictionary's contributions and what it leaves out, pooled over each row's marked tokens."""
        parts = np.cumsum([0, *(len(one) for one in read.marked)])
        x = torch.from_numpy(np.concatenate(read.marked))
        f = torch.cat([dictionary.encode(part) for part in torch.split(x, ENCODED_AT_ONCE)])
        left = (x - dictionary.decode(f, x)).numpy()
        g = dictionary.contributions(f).numpy()
        pooled = [slice(first, after) for first, after in pairwise(parts)]
        return Features(
            latents=np.stack([g[part].mean(axis=0) for part in pooled]),
            residual=np.stack([left[part].mean(axis=0) for part in pooled]),
        )

    @cached_property
    def settings(self) -> ProbeSettings:
        """Numbers of the probes."""
        alpha = float(self.check.alpha)
        return ProbeSettings(
            ks=self.check.ks,
            # Fewer draws could not reach alpha over so many concepts, whatever the truth is.
            permutations=max(self.check.permutations, least_permutations(len(self.concept_names), alpha)),
            resamples=self.check.bootstrap,
            detect_floor=float(self.check.detect_floor),
            alpha=alpha,
        )

    @cached_property
    def tables(self) -> Mapping[str, ConceptTable | ConceptRefused]:
        """What every dictionary reads of each concept, or why a concept is refused."""
        return {name: self._table(name) for name in self.concept_names}

    def _table(self, concept: str) -> ConceptTable | ConceptRefused:
        rows, read = self.concept_rows(concept), self.read[concept]
        told = ConceptRows(
            concept=concept,
            labels=np.array([row.label for row in rows]),
            groups=[row.group for row in rows],
            x=read.x,
            tokens=list(read.tokens),
            positions=read.positions,
            lengths=read.lengths,
            split=[row.split or split_of(row.group, self.check.seed) for row in rows],
            shift=[row.shift for row in rows],
        )
        twin = self.twin_read[concept]
        twin_features = self.features(twin, self.twin_dictionary)
        return concept_table(
            told,
            {name: self.features(read, one) for name, one in self.judged.items()},
            self.features(read, self.own[FROZEN]),
            Twin(x=twin.x, latents=twin_features.latents),
            self.settings,
            self._labelled(f"concept/{concept}"),
        )

    def _labelled(self, prefix: str) -> Callable[[str], np.random.Generator]:
        return lambda label: self.rng(f"{prefix}/{label}")

    def firing(self, dictionary: Dictionary) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
        """Return each latent's rate of firing and its mass E g on held-out states."""
        rate, mass = np.zeros(dictionary.latents), np.zeros(dictionary.latents)
        for part in torch.split(torch.from_numpy(self.held.x), ENCODED_AT_ONCE):
            f = dictionary.encode(part)
            rate += (f > 0).sum(dim=0).numpy()
            mass += dictionary.contributions(f).sum(dim=0, dtype=torch.float64).numpy()
        return rate / len(self.held.x), mass / len(self.held.x)


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
