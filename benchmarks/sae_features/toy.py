"""CPU seconds of training until the features of O1 are matched, beside SAELens' `train_toy_sae` on the same data."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from checks.organisms.sae_toy import World, chance, superposition
from checks.sae_features.dictionary.plan import Plan
from checks.sae_features.dictionary.step import SparseStep, Weights
from checks.sae_features.dictionary.training import normaliser

MCC, MCC_EVERY = 0.95, 100
"""What must be reached, and how often it is looked at; looking is not counted."""

PLAN = Plan(latents=128, k=4, steps=4000, batch=512)

DATA_SEED = 7


def mcc(world: World, rows: torch.Tensor) -> float:
    unit = torch.nn.functional.normalize(rows.detach().double(), dim=1).numpy()
    cosines = np.abs(world.directions @ unit.T)
    return float(cosines[linear_sum_assignment(-cosines)].mean())


def ours() -> dict[str, float]:
    world, rng = superposition(), np.random.default_rng(DATA_SEED)
    x, _ = world.draw(PLAN.steps * PLAN.batch, rng)
    mean, scale = normaliser(x[:20_000])
    weights = Weights.tied(np.random.default_rng(0).standard_normal((PLAN.latents, 32)))
    step, spent, reached, at = SparseStep(weights, dead_after=PLAN.dead_after), 0.0, 0.0, 0
    for at, batch in enumerate(torch.split((x - mean) / scale, PLAN.batch)):
        begun = time.process_time()
        step(batch, PLAN.k_at(at), PLAN.rate_at(at))
        spent += time.process_time() - begun
        if (at + 1) % MCC_EVERY == 0:
            reached = mcc(world, weights.dec)
            if reached >= MCC:
                break
    return {
        "mcc": round(reached, 3),
        "steps": at + 1,
        "cpu_s": round(spent, 2),
        "cpu_s_allowed": 8.0,
        "chance_mcc": round(chance(world.directions, PLAN.latents, rng), 3),
    }


class _Reached(Exception):
    pass


class _Watch:
    """Clock that stands still while data are drawn and while the match is looked at."""

    def __init__(self) -> None:
        self.spent, self._begun = 0.0, time.process_time()

    def stop(self) -> None:
        self.spent += time.process_time() - self._begun

    def go(self) -> None:
        self._begun = time.process_time()


class _Drawn(torch.nn.Module):
    """O1 as SAELens takes it: states made whole here, so that its dictionary of features passes them on."""

    def __init__(self, world: World, watch: _Watch) -> None:
        super().__init__()
        self.feature_vectors = torch.from_numpy(world.directions).float()
        self.world, self.watch, self.rng = world, watch, np.random.default_rng(DATA_SEED)

    def features(self, batch: int) -> torch.Tensor:
        self.watch.stop()
        x = self.world.draw(batch, self.rng)[0]
        self.watch.go()
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def saelens(rate: float) -> dict[str, float | str]:
    """Return how long its BatchTopK takes at this rate on at most as many steps as ours are planned."""
    lens = import_module("sae_lens")
    train_toy_sae: Any = import_module("sae_lens.synthetic.training").train_toy_sae
    torch.manual_seed(0)
    sae = lens.BatchTopKTrainingSAE(
        lens.BatchTopKTrainingSAEConfig(d_in=32, d_sae=PLAN.latents, k=PLAN.k, dtype="float32", device="cpu")
    )
    world, watch = superposition(), _Watch()
    data = _Drawn(world, watch)
    best = {"mcc": 0.0, "steps": 0}

    def look(trainer: Any) -> None:
        watch.stop()
        now = mcc(world, sae.W_dec)
        best["mcc"], best["steps"] = round(now, 3), trainer.n_training_steps
        if now >= MCC:
            raise _Reached
        watch.go()

    try:
        watch.go()
        train_toy_sae(
            sae, data, data.features, training_samples=PLAN.steps * PLAN.batch, batch_size=PLAN.batch, lr=rate,
            n_snapshots=PLAN.steps // MCC_EVERY - 1, snapshot_fn=look,
        )  # fmt: skip
        watch.stop()
    except _Reached:
        return {**best, "cpu_s": round(watch.spent, 2), "rate": rate}
    return {
        "mcc": round(mcc(world, sae.W_dec), 3), "steps": PLAN.steps, "cpu_s": round(watch.spent, 2), "rate": rate,
        "told": "not reached in as many steps as ours are planned",
    }  # fmt: skip


def measured() -> Mapping[str, object]:
    """Return ours, and SAELens' at its own default rate and at the peak of ours, or why there is none."""
    told: dict[str, object] = {"ours": ours()}
    for name, rate in (("saelens_default_rate", 3e-4), ("saelens_our_rate", 2e-4 * 128**0.5)):
        try:
            told[name] = saelens(rate)
        except ImportError as error:
            told[name] = f"skipped: {error}"
    return told
