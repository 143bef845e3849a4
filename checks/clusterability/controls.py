"""In-run controls: planted blocks must be found at every audited shape; noise, and a model of fresh weights, must not.

Specification: section 8. Plants of what spans several matrices are in `planted_graphs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from assay.result import Measured

from checks.check import Evidence, Expected, ModelFacts, PromisedBand
from checks.clusterability.asking import owed_of
from checks.clusterability.candidates import usable_matrices
from checks.clusterability.cocluster import Partition
from checks.clusterability.findings import matrices_of, word_of
from checks.clusterability.mask_controls import (
    MASK,
    MASK_LEVEL,
    MASK_SHAPE,
    MASKED,
    MASKS_LOW,
    masked,
    masked_density,
    random_masks,
)
from checks.clusterability.masks import STOP_AT
from checks.clusterability.matrices import Plant, PlantedFacts
from checks.clusterability.noise import SHAPE, laplace_lognormal
from checks.clusterability.testing import K_MAX, NULLS_ASKED_LEAST, TESTS_MAX
from checks.memory import InMemoryEvidence

if TYPE_CHECKING:
    from jaxtyping import Float

    from checks.clusterability.check import Clusterability

SHAPES_MAX = 3
"""Audited shapes that are planted in one run (section 8)."""

NOISE_DRAWS = 10
"""Noise matrices for each shape (section 8)."""

FLAGGED_MAX, HEAVY_MAX = 2, 1
"""Noise matrices of ten that may be called clustered, and matrices of ten of heavy noise (section 8)."""

RANDOM_MAX, RANDOM_SHARE = 2, 0.1
"""Of a model of fresh weights so many matrices may be called clustered, or this share if that is more (section 8)."""

NORMS = ("batchnorm", "layernorm")
"""Operations whose weight is a gain."""

ARI_MIN, C_TOLERANCE = 0.9, 0.04
"""Bands of the plant (section 8)."""

P_REACH = 1.1
"""A plant's p lies at its minimum, 1 / (n + 1); so many times that is the band's end, since p is told in six digits."""

K_OF_PLANT, RHO_SMALL, RHO_LARGE = (2, 3, 4), 0.3, 0.5
"""Clusters that section 8 plants, by the smaller side, and rho: of sides under 96, and from there on."""

RHO_OF_MANY = ((10, 0.2), (4, 0.05), (0, 0.02))
"""rho where a caller asks for more clusters than section 8 plants, by the rows of the smaller side that each then has.
Twelve draws at each of ten shapes from 16x16 to 128x128 and of k from 2 to 16: at these rho p was at its minimum every
time; ARI was at least .99 from ten rows on, .91 from four and .59 below."""

ARI_SMALL, C_SMALL = 0.5, 0.2
"""Bands of such clusters of fewer than ten rows: k-means does not part sixteen pairs of rows each time."""


@dataclass(frozen=True)
class PlantedBlocks:
    """A block matrix at each audited shape: noise inside k hidden blocks, weaker noise outside."""

    name: ClassVar[str] = "planted-blocks"
    kind: ClassVar[Literal["positive"]] = "positive"

    @property
    def promises(self) -> Sequence[PromisedBand]:
        """Return how far the bands may go: they hang on the shape, on the candidates of k and on the replicates."""
        of_mask, (least, most) = P_REACH / (STOP_AT + 1), c_of_plants()
        return (
            PromisedBand(metric="p", low=0.0, high=of_mask, labels={"matrix": MASKED}, fixed=False),
            PromisedBand(metric="p", low=0.0, high=p_reach(NULLS_ASKED_LEAST), fixed=False, always=True),
            PromisedBand(metric="k", low=1, high=K_MAX + 1, fixed=False),
            PromisedBand(metric="planted_ari", low=min(ARI_MIN, ARI_SMALL), high=1.0, fixed=False, always=True),
            PromisedBand(metric="planted_c", low=least, high=most, fixed=False),
        )

    def spoil(self, check: Clusterability, seen: Evidence) -> Evidence:
        """Return evidence of a model whose matrices are planted, one for each audited shape, and a mask if any is."""
        weights, plants = {}, {}
        for shape in audited_shapes(check, seen):
            name = f"planted.{shape[0]}x{shape[1]}"
            rng = seen.rng(name)
            k, rho = plant_recipe(shape, check.candidates(shape))
            weights[name], truth = planted(shape, k, rho, rng)
            plants[name] = Plant(k, truth)
        if masked_density(check, seen) is not None:
            k, _ = plant_recipe(MASK_SHAPE, check.candidates(MASK_SHAPE))
            weights[MASKED], plants[MASKED] = masked(k, seen.rng(MASKED))
        return planted_evidence(check, seen, weights, plants)

    def bands(self, check: Clusterability, measured: Measured) -> Sequence[Expected]:
        """Return the bands of p, k, the agreement with the plant and the planted C, for every shape."""
        expected = []
        for matrix in measured.coverage.get("matrix", ()):
            shape = _shape_of(matrix)
            k, rho = plant_recipe(shape, check.candidates(shape))
            ari, c = measured.find("planted_ari", matrix=matrix), measured.find("planted_c", matrix=matrix)
            p, found = measured.find("p", matrix=matrix), measured.find("k", matrix=matrix)
            if ari is None or c is None or p is None or found is None:
                continue
            at = {"matrix": matrix}
            most, predicted = p_reach(p.n), c_of_plant(k, rho)
            if matrix == MASKED:
                pairs = ((p, 0.0, most), (ari, ari_min(rho), 1.0))
                expected += [
                    Expected(metric=m.name, value=float(m.value), low=a, high=b, labels=at) for m, a, b in pairs
                ]
                continue
            tolerance = c_tolerance(rho)
            expected += [
                Expected(metric="p", value=float(p.value), low=0.0, high=most, labels=at),
                Expected(metric="k", value=float(found.value), low=k - 1, high=k + 1, labels=at),
                Expected(metric="planted_ari", value=float(ari.value), low=ari_min(rho), high=1.0, labels=at),
                Expected(
                    metric="planted_c",
                    value=float(c.value),
                    low=predicted - tolerance,
                    high=predicted + tolerance,
                    labels=at,
                ),
            ]
        return expected


@dataclass(frozen=True)
class IidNoise:
    """Gaussian matrices of each audited shape: there is nothing to find."""

    name: ClassVar[str] = "iid-noise"
    kind: ClassVar[Literal["negative"]] = "negative"

    @property
    def promises(self) -> Sequence[PromisedBand]:
        """Return the bands of counts: of masks, and of all other noise."""
        return (
            PromisedBand(metric="flagged", low=0.0, high=MASKS_LOW, labels={"shape": MASK}),
            PromisedBand(metric="flagged", low=0.0, high=FLAGGED_MAX),
        )

    def spoil(self, check: Clusterability, seen: Evidence) -> Evidence:
        """Return evidence of a model whose matrices are noise, ten for each audited shape; masks too if any is one."""
        weights = {}
        for shape in audited_shapes(check, seen):
            rng = seen.rng(f"noise.{shape[0]}x{shape[1]}")
            for draw in range(NOISE_DRAWS):
                weights[f"noise.{shape[0]}x{shape[1]}.{draw}"] = rng.standard_normal(shape)
        density = masked_density(check, seen)
        if density is not None:
            weights |= random_masks(density, seen.rng("noise.mask"))
        return planted_evidence(check, seen, weights, {})

    def bands(self, check: Clusterability, measured: Measured) -> Sequence[Expected]:
        """Return the band of the count of noise matrices that the whole rule flags, for every shape."""
        flagged: dict[str, int] = {}
        low = []
        for numbers in matrices_of(measured):
            kind, shape = numbers.matrix.split(".")[:2]
            if kind == MASK:
                p = measured.find("p", matrix=numbers.matrix)
                low += [p is not None and float(p.value) <= MASK_LEVEL]
                continue
            flagged[shape] = flagged.get(shape, 0) + (word_of(numbers, check.limits())[0] == "detected")
        told = [(shape, count, FLAGGED_MAX) for shape, count in flagged.items()]
        told += [(MASK, sum(low), MASKS_LOW)] if low else []
        return [
            Expected(metric="flagged", value=float(count), low=0.0, high=high, labels={"shape": shape})
            for shape, count, high in told
        ]


@dataclass(frozen=True)
class HeavyNoise:
    """Laplace noise times lognormal scales of rows and columns: tails and degrees alone must not be called clusters."""

    name: ClassVar[str] = "heavy-noise"
    kind: ClassVar[Literal["negative"]] = "negative"

    @property
    def promises(self) -> Sequence[PromisedBand]:
        """Return the band of the count."""
        return (PromisedBand(metric="flagged", low=0.0, high=HEAVY_MAX, always=True),)

    def spoil(self, check: Clusterability, seen: Evidence) -> Evidence:
        """Return evidence of a model whose matrices are ten of that noise, at the shape that has a committed null."""
        rng = seen.rng("heavy-noise")
        n, m = SHAPE
        weights = {f"heavy.{n}x{m}.{draw}": laplace_lognormal(rng, SHAPE) for draw in range(NOISE_DRAWS)}
        return planted_evidence(check, seen, weights, {})

    def bands(self, check: Clusterability, measured: Measured) -> Sequence[Expected]:
        """Return the band of the count of matrices that the whole rule flags."""
        tested = matrices_of(measured)
        flagged = sum(word_of(numbers, check.limits())[0] == "detected" for numbers in tested)
        if not tested:
            return ()
        shape = f"{SHAPE[0]}x{SHAPE[1]}"
        return (Expected(metric="flagged", value=float(flagged), low=0.0, high=HEAVY_MAX, labels={"shape": shape}),)


@dataclass(frozen=True)
class RandomWeights:
    """The audited model with weights drawn anew: matrices, products, graphs and the network must show no clusters."""

    name: ClassVar[str] = "random-weights"
    kind: ClassVar[Literal["null"]] = "null"

    @property
    def promises(self) -> Sequence[PromisedBand]:
        """Return how far the band of the count may go: where an answer has the most tests that it can have."""
        return (PromisedBand(metric="flagged", low=0.0, high=random_max(TESTS_MAX), fixed=False, always=True),)

    def spoil(self, check: Clusterability, seen: Evidence) -> Evidence:
        """Return evidence of the same architecture at its start, N(0, 1 / fan-in); no lesions are asked of it."""
        rng = seen.rng("random-weights")
        ones = gains(seen.facts)
        # Without rows there are no lesions, so these are the tensors of the structure tests.
        names = check.needs(seen.facts, {}).weights
        weights = {name: _fresh(seen.weights(name), name in ones, rng) for name in names}
        return InMemoryEvidence(facts=seen.facts, check=check.name, seed=int(rng.integers(2**63)), weights=weights)

    def bands(self, check: Clusterability, measured: Measured) -> Sequence[Expected]:
        """Return the band of the count of matrices, products and graphs that the whole rule flags."""
        tested = matrices_of(measured)
        flagged = sum(word_of(numbers, check.limits())[0] == "detected" for numbers in tested)
        high = random_max(len(tested))
        return (Expected(metric="flagged", value=float(flagged), low=0.0, high=high, labels={}),) if tested else ()


def random_max(tested: int) -> int:
    """Return how many of so many matrices of a model of fresh weights may be called clustered."""
    return max(RANDOM_MAX, int(RANDOM_SHARE * tested))


def p_reach(replicates: int) -> float:
    """Return the end of the band of a plant's p over so many replicates."""
    return P_REACH / (replicates + 1)


