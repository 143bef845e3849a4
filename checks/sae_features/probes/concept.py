"""Whether a concept can be read at a site, and whether a dictionary reads it better than what is simpler.

Sources: Kantamneni et al. 2025 (2502.16681) for sparse against dense probes, Korznikov et al. 2026 (2602.14111) for the
frozen decoder; specification of `sae_features`, section 7.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from checks.sae_features.dictionary.grouped import Groups
from checks.sae_features.probes.concept_fit import Design, subsamples
from checks.sae_features.probes.concept_null import Null, Permuted, dense_areas, null, sparse_areas
from checks.sae_features.probes.concept_permute import Dealer
from checks.sae_features.probes.concept_read import Own, Shared, own_probes, readings, shared_probes
from checks.sae_features.probes.concept_values import (
    ConceptRefused,
    ConceptRows,
    ConceptTable,
    Features,
    ProbeSettings,
    Readings,
    Split,
    Spread,
    Twin,
    least_permutations,
    split_of,
)

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

__all__ = [
    "ConceptRefused", "ConceptRows", "ConceptTable", "Features", "ProbeSettings", "Readings", "Spread", "Twin",
    "concept_table", "least_permutations", "split_of",
]  # fmt: skip

Draws = Callable[[str], np.random.Generator]
"""Returns the generator of a label; equal labels draw equally."""


def concept_table(
    rows: ConceptRows,
    trained: Mapping[str, Features],
    frozen: Features | None,
    twin: Twin | None,
    settings: ProbeSettings,
    rng: Draws,
) -> ConceptTable | ConceptRefused:
    """Return what each dictionary reads of a concept, beside what is simpler; or that there are too few groups.

    Args:
        rows: the concept's rows.
        trained: what each dictionary makes of them, by its name; at least one.
        frozen: the same of the dictionary whose decoder never moved.
        twin: the same rows in the weight-shuffled twin.
        settings: numbers of the specification.
        rng: returns the generator of a label.

    Raises:
        ValueError: there is no dictionary, one has another number of rows than the concept or a number that is not
            finite, or a group stands in two splits.
    """
    _expect(rows, trained, frozen, twin)
    case = _Case(rows)
    counts = case.groups_by_class()
    if min(counts.values()) < 1 or min(counts["test_positive"], counts["test_negative"]) < settings.least_groups:
        return ConceptRefused(rows.concept, "too_few_groups", counts)
    design = case.design(settings, rng)
    shared = shared_probes(design, rows, frozen, twin, settings)
    own = {name: own_probes(design, features, settings) for name, features in trained.items()}
    nulls = _nulls(case, trained, own, shared, settings, rng)
    plain = case.read(case.test, "bootstrap", own, shared, settings, rng)
    return ConceptTable(
        concept=rows.concept,
        read={name: replace(one, p=nulls[name].p, null=nulls[name].spreads) for name, one in plain.items()},
        shifted=case.shifted(own, shared, settings, rng),
        diffmean=case.difference(),
        n=int(case.test.sum()),
        groups=len(np.unique(case.groups[case.test])),
        counts=case.counts(),
    )


@dataclass(frozen=True, eq=False)
class _Case:
    """A concept's rows, parted."""

    rows: ConceptRows

    @cached_property
    def groups(self) -> np.ndarray:
        return np.asarray(self.rows.groups, dtype=str)

    @cached_property
    def plain(self) -> Bool[np.ndarray, " row"]:
        return np.array([shift is None for shift in self.rows.shift])

    @cached_property
    def train(self) -> Bool[np.ndarray, " row"]:
        return self._in("train")

    @cached_property
    def val(self) -> Bool[np.ndarray, " row"]:
        return self._in("val")

    @cached_property
    def test(self) -> Bool[np.ndarray, " row"]:
        return self._in("test")

    def _in(self, split: Split) -> Bool[np.ndarray, " row"]:
        return np.asarray(self.plain & (np.asarray(self.rows.split, dtype=str) == split))

    @cached_property
    def left_out(self) -> Bool[np.ndarray, " row"]:
        """Shifted rows of groups that trained or chose: paraphrases of what the probe has seen."""
        return ~self.plain & np.isin(self.groups, self.groups[self.train | self.val])

    def groups_with(self, held: Bool[np.ndarray, " row"], label: int) -> int:
        return len(np.unique(self.groups[held & (self.rows.labels == label)]))

    def groups_by_class(self) -> dict[str, int]:
        parts = (("train", self.train), ("val", self.val), ("test", self.test))
        return {
            f"{name}_{word}": self.groups_with(held, label)
            for name, held in parts
            for word, label in (("positive", 1), ("negative", 0))
        }

    def counts(self) -> dict[str, int]:
        shifted = ~self.plain & ~self.left_out
        named = {"train": self.train, "val": self.val, "test": self.test, "shifted": shifted}
        return {name: int(held.sum()) for name, held in (named | {"shift_left_out": self.left_out}).items()}

    def design(self, settings: ProbeSettings, rng: Draws) -> Design:
        labels = self.rows.labels[self.train]
        drawn = subsamples(labels, self.groups[self.train].tolist(), settings.subsamples, rng(self.label("train")))
        return Design(self.train, self.val, labels, self.rows.labels[self.val], drawn, settings.penalties)

    def difference(self) -> Float[np.ndarray, " d"]:
        x, labels = self.rows.x[self.train].astype(np.float64), self.rows.labels[self.train]
        return np.asarray(x[labels == 1].mean(0) - x[labels == 0].mean(0))

    def label(self, what: str) -> str:
        return f"concept/{self.rows.concept}/{what}"

    def read(
        self,
        held: Bool[np.ndarray, " row"],
        what: str,
        own: Mapping[str, Own],
        shared: Shared,
        settings: ProbeSettings,
        rng: Draws,
    ) -> dict[str, Readings]:
        drawn = Groups(self.groups[held].tolist(), rng(self.label(what)), settings.resamples)
        labels = self.rows.labels[held]
        return {name: readings(one, shared, held, labels, drawn, settings.level) for name, one in own.items()}

    def shifted(
        self, own: Mapping[str, Own], shared: Shared, settings: ProbeSettings, rng: Draws
    ) -> dict[str, Mapping[str, Readings] | ConceptRefused]:
        found: dict[str, Mapping[str, Readings] | ConceptRefused] = {}
        for shift in sorted({name for name in self.rows.shift if name is not None}):
            held = ~self.left_out & np.array([name == shift for name in self.rows.shift])
            few = {"test_positive": self.groups_with(held, 1), "test_negative": self.groups_with(held, 0)}
            if min(few.values()) < settings.least_groups:
                found[shift] = ConceptRefused(self.rows.concept, "too_few_groups", few)
            else:
                found[shift] = self.read(held, f"bootstrap/shift/{shift}", own, shared, settings, rng)
        return found

    def permuted(self, settings: ProbeSettings, rng: Draws) -> Permuted:
        labels = np.zeros((1 + settings.permutations, len(self.groups)), dtype=np.int8)
        labels[0] = self.rows.labels
        draws = rng(self.label("permutation"))
        for held in (self.train, self.val, self.test):
            dealer = Dealer(self.rows.labels[held], self.groups[held].tolist())
            labels[1:, held] = dealer.deal(settings.permutations, draws)
        return Permuted(self.train, self.val, self.test, labels)


