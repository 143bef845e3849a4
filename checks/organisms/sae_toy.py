"""States whose features are known: superposition (O1), a planted direction (O2), absorption by construction (O5).

Nothing here is trained; a generator, a shape and a seed are the organism. Specification of `sae_features`, section 14.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from checks.sae_features.dictionary.value import Dictionary, Threshold

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

TRUTH_SEED, PLANT_SEED = 1234, 4321
"""Seeds of the true directions of O1 and O2 (section 14)."""

RECOVERED = 0.9
"""A true direction is recovered where some row has more than this cosine with it (section 14)."""

SPREAD = 0.25
"""Active features have value 1 + SPREAD |N| (section 14)."""


@dataclass(frozen=True, eq=False)
class World:
    """True directions, and how often each is on."""

    directions: Float[np.ndarray, "feature d"]
    """Rows of norm 1."""
    rate: float
    noise: float = 0.0
    """Standard deviation of Gaussian noise in each coordinate."""

    def draw(
        self, rows: int, rng: np.random.Generator
    ) -> tuple[Float[torch.Tensor, "row d"], Float[np.ndarray, "row feature"]]:
        """Return states, float32, and the true features behind them."""
        n, d = self.directions.shape
        on = rng.random((rows, n), dtype=np.float32) < self.rate
        f = np.zeros((rows, n), dtype=np.float32)
        f[on] = 1.0 + SPREAD * np.abs(rng.standard_normal(int(on.sum())))
        x = f @ self.directions.astype(np.float32)
        if self.noise:
            x += self.noise * rng.standard_normal((rows, d), dtype=np.float32)
        return torch.from_numpy(x), f


def unit_rows(n: int, d: int, seed: int) -> Float[np.ndarray, "n d"]:
    """Return Gaussian rows of norm 1."""
    rows = np.random.default_rng(seed).standard_normal((n, d))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def superposition(d: int = 32, n: int = 64, rate: float = 0.05) -> World:
    """Return O1: twice as many features as dimensions, 3.2 of them on at a time."""
    return World(unit_rows(n, d, TRUTH_SEED), rate)


@dataclass(frozen=True, eq=False)
class Planted:
    """O2: a background in superposition, and a concept that adds one more direction to it."""

    background: World
    direction: Float[np.ndarray, " d"]
    """v, of norm 1."""
    amplitude: float
    """a."""

    def draw(self, label: Bool[np.ndarray, " row"], rng: np.random.Generator) -> Float[torch.Tensor, "row d"]:
        """Return states x + y a (1 + SPREAD |N|) v for labels y."""
        x, _ = self.background.draw(len(label), rng)
        size = self.amplitude * (1.0 + SPREAD * np.abs(rng.standard_normal(len(label))))
        return x + torch.from_numpy(((label * size)[:, None] * self.direction).astype(np.float32))


def planted(amplitude: float, d: int = 64, n: int = 128) -> Planted:
    """Return O2: rate .03, noise .05, the concept's direction is row n + 1 of the same draw."""
    rows = unit_rows(n + 1, d, PLANT_SEED)
    return Planted(World(rows[:n], 0.03, noise=0.05), rows[n], amplitude)


@dataclass(frozen=True)
class Match:
    """How well a dictionary's rows found the true directions, beside what rows that know nothing reach."""

    mcc: float
    """Mean |cos| of the best one-to-one match (Hungarian)."""
    recovered: float
    """Share of true directions that some row has a signed cosine above `RECOVERED` with."""
    f1: float
    """Mean over matched pairs of the F1 of on and off."""
    chance: float
    """Mean mcc of as many Gaussian rows."""


CHANCE_DRAWS = 20
"""Draws of random rows; the mean's standard error is below .002 at 64 directions in 32 dimensions."""


def match(
    rows: Float[torch.Tensor, "m d"],
    latents: Float[torch.Tensor, "row m"],
    truth: Float[np.ndarray, "feature d"],
    features: Float[np.ndarray, "row feature"],
    rng: np.random.Generator,
) -> Match:
    """Return how a dictionary compares with the truth.

    Args:
        rows: decoder rows.
        latents: what the dictionary reads in the states of `features`.
        truth: true directions, norm 1.
        features: true features; on where above 0.
        rng: draws the rows of chance.
    """
    cosines = truth @ _unit(rows.double().numpy()).T
    here, there = linear_sum_assignment(-np.abs(cosines))
    on, read = features[:, here] > 0, latents.numpy()[:, there] > 0
    both = (on & read).sum(0)
    f1 = 2 * both / np.maximum(on.sum(0) + read.sum(0), 1)
    return Match(
        mcc=float(np.abs(cosines[here, there]).mean()),
        recovered=float((cosines.max(1) > RECOVERED).mean()),
        f1=float(f1.mean()),
        chance=chance(truth, len(rows), rng),
    )


def chance(truth: Float[np.ndarray, "feature d"], rows: int, rng: np.random.Generator) -> float:
    """Return the mean mcc of Gaussian rows: in low dimensions a lucky match is not rare."""
    found = []
    for _ in range(CHANCE_DRAWS):
        cosines = np.abs(truth @ _unit(rng.standard_normal((rows, truth.shape[1]))).T)
        here, there = linear_sum_assignment(-cosines)
        found.append(cosines[here, there].mean())
    return float(np.mean(found))


def _unit(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


@dataclass(frozen=True, eq=False)
class Absorbed:
    """O5: a child feature that is on only with its parent, and two dictionaries that explain the states equally."""

    x: Float[torch.Tensor, "row d"]
    features: Float[np.ndarray, "row 4"]
    """Parent, child, and two that are free; 1 where on."""
    plain: Dictionary
    """Its rows are the true directions."""
    absorbing: Dictionary
    """The parent's latent is silent where the child is on, whose row then stands for both."""


ABSORPTION_SEED, ABSORPTION_WIDTH = 50, 50
"""Width of section 14; the seed draws the four orthonormal directions and was not chosen."""

PARENT_RATE, CHILD_RATE, FREE_RATE = 0.25, 0.3, 0.2
"""Rate of the parent, of the child given the parent, and of the two others (section 14)."""


def absorption(rows: int, rng: np.random.Generator) -> Absorbed:
    """Return O5: EV is 1 for both dictionaries, L0 .725 for the plain and .65 for the absorbing one."""
    drawn = np.random.default_rng(ABSORPTION_SEED).standard_normal((ABSORPTION_WIDTH, 4))
    truth = np.linalg.qr(drawn)[0].T
    on = rng.random((rows, 4)) < np.array([PARENT_RATE, CHILD_RATE, FREE_RATE, FREE_RATE])
    on[:, 1] &= on[:, 0]
    features = on.astype(np.float32)
    reads, writes = truth.copy(), truth.copy()
    reads[0] -= truth[1]
    writes[1] += truth[0]
    x = torch.from_numpy(features.astype(np.float64) @ truth).float()
    return Absorbed(x, features, _reading(truth, truth), _reading(reads, writes))


def _reading(reads: Float[np.ndarray, "m d"], writes: Float[np.ndarray, "m d"]) -> Dictionary:
    """Return a dictionary without biases; its gate is at one half, since what is on is 1 and the rest rounding."""
    m, d = reads.shape
    w_enc, w_dec = torch.from_numpy(reads.T.copy()).float(), torch.from_numpy(writes.copy()).float()
    return Dictionary(w_enc, torch.zeros(m), w_dec, torch.zeros(d), Threshold(torch.full((m,), 0.5)))