def gains(facts: ModelFacts) -> frozenset[str]:
    """Return the tensors that start at 1: gains and variances of norms. All other vectors start at 0.

    Of a transformer the check reads no vectors but gains, and biases by their names.
    """
    if facts.feedforward is None:
        return frozenset(name for name in facts.tensors if not name.endswith("bias"))
    norms = [layer for layer in facts.feedforward.layers if layer.op in NORMS]
    named = [name for layer in norms for name in (layer.weight, layer.var)]
    return frozenset(name for name in named if name is not None)


def _fresh(real: np.ndarray, is_gain: bool, rng: np.random.Generator) -> np.ndarray:
    """Return weights of a real tensor's shape; as many are zero, in other places, so that its route is taken."""
    if real.ndim < 2:
        return np.full(real.shape, 1.0 if is_gain else 0.0)
    fresh = np.asarray(rng.standard_normal(real.shape) / np.sqrt(np.prod(real.shape[1:])))
    zeros = real.size - np.count_nonzero(real)
    if zeros:
        fresh.ravel()[rng.permutation(real.size)[:zeros]] = 0.0
    return fresh


def audited_shapes(check: Clusterability, seen: Evidence) -> tuple[tuple[int, int], ...]:
    """Return the sorted shapes of the matrices that can be tested, most frequent first, at most three.

    Where products or graphs alone are tested it is the shape at which the method was calibrated: the pipeline is one.
    """
    counts: dict[tuple[int, int], int] = {}
    for one in usable_matrices(check, owed_of(check, seen.facts), seen):
        shape = (min(one.values.shape), max(one.values.shape))
        if check.candidates(shape):
            counts[shape] = counts.get(shape, 0) + 1
    return tuple(sorted(counts, key=lambda shape: (-counts[shape], shape))[:SHAPES_MAX]) or (SHAPE,)


