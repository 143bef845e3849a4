"""Rows of O2 at any amplitude, and dictionaries that read them: some trained, some known by construction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from checks.memory import generator
from checks.organisms.sae_toy import Planted, planted
from checks.sae_features.dictionary.plan import Named, Plan
from checks.sae_features.dictionary.training import train
from checks.sae_features.dictionary.value import Dictionary, Threshold
from checks.sae_features.probes.concept import ConceptRows, ConceptTable, Features, ProbeSettings, Twin, concept_table

QUICK = ProbeSettings(permutations=39, resamples=200)


def draws(seed: int = 0) -> Callable[[str], np.random.Generator]:
    return lambda label: generator(seed, "sae_features", label)


def drawn_rows(world: Planted, seed: int = 0, train_rows: int = 200, test_rows: int = 200) -> ConceptRows:
    """Return balanced rows, each its own group; val has as many as test."""
    sizes = {"train": train_rows, "val": test_rows, "test": test_rows}
    split = [name for name, size in sizes.items() for _ in range(size)]
    labels = np.arange(len(split)) % 2
    x = world.draw(labels.astype(bool), np.random.default_rng((7, seed))).numpy()
    return rows_of(x, labels, split)


def rows_of(
    x: np.ndarray, labels: np.ndarray, split: Sequence[str], groups: Sequence[str] | None = None
) -> ConceptRows:
    n = len(labels)
    return ConceptRows(
        concept="planted",
        labels=labels,
        groups=list(groups) if groups is not None else [f"g{row}" for row in range(n)],
        x=x.astype(np.float32),
        tokens=[(row % 7, row % 5) for row in range(n)],
        positions=np.arange(n) % 11,
        lengths=np.full(n, 32),
        split=list(split),  # type: ignore[arg-type]
        shift=[None] * n,
    )


def knows(directions: np.ndarray) -> Dictionary:
    """Return a dictionary whose rows are these directions and whose latents are on above one half."""
    rows = torch.from_numpy(directions.copy()).float()
    m, d = rows.shape
    return Dictionary(rows.T.contiguous(), torch.zeros(m), rows, torch.zeros(d), Threshold(torch.full((m,), 0.5)))


def background_only(world: Planted) -> Dictionary:
    """Return the dictionary of everything but the concept: what training gives below the cliff of O2."""
    return knows(world.background.directions)


def with_concept(world: Planted) -> Dictionary:
    return knows(np.concatenate([world.background.directions, world.direction[None]]))


def read(dictionary: Dictionary, x: np.ndarray) -> Features:
    states = torch.from_numpy(np.ascontiguousarray(x))
    f = dictionary.encode(states)
    return Features(dictionary.contributions(f).numpy(), (states - dictionary.decode(f, states)).numpy())


def learned(amplitude: float, seed: int, *, anneal: bool = False) -> tuple[Planted, Dictionary, Dictionary]:
    """Return O2, its dictionary and its frozen decoder, trained as section 14 says: m 256, k 5, 3000 steps of 512."""
    world, rng = planted(amplitude), np.random.default_rng(100 + seed)

    def stream() -> Iterator[torch.Tensor]:
        while True:
            yield world.draw(rng.random(512) < 0.05, rng)

    named = (Named(seed), Named(seed, frozen="decoder"))
    plan = Plan(latents=256, k=5, steps=3000, batch=512, dictionaries=named, seed=seed, anneal=anneal)
    dictionary, frozen = train(stream(), plan)
    return world, dictionary, frozen


def table(
    rows: ConceptRows,
    *dictionaries: Dictionary,
    frozen: Features | None = None,
    twin: Twin | None = None,
    settings: ProbeSettings = QUICK,
    seed: int = 0,
) -> ConceptTable:
    trained = {f"trained-{at}": read(one, rows.x) for at, one in enumerate(dictionaries)}
    found = concept_table(rows, trained, frozen, twin, settings, draws(seed))
    assert isinstance(found, ConceptTable), found
    return found


def scrambled_test(rows: ConceptRows, seed: int = 0) -> ConceptRows:
    """Return the rows with other states and permuted labels in test."""
    rng = np.random.default_rng(seed)
    test = np.array([split == "test" for split in rows.split])
    x, labels = rows.x.copy(), rows.labels.copy()
    x[test] = 5 * rng.standard_normal(x[test].shape) + 3
    labels[test] = rng.permutation(labels[test])
    return replace(rows, x=x, labels=labels)
