"""What an organism is trained with, and the digest under which it is kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Size of the world and of the model, and how it is trained; every field enters the cache's digest.

    The values are those of the specification of `truth_probe`, section 10.
    """

    entities: int = 64
    attributes: int = 8
    anchor_entities: int = 8
    """The first entities; their pairs only orient a direction."""
    fit_entities: int = 40
    """The first entities, anchors among them; the others are for testing."""
    anchor_pairs: int = 40
    layers: int = 4
    width: int = 64
    heads: int = 4
    spread: float = 0.15
    """Standard deviation of the initial weights."""
    batch: int = 256
    steps: int = 2000
    """Steps of the one-cycle schedule of learning from nothing; training stops earlier once the loss is low."""
    rate: float = 2e-3
    tune_steps: int = 900
    """The same of a later stage."""
    tune_rate: float = 1e-3
    decay: float = 0.01
    prefixed: float = 0.3
    """Share of the batches whose statements stand after a prefix that changes no answer."""
    tune_prefixed: float = 0.5
    """The same of a later stage."""
    alike: float = 0.3
    """Weight of the distance between states that differ in such a prefix alone."""
    window: int = 50
    stop_at: float = 0.02
    """Stop a stage when the mean loss of `window` steps falls under this."""
    tries: int = 3


SMALL = Recipe(
    entities=48, attributes=4, fit_entities=28, anchor_pairs=32, layers=2, width=48, batch=128, steps=900, rate=3e-3,
    tune_steps=700, tune_rate=2e-3,
)  # fmt: skip
"""A world small enough to learn in seconds, for tests."""


TRAINS = ("lessons", "planted", "recipe", "rows", "store", "tokens", "training", "world")
"""Modules that decide what an organism is; other organisms beside them are trained by their own."""


def recipe_sha256(organism: str, recipe: Recipe, seed: int, torch_version: str) -> str:
    """Return the digest under which an organism is kept: its name, recipe, seed, torch, and the code that trains."""
    here = Path(__file__).parent
    code = [[name, hashlib.sha256((here / f"{name}.py").read_bytes()).hexdigest()] for name in TRAINS]
    named = {"organism": organism, "recipe": asdict(recipe), "seed": seed, "torch": torch_version, "code": code}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()
