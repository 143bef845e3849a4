"""Dictionaries against features that are known: the tables of the specification of `sae_features`, sections 6 and 14.

The full tables (4000 steps on two seeds) are slow; by default a smaller world shows the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from checks.organisms import sae_toy
from checks.organisms.sae_toy import Match, World, match, superposition, unit_rows
from checks.sae_features.dictionary.codelength import code_gain
from checks.sae_features.dictionary.fidelity import fidelity
from checks.sae_features.dictionary.plan import Named, Plan
from checks.sae_features.dictionary.training import in_raw_units, initial, normaliser, train
from checks.sae_features.dictionary.value import Dictionary

SEEDS = (Named(0), Named(1))
FROZEN = (Named(0, "decoder"), Named(1, "decoder"))


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def stream(world: World, rows: int, seed: int = 7) -> Iterator[torch.Tensor]:
    drawn = rng(seed)
    for begin in range(0, rows, 8192):
        yield world.draw(min(8192, rows - begin), drawn)[0]


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    ev: float
    gain: float
    found: Match
    gamma: float
    l0: float
    dead: float

    def __str__(self) -> str:
        found = self.found
        return (
            f"EV {self.ev:.3f} MCC {found.mcc:.3f} (chance {found.chance:.3f}) rec {found.recovered:.2f} "
            f"F1 {found.f1:.2f} gain {self.gain:+.1f} dead {self.dead:.2f} L0 {self.l0:.2f} gamma {self.gamma:.3f}"
        )


def row(world: World, dictionary: Dictionary, rows: int, name: str) -> Row:
    x, features = world.draw(rows, rng(99))
    f = dictionary.encode(x)
    groups = [str(place // 20) for place in range(rows)]
    told = fidelity(x, dictionary.decode(f), f, groups, rng=rng(0), resamples=20).estimates
    ev, gamma, l0, dead = (told[one].value for one in ("ev", "shrink_gamma", "l0", "dead"))
    gain = code_gain(dictionary, x, groups, 0.05, rng=rng(0), resamples=20).gain.value
    assert None not in (ev, gamma, l0, dead, gain)
    found = match(dictionary.w_dec, f, world.directions, features, rng(1))
    made = Row(ev or 0.0, gain or 0.0, found, gamma or 0.0, l0 or 0.0, dead or 0.0)
    print(f"{name:14} {made}")
    return made


SMALL = superposition(16, 32, 0.05)


def small(k: int, dictionaries: tuple[Named, ...] = (Named(0),)) -> Row:
    plan = Plan(latents=64, k=k, steps=500, batch=256, dictionaries=dictionaries, anneal=k < 6)
    (dictionary,) = train(stream(SMALL, 500 * 256), plan)
    return row(SMALL, dictionary, 4000, f"small k{k} {dictionaries[0].frozen}")


def test_code_gain_ranks_by_what_was_found_and_ev_does_not() -> None:
    right, crowded, frozen = small(2), small(8), small(2, (Named(0, "decoder"),))
    assert crowded.ev > right.ev, "more latents a token reconstruct more"
    assert right.found.mcc > crowded.found.mcc + 0.05
    assert right.gain > crowded.gain + 5
    assert right.gain > 0 > frozen.gain
    # The frozen decoder is rejected: not one direction, and a match that rows of chance reach.
    assert frozen.found.recovered == 0.0
    assert frozen.found.mcc < frozen.found.chance + 0.15
    assert right.found.mcc > right.found.chance + 0.25
    assert right.gamma == pytest.approx(1.0, abs=0.02)


def test_chance_grows_with_the_number_of_rows() -> None:
    truth = superposition().directions
    with_64, with_512 = (sae_toy.chance(truth, rows, rng(0)) for rows in (64, 512))
    print(f"chance of 64 rows {with_64:.3f}, of 512 rows {with_512:.3f}")
    assert with_64 == pytest.approx(0.419, abs=0.005)
    assert with_512 > with_64 + 0.1


def test_the_truth_matches_itself() -> None:
    world = superposition()
    x, features = world.draw(2000, rng(0))
    found = match(torch.from_numpy(-world.directions), torch.from_numpy(features), world.directions, features, rng(1))
    assert found.mcc == pytest.approx(1.0)
    assert found.f1 == 1.0
    assert found.recovered == 0.0, "recovery is signed: a direction and its opposite are two features"
    assert float((features > 0).sum(1).mean()) == pytest.approx(3.2, abs=0.1)
    assert features[features > 0].min() >= 1.0
    assert torch.allclose(x, torch.from_numpy(features @ world.directions.astype(np.float32)), atol=1e-5)


def test_planted_direction_is_a_row_of_the_same_draw() -> None:
    plant = sae_toy.planted(0.75)
    assert np.array_equal(np.vstack([plant.background.directions, plant.direction]), unit_rows(129, 64, 4321))
    label = np.arange(4000) % 2 == 0
    x = plant.draw(label, rng(0)).double().numpy() @ plant.direction
    # E(1 + |N| / 4) = 1.199
    assert x[label].mean() - x[~label].mean() == pytest.approx(0.75 * 1.199, abs=0.05)
    assert np.array_equal(
        sae_toy.planted(0.0).draw(label, rng(0)).numpy(), sae_toy.planted(0.0).draw(~label, rng(0)).numpy()
    )


def test_absorption_leaves_reconstruction_as_it_is() -> None:
    o5 = sae_toy.absorption(20_000, rng(0))
    groups = [str(place // 20) for place in range(20_000)]
    child = o5.features[:, 1] > 0
    silent, l0 = {}, {}
    for name, dictionary in (("plain", o5.plain), ("absorbing", o5.absorbing)):
        f = dictionary.encode(o5.x)
        told = fidelity(o5.x, dictionary.decode(f), f, groups, rng=rng(0), resamples=20).estimates
        assert told["ev"].value == pytest.approx(1.0, abs=1e-9)
        l0[name] = told["l0"].value
        silent[name] = float((f[torch.from_numpy(child), 0] == 0).double().mean())
    assert l0 == {"plain": pytest.approx(0.725, abs=0.01), "absorbing": pytest.approx(0.65, abs=0.01)}
    assert silent == {"plain": 0.0, "absorbing": 1.0}


# Section 14 in full


def full(k: int, dictionaries: tuple[Named, ...] = SEEDS, *, m: int = 128, anneal: bool = True) -> list[Row]:
    world = superposition()
    plan = Plan(latents=m, k=k, steps=4000, batch=512, dictionaries=dictionaries, anneal=anneal)
    trained = train(stream(world, 4000 * 512), plan)
    return [
        row(world, one, 20_000, f"m{m} k{k} {named.frozen}") for one, named in zip(trained, dictionaries, strict=True)
    ]


@pytest.mark.slow
def test_superposition_is_recovered() -> None:
    for one in full(4):
        assert one.found.mcc >= 0.96
        assert one.found.recovered >= 0.92
        assert one.gamma == pytest.approx(1.0, abs=0.02)
        assert one.l0 == pytest.approx(4.0, abs=0.05)
        assert one.ev == pytest.approx(0.92, abs=0.02)
        assert one.found.f1 == pytest.approx(0.85, abs=0.06)
        assert one.gain == pytest.approx(21.0, abs=2.0)


@pytest.mark.slow
def test_frozen_decoder_is_rejected() -> None:
    for one in full(4, FROZEN):
        assert one.found.recovered == 0.0
        assert one.found.mcc <= one.found.chance + 0.15
        assert one.ev == pytest.approx(0.476, abs=0.02)
        assert one.gain == pytest.approx(-17.3, abs=1.0)


@pytest.mark.slow
def test_table_of_sparsity_is_reproduced() -> None:
    k2, k8, k12 = full(2, (Named(0),))[0], full(8, (Named(0),))[0], full(12, (Named(0),), anneal=False)[0]
    assert (k2.ev, k8.ev, k12.ev) == pytest.approx((0.717, 0.938, 0.963), abs=0.02)
    assert (k2.gain, k8.gain, k12.gain) == pytest.approx((14.4, 4.4, -8.0), abs=2.0)
    assert k12.found.mcc < k8.found.mcc
    assert k12.ev > k8.ev > k2.ev


@pytest.mark.slow
@pytest.mark.parametrize(("spoiled", "ev"), [("gaussian", 0.589), ("shuffled", 0.517)])
def test_reconstruction_alone_proves_nothing(spoiled: str, ev: float) -> None:
    # Gaussian data of equal covariance, and the coordinates shuffled: EV above the frozen decoder's, nothing found.
    world = superposition()
    x, features = world.draw(4000 * 512, rng(7))
    if spoiled == "gaussian":
        exact = x[:200_000].double().numpy()
        states = rng(8).multivariate_normal(exact.mean(0), np.cov(exact.T), len(x)).astype(np.float32)
    else:
        states = np.stack([rng(9 + at).permutation(column) for at, column in enumerate(x.numpy().T)], axis=1)
    plan = Plan(latents=128, k=4, steps=4000, batch=512, dictionaries=(Named(0),))
    (dictionary,) = train(torch.split(torch.from_numpy(states), 8192), plan)
    held = torch.from_numpy(states[-20_000:])
    f, groups = dictionary.encode(held), [str(place // 20) for place in range(20_000)]
    told = fidelity(held, dictionary.decode(f), f, groups, rng=rng(0), resamples=20).estimates
    gain = code_gain(dictionary, held, groups, 0.05, rng=rng(0), resamples=20).gain.value or 0.0
    found = match(dictionary.w_dec, f, world.directions, features[-20_000:], rng(1))
    print(f"{spoiled} EV {told['ev'].value:.3f} gain {gain:+.1f} MCC {found.mcc:.3f} (chance {found.chance:.3f})")
    assert told["ev"].value == pytest.approx(ev, abs=0.02)
    assert gain < -5
    assert found.recovered == 0.0


@pytest.mark.slow
def test_without_annealing_fewer_features_are_found() -> None:
    # Section 14 tells MCC .980/.960, dead .46; six seeds of ours have .929 to .954 and dead .36 to .43. Without the
    # auxiliary loss ours has those dead (.43 to .51) and, at k 2, the table's EV and dead: it was measured without.
    for one in full(4, anneal=False):
        assert one.ev == pytest.approx(0.91, abs=0.02)
        assert one.found.mcc == pytest.approx(0.943, abs=0.02)
        assert one.l0 == pytest.approx(4.0, abs=0.05)


@pytest.mark.slow
def test_as_many_latents_as_features_are_too_few() -> None:
    # The row of section 14 (EV .880/.863, MCC .886/.853, rec .80/.69) is one without annealing; with it ours has MCC
    # .891 to .926 on six seeds.
    rows = full(4, m=64, anneal=False)
    assert np.mean([one.ev for one in rows]) == pytest.approx(0.872, abs=0.02)
    assert np.mean([one.found.mcc for one in rows]) == pytest.approx(0.870, abs=0.025)
    assert np.mean([one.found.recovered for one in rows]) == pytest.approx(0.745, abs=0.09)
    assert np.mean([one.dead for one in rows]) == pytest.approx(0.145, abs=0.06)


def test_untrained_row_of_the_table() -> None:
    # Section 14 has one seed: EV .038, gamma 1.95. What random rows reach varies with the rows.
    x, _ = superposition().draw(65_536, rng(7))
    plan = Plan(latents=128, k=4, steps=1)
    for seed in (0, 1):
        started = in_raw_units(initial(plan, seed, 32), plan, *normaliser(x), x)
        one = row(superposition(), started, 20_000, f"untrained {seed}")
        assert one.found.recovered == 0.0
        assert one.found.mcc == pytest.approx(0.475, abs=0.02)
        assert one.gamma == pytest.approx(1.95, abs=0.1)
        assert one.ev == pytest.approx(0.038, abs=0.07)


def probes(dictionary: Dictionary, plant: sae_toy.Planted) -> dict[str, float]:
    """Return AUROCs on 4000 balanced rows of probes fitted on 400, and the top latent's cosine with the plant."""
    label, test = np.arange(400) % 2 == 0, np.arange(4000) % 2 == 0
    x, held = plant.draw(label, rng(11)), plant.draw(test, rng(12))
    f, f_held = dictionary.encode(x).double().numpy(), dictionary.encode(held).double().numpy()
    one, zero = f[label], f[~label]
    gap = np.abs(one.mean(0) - zero.mean(0)) / np.sqrt((one.var(0) + zero.var(0)) / 2 + 1e-6)
    order = np.argsort(-gap, kind="stable")

    def area(fitted: np.ndarray, read: np.ndarray) -> float:
        probe = LogisticRegression(C=1.0, max_iter=2000).fit(fitted, label)
        return float(roc_auc_score(test, probe.decision_function(read)))

    cosine = float(dictionary.w_dec[order[0]].double().numpy() @ plant.direction)
    dense = area(x.double().numpy(), held.double().numpy())
    return {"dense": dense, "sparse_5": area(f[:, order[:5]], f_held[:, order[:5]]), "cosine": abs(cosine)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("amplitude", "dense", "sparse"), [(0.0, 0.50, 0.50), (0.5, 0.94, 0.53), (0.75, 0.986, 0.97), (1.0, 0.998, 0.995)]
)
def test_planted_direction_appears_at_a_cliff(amplitude: float, dense: float, sparse: float) -> None:
    plant, drawn = sae_toy.planted(amplitude), rng(13)
    rows = (plant.draw(drawn.random(8192) < 0.05, drawn) for _ in range(188))
    (dictionary,) = train(rows, Plan(latents=256, k=5, steps=3000, batch=512, dictionaries=(Named(0),)))
    found = probes(dictionary, plant)
    print(amplitude, found)
    assert found["dense"] == pytest.approx(dense, abs=0.03)
    assert found["sparse_5"] == pytest.approx(sparse, abs=0.04)
    assert (found["cosine"] > 0.9) is (amplitude > 0.6)