def _nulls(
    case: _Case,
    trained: Mapping[str, Features],
    own: Mapping[str, Own],
    shared: Shared,
    settings: ProbeSettings,
    rng: Draws,
) -> dict[str, Null]:
    permuted = case.permuted(settings, rng)
    dense = dense_areas(permuted, case.rows.x, shared.scored["dense"].penalty or 1.0)
    found = {}
    for name, features in trained.items():
        penalties = {k: one.penalty or 1.0 for k, one in own[name].sparse.items()}
        found[name] = null(dense, sparse_areas(permuted, features.latents, penalties))
    return found


def _expect(rows: ConceptRows, trained: Mapping[str, Features], frozen: Features | None, twin: Twin | None) -> None:
    if not trained:
        raise ValueError("no dictionary is given: there is nothing to compare with the dense probe")
    arrays = {name: one.latents for name, one in trained.items()}
    arrays |= {f"{name} residual": one.residual for name, one in trained.items()}
    if frozen is not None:
        arrays["frozen"] = frozen.latents
    if twin is not None:
        arrays |= {"twin": twin.x, "twin latents": twin.latents}
    for name, array in arrays.items():
        if len(array) != len(rows.labels):
            raise ValueError(f"{name} has {len(array)} rows, the concept {len(rows.labels)}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds a number that is not finite")
    seen: dict[str, str] = {}
    for group, split, shift in zip(rows.groups, rows.split, rows.shift, strict=True):
        if shift is None and seen.setdefault(group, split) != split:
            raise ValueError(f"group {group} stands in {seen[group]} and in {split}")
