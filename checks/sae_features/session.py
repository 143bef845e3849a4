"""What one audit trains and reads once: dictionaries, held-out states, concept rows. Controls join it.

Everything here is computed when it is first asked for, and kept with the evidence (`Evidence.kept`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from checks.check import Evidence, Refusal
from checks.passages import Site, States, Which
from checks.sae_features.asking import HELD_TOKENS_MAX, Asked, asked
from checks.sae_features.dictionary.codelength import first_half
from checks.sae_features.dictionary.convention import ROWS_MIN, Confirmed, Declared, confirm
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
from checks.sae_features.streaming import (
    Learned,
    PlanMaker,
    ReadRow,
    Sieve,
    head_of,
    hold,
    learn,
    median_norm,
    read_rows,
    trainable,
)

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from checks.sae_features.check import SaeFeatures

FROZEN = "frozen"
"""Label of the dictionary whose decoder stays as it was drawn."""

ENCODED_AT_ONCE = 4096
"""States encoded at a time: bounds memory, not the result."""

CONVENTION_STATES = 8192
"""Held-out states on which a supplied dictionary's reading is tested; the specification asks for 4096."""

HELD_GROUPS_LEAST = 20
"""Held-out groups below which there is no answer: intervals resample groups, the code gain is fitted on half of them,
and plants part them in three; as many as the specification asks of a concept's test (section 3)."""

ROW_LOST, OUTLIER_ROW = "row_lost", "outlier_row"
"""Why a concept row is left out: it can be read nowhere; every token it is read at is special or an outlier of norm."""


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

    @classmethod
    def of(cls, rows: Sequence[ReadRow], width: int) -> Read:
        """Return rows together; there may be none."""
        pooled = [row.vectors.mean(axis=0, dtype=np.float64) for row in rows]
        return cls(
            x=np.array(pooled, dtype=np.float64).reshape(-1, width).astype(np.float32),
            marked=tuple(row.vectors for row in rows),
            tokens=tuple(row.tokens for row in rows),
            positions=np.array([int(row.places[-1]) for row in rows], dtype=np.int64),
            lengths=np.array([row.length for row in rows], dtype=np.int64),
        )


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

    @cached_property
    def concept_names(self) -> tuple[str, ...]:
        """Concepts that are asked, in the order of their first rows."""
        return tuple(dict.fromkeys(row.concept for row in self.asked.concepts))

    def concept_rows(self, concept: str) -> tuple[ConceptRow, ...]:
        """Return the rows of a concept that are read, the same in every model."""
        read, _ = self._submitted
        return tuple(row for row in self.asked.concepts if row.concept == concept and row.id in read)

    @property
    def left_out_rows(self) -> tuple[tuple[str, str], ...]:
        """Concept rows that are not read, as `concept_row:<id>`, and why: `row_lost` or `outlier_row`."""
        read, sieved = self._submitted
        rows = [row.id for row in self.asked.concepts if row.id not in read]
        return tuple((f"concept_row:{one}", OUTLIER_ROW if one in sieved else ROW_LOST) for one in rows)

    @cached_property
    def _submitted(self) -> tuple[Mapping[str, ReadRow], frozenset[str]]:
        """What is read of each row in the submitted model, by row id; and the rows of which no marked token is usable.

        The model's own states alone decide which rows and tokens are read: another model that came with the audit must
        not change what is said of this one.
        """
        lost, sieved = self.evidence.lost(), set()
        read: dict[str, ReadRow] = {}
        for concept in self.concept_names:
            rows = [row.id for row in self.asked.concepts if row.concept == concept]
            there = [one for one in rows if f"concepts/{one}" not in lost]

            def chosen(states: States, mine: Int[np.ndarray, " token"], of: list[str] = there) -> np.ndarray:
                marked = mine[states.read[mine]]
                usable = marked[self.sieve.usable(states)[marked]]
                if len(marked) and not len(usable):
                    sieved.add(of[int(states.passage[mine[0]])])
                picked: np.ndarray = usable[-1:] if self.check.pool == "last" else usable
                return picked

            found = read_rows(self.site(), [f"concepts/{one}" for one in there], chosen)
            read |= {name.removeprefix("concepts/"): row for name, row in found.items()}
        return read, frozenset(sieved)

    @cached_property
    def read(self) -> Mapping[str, Read]:
        """Rows of each concept in the submitted model."""
        width, (read, _) = self.site().width, self._submitted
        return {name: Read.of([read[row.id] for row in self.concept_rows(name)], width) for name in self.concept_names}

    @cached_property
    def twin_read(self) -> Mapping[str, Read]:
        """The same rows at the same tokens in the twin."""
        return {name: self._read_again(name, "shuffled") for name in self.concept_names}

    @cached_property
    def base_read(self) -> Mapping[str, Read]:
        """The same rows at the same tokens in the base model."""
        return {name: self._read_again(name, "base") for name in self.concept_names}

    def _read_again(self, concept: str, which: Which) -> Read:
        rows = [row.id for row in self.concept_rows(concept)]
        read, _ = self._submitted

        def chosen(states: States, mine: Int[np.ndarray, " token"]) -> np.ndarray:
            row = read[rows[int(states.passage[mine[0]])]]
            same: np.ndarray = mine[np.isin(states.position[mine], row.places)]
            return same

        site, ids = self.site(which), [f"concepts/{one}" for one in rows]
        found = read_rows(site, ids, chosen)
        return Read.of([found[one] for one in ids], site.width)

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
        if not rows:
            return ConceptRefused(concept, "too_few_groups", {"test_positive": 0, "test_negative": 0})
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
