from __future__ import annotations

import numpy as np

from checks.sae_features.probes.concept_fit import Design, chosen_latents, sparse
from checks.sae_features.probes.concept_select import separation, strongest


def design(labels: np.ndarray, train: int, val: int) -> Design:
    rows = np.arange(len(labels))
    held, chosen = rows < train, (rows >= train) & (rows < train + val)
    return Design(held, chosen, labels[held], labels[chosen], np.ones((2, train)), (1.0,))


def drawn() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 120)
    latents = np.maximum(rng.standard_normal((120, 30)) - 0.5, 0)
    latents[:, 4] += 0.5 * labels
    latents[:, 9] = 0
    return latents, labels


def test_selection_is_scale_free() -> None:
    # Raw mean differences choose the latent with the largest unit: a property of the file, not of the concept.
    latents, labels = drawn()
    scale = np.exp(np.random.default_rng(1).normal(0, 3, 30))
    plan = design(labels, 60, 30)
    assert chosen_latents(plan, latents, 5) == chosen_latents(plan, latents * scale, 5)
    one, other = sparse(plan, latents, (1, 5)), sparse(plan, latents * scale, (1, 5))
    for k in (1, 5):
        np.testing.assert_allclose(one[k].scores, other[k].scores, atol=1e-6)
    loud = latents.copy()
    loud[:, 20] *= 1000
    assert chosen_latents(plan, loud, 1) == (4,)


def test_separation_by_hand() -> None:
    latents, labels = drawn()
    weights = np.ones((2, 120))
    weights[1, :50] = 0
    found = separation(latents, np.stack([labels, 1 - labels]).astype(float), weights)
    for draw, (own, rows) in enumerate(((labels, slice(None)), (1 - labels, slice(50, None)))):
        up, down = latents[rows][own[rows] == 1], latents[rows][own[rows] == 0]
        wanted = (up.mean(0) - down.mean(0)) / np.sqrt((up.var(0) + down.var(0)) / 2 + 1e-6)
        np.testing.assert_allclose(found[draw], wanted, atol=1e-9)


def test_ties_go_to_the_lower_number() -> None:
    d = np.array([[0.0, -2.0, 1.0, 2.0, 1.0, 0.0], [0.0] * 6])
    assert strongest(d, 4).tolist() == [[1, 3, 2, 4], [0, 1, 2, 3]]
    assert strongest(d, 99).shape == (2, 6)
    many = np.random.default_rng(0).integers(-9, 9, (50, 200)).astype(float)
    for row, chosen in zip(many, strongest(many, 16), strict=True):
        assert chosen.tolist() == np.argsort(-np.abs(row), kind="stable")[:16].tolist()


def test_latents_that_never_vary_are_not_named() -> None:
    latents, labels = drawn()
    latents[:, 1:] = 0
    assert chosen_latents(design(labels, 60, 30), latents, 5) == (0,)