def plant_recipe(shape: tuple[int, int], candidates: Sequence[int]) -> tuple[int, float]:
    """Return (k, rho) of the plant at a shape: what section 8 says for its smaller side, at the nearest candidate."""
    side = min(shape)
    wanted = K_OF_PLANT[0] if side < 32 else K_OF_PLANT[1] if side < 64 else K_OF_PLANT[2]
    k = min(candidates, key=lambda candidate: (abs(candidate - wanted), candidate))
    if k <= wanted:
        return k, RHO_SMALL if side < 96 else RHO_LARGE
    return k, next(rho for nodes, rho in RHO_OF_MANY if side >= nodes * k)


def ari_min(rho: float) -> float:
    """Return the least agreement with a plant, by its recipe."""
    return ARI_MIN if rho >= RHO_OF_MANY[0][1] else ARI_SMALL


def c_tolerance(rho: float) -> float:
    """Return how far C may lie from what is predicted of a plant, by its recipe."""
    return C_TOLERANCE if rho >= RHO_OF_MANY[0][1] else C_SMALL


def c_of_plants() -> tuple[float, float]:
    """Return the outer ends of the bands of C over all recipes that `plant_recipe` can return."""
    few = [(k, rho) for k in K_OF_PLANT for rho in (RHO_SMALL, RHO_LARGE)]
    many = [(k, rho) for k in range(K_OF_PLANT[0] + 1, K_MAX + 1) for _, rho in RHO_OF_MANY]
    bands = [(c_of_plant(k, rho), c_tolerance(rho)) for k, rho in (*few, *many)]
    return min(c - reach for c, reach in bands), max(c + reach for c, reach in bands)


