"""What one audit trains and reads once: dictionaries, held-out states, concept rows. Controls join it.

Everything here is computed when it is first asked for, and kept with the evidence (`Evidence.kept`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from checks.check import Evidence
from checks.passages import States, Which
from checks.sae_features.dictionary.value import Dictionary
from checks.sae_features.learning import FROZEN
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
from checks.sae_features.streaming import ReadRow, read_rows
from checks.sae_features.supplying import Supplying

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from checks.sae_features.check import SaeFeatures

ENCODED_AT_ONCE = 4096
"""States encoded at a time: bounds memory, not the result."""

ROW_LOST, OUTLIER_ROW = "row_lost", "outlier_row"
"""Why a concept row is left out: it can be read nowhere; every token it is read at is special or an outlier of norm."""


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


class Session(Supplying):
    """One check on one audit's evidence."""

    @classmethod
    def of(cls, check: SaeFeatures, evidence: Evidence) -> Session:
        """Return the session of this evidence, made once."""
        session = evidence.kept.get("session")
        if not isinstance(session, Session):
            session = evidence.kept["session"] = cls(check, evidence)
        return session

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
