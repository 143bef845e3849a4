"""What the concept table is made from, and what it says. Specification of `sae_features`, section 7.

Three splits by group: probes are fitted on train, every choice (number of latents, penalty, which probe is the better
one) is made on val, and every number that is reported is read on test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from checks.sae_features.dictionary.grouped import Estimate

if TYPE_CHECKING:
    from jaxtyping import Float, Float32, Int

Split = Literal["train", "val", "test"]

BLANK_DRAWS = 20
"""Plants of strength 0 among those that power is measured with (section 10)."""

TRAIN_SHARE, VAL_SHARE = 0.5, 0.2
"""Shares of the groups; the rest is test (specification, section 7)."""


def split_of(group: str, seed: int) -> Split:
    """Return the split of a group: 50/20/30 by SHA-256 of the seed (8 bytes, big-endian) and the group's name."""
    drawn = hashlib.sha256(b"sae_features/split\0" + seed.to_bytes(8, "big") + group.encode()).digest()
    place = int.from_bytes(drawn[:8], "big") / 2**64
    if place < TRAIN_SHARE:
        return "train"
    return "val" if place < TRAIN_SHARE + VAL_SHARE else "test"


@dataclass(frozen=True, eq=False)
class ConceptRows:
    """The rows of one concept, in one order that all fields share.

    Raises:
        ValueError: lengths differ, a label is neither 0 nor 1, a state is not finite, or there is no row.
    """

    concept: str
    labels: Int[np.ndarray, " row"]
    """0 or 1."""
    groups: list[str]
    """Document or template of each row: the unit of splitting and resampling."""
    x: Float32[np.ndarray, "row d"]
    """Pooled states at the read positions, raw units."""
    tokens: list[tuple[int, ...]]
    """Tokens up to and with the read position; the last 8 are used."""
    positions: Int[np.ndarray, " row"]
    """Read position, counted from 0."""
    lengths: Int[np.ndarray, " row"]
    """Tokens of the passage."""
    split: list[Split]
    shift: list[str | None]
    """Name of a shift (paraphrase, format, language): such rows are tested on, never trained on or chosen by."""

    def __post_init__(self) -> None:
        n = len(self.labels)
        told = {name: len(getattr(self, name)) for name in self.__dataclass_fields__ if name != "concept"}
        if not n or set(told.values()) != {n}:
            raise ValueError(f"the fields of a concept have one entry a row: {told}")
        if not np.isin(self.labels, (0, 1)).all():
            raise ValueError("a label is 0 or 1")
        finite = np.isfinite(self.x).all(1)
        if not finite.all():
            raise ValueError(f"the state of row {int(np.argmin(finite))} is not finite")


@dataclass(frozen=True, eq=False)
class Features:
    """What one dictionary makes of the rows."""

    latents: Float[np.ndarray, "row m"]
    """Pooled contributions f·‖w_dec‖, raw units."""
    residual: Float[np.ndarray, "row d"]
    """Pooled x - x̂: what the dictionary leaves out."""


@dataclass(frozen=True, eq=False)
class Twin:
    """The same rows in the weight-shuffled twin, read by the twin's own dictionary."""

    x: Float[np.ndarray, "row d"]
    latents: Float[np.ndarray, "row m"]


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """Numbers of specification section 2 and 7."""

    ks: tuple[int, ...] = (1, 2, 5, 16)
    """Sizes of the sparse probes, rising."""
    penalties: tuple[float, ...] = (0.1, 1.0, 10.0)
    """L2 of the sum of log losses, chosen on val."""
    subsamples: int = 5
    """Subsamples of the train groups that every reported number is averaged over."""
    permutations: int = 200
    """Draws of the label-permutation null; `least_permutations` says how many a corrected p needs."""
    resamples: int = 1000
    """Draws of the group bootstrap on test."""
    level: float = 0.95
    detect_floor: float = 0.60
    alpha: float = 0.05
    least_groups: int = 20
    """Positive and negative groups that test must hold (section 3)."""


def least_permutations(tests: int, alpha: float) -> int:
    """Return the draws below which no p, Holm-corrected over so many tests, can reach alpha: 200 carry ten concepts."""
    return int(np.ceil(tests / alpha)) - 1


@dataclass(frozen=True)
class Spread:
    """How a number is distributed when labels mean nothing."""

    mean: float
    sd: float
    """Standard deviation of one draw; the mean's error is sd / sqrt(n)."""
    p95: float
    n: int


@dataclass(frozen=True, eq=False)
class Readings:
    """What one dictionary and its baselines read of the concept, on rows that chose nothing."""

    auroc: Mapping[str, Estimate]
    """By probe: dense, sparse_1, sparse_2, sparse_5, sparse_16, diffmean, pca16, ngram, position, twin_dense,
    twin_sparse, frozen_sparse, frozen_sparse_1 ... frozen_sparse_16, residual_dense. Those that have no other
    dictionary in them are the same objects for every dictionary; without a twin or a frozen decoder theirs are left
    out. All share one digest of draws."""
    delta_sae: Estimate
    """sparse_k of the chosen k, minus dense."""
    delta_surface: Estimate
    """The better of dense and sparse minus the best of ngram, position and the twin's two, both chosen on val."""
    delta_frozen: Estimate | None
    """Sparse minus the frozen decoder's, each at its own chosen k; None without a frozen decoder."""
    delta_sparse_16: Estimate
    """sparse_16 (the largest k asked for) minus dense: the tag `sae_blind` (section 12)."""
    k: int
    """Chosen on val; ties to the smaller."""
    latents: tuple[int, ...]
    """The k latents, selected on all of train, strongest first; those that never vary there are left out."""
    best: Literal["dense", "sparse"]
    """Which is the better one on val; ties to dense."""
    surface: str
    """Which baseline is the best one on val."""
    penalties: Mapping[str, float]
    """L2 that val chose, by probe; diffmean has none."""
    p: float | None = None
    """Share of label permutations that do as well as the truth on test, 1 + of both, with the latents, k and dense or
    sparse chosen again under each; None for shifted rows."""
    null: Mapping[str, Spread] = field(default_factory=dict)
    """AUROC under permuted labels, by probe: dense, sparse (k chosen again), sparse_1 ..., best."""

    @property
    def sparse(self) -> Estimate:
        """Area of the sparse probe of the chosen k."""
        return self.auroc[f"sparse_{self.k}"]


@dataclass(frozen=True)
class ConceptRefused:
    """A concept, or a shift of one, that the rows are too few to answer."""

    concept: str
    reason: str
    """"too_few_groups"."""
    counts: Mapping[str, int]
    """Groups with a positive and with a negative row, by split: "test_positive", "train_negative" ..."""


@dataclass(frozen=True, eq=False)
class ConceptTable:
    """What every dictionary reads of one concept at one site."""

    concept: str
    read: Mapping[str, Readings]
    """By dictionary: "trained-0", "trained-1", "supplied"."""
    shifted: Mapping[str, Mapping[str, Readings] | ConceptRefused]
    """By shift, then by dictionary: probes fitted and chosen as above, read on the shifted rows only."""
    diffmean: Float[np.ndarray, " d"]
    """Mean of the positive minus mean of the negative states, all of train, raw units."""
    n: int
    """Test rows behind every number of `read`."""
    groups: int
    """Their groups."""
    counts: Mapping[str, int]
    """Rows of train, val and test, "shifted", and "shift_left_out": shifted rows of groups that trained or chose."""