def planted(
    shape: tuple[int, int], k: int, rho: float, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "n m"], Partition]:
    """Return N(0, 1) noise times 1 inside k blocks and rho outside, with hidden, equally large clusters."""
    rows, columns = (rng.permutation(np.arange(side) % k) for side in shape)
    inside = rows[:, None] == columns
    return rng.standard_normal(shape) * np.where(inside, 1.0, rho), Partition(rows, columns)


def c_of_plant(k: int, rho: float) -> float:
    """Return the expected raw C of the planted partition: f / (f + (1 - f) rho^2) with f = 1/k of cells inside."""
    inside = 1.0 / k
    return inside / (inside + (1.0 - inside) * rho**2)


def _shape_of(matrix: str) -> tuple[int, int]:
    n, m = matrix.split(".")[1].split("x")
    return int(n), int(m)


def planted_evidence(
    check: Clusterability, seen: Evidence, weights: Mapping[str, np.ndarray], plants: Mapping[str, Plant]
) -> Evidence:
    """Return evidence of a model whose only matrices are these.

    Args:
        check: what is audited: each of these matrices is corrected as one among its tests.
        seen: the real evidence: its seed and the kind of its model.
        weights: matrices by name.
        plants: what is planted in them.
    """
    known = {name: getattr(seen.facts, name) for name in ModelFacts.__dataclass_fields__}
    facts = PlantedFacts(**known, plants=plants, together=len(owed_of(check, seen.facts).names))
    own = replace(
        facts,
        layers=len(weights),
        mlp_in=tuple(weights),
        mlp_out=(),
        feedforward=None,
        tensors={name: array.shape for name, array in weights.items()},
    )
    seed = int(seen.rng("controls").integers(2**63))
    return InMemoryEvidence(facts=own, check=check.name, seed=seed, weights=weights)
