"""Centring and scaling: frozen on train, by branch and template, and folded back into raw space."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from checks.truth_probe.direction import Direction, unit
from checks.truth_probe.displacement import displacement
from checks.truth_probe.normaliser import Mode, Normaliser
from checks.truth_probe.pairs import PairActivations

MODES: tuple[Mode, ...] = ("mean", "scale", "zscore")


def states(n: int = 60, seed: int = 0, templates: int = 3) -> PairActivations:
    rng = np.random.default_rng(seed)
    template = np.arange(n) % templates
    stretch = np.array([0.1, 1.0, 10.0, 3.0])
    pos = rng.standard_normal((n, 4)) * stretch + 5.0 * template[:, None]
    neg = rng.standard_normal((n, 4)) * stretch - 2.0 * template[:, None]
    return PairActivations(pos.astype(np.float32), neg.astype(np.float32), template, np.arange(n))


def test_statistics_are_float64_of_float32_states() -> None:
    pairs = states()
    shifted = replace(pairs, pos=pairs.pos + np.float32(1e4))
    centred = Normaliser.fit(shifted).apply(shifted)
    assert centred.pos.dtype == np.float64
    assert np.abs(centred.pos.mean(axis=0)).max() < 1e-9


def test_scale_is_one_number_and_zscore_one_a_feature() -> None:
    pairs = states()
    centred = Normaliser.fit(pairs).apply(pairs)
    both = np.concatenate([centred.pos, centred.neg])
    one = Normaliser.fit(pairs, mode="scale")
    assert one.scale == pytest.approx(np.mean([np.linalg.norm(row) for row in both]) / 2)
    each = Normaliser.fit(pairs, mode="zscore")
    assert each.scale == pytest.approx(both.std(axis=0))
    done = each.apply(pairs)
    assert np.concatenate([done.pos, done.neg]).std(axis=0) == pytest.approx(np.ones(4))


@pytest.mark.parametrize("mode", MODES)
def test_folding_keeps_every_score_up_to_one_positive_number(mode: Mode) -> None:
    train, test = states(seed=0), states(seed=1)
    normaliser, raw = Normaliser.fit(train, mode=mode), Normaliser.fit(train)
    fitted = Direction(unit(np.array([1.0, -2.0, 0.5, 3.0])), "ccs", offset=0.7)
    folded = normaliser.fold(fitted)
    assert np.linalg.norm(folded.vector) == pytest.approx(1.0)
    inside = displacement(normaliser.apply(test)) @ fitted.vector
    outside = displacement(raw.apply(test)) @ folded.vector
    ratio = outside / inside
    assert ratio == pytest.approx(np.full(len(test), ratio[0]))
    assert ratio[0] > 0
    # The same number joins the offset: the zero of a single text's score stays where it was.
    single = normaliser.apply(test).pos @ fitted.vector + fitted.offset
    assert raw.apply(test).pos @ folded.vector + folded.offset == pytest.approx(ratio[0] * single)
    assert folded.normaliser == normaliser.digest()


def test_constant_features_are_not_blown_up() -> None:
    pairs = states()
    pos, neg = pairs.pos.copy(), pairs.neg.copy()
    pos[:, 0] = neg[:, 0] = np.float32(0.1)
    flat = replace(pairs, pos=pos, neg=neg)
    assert np.abs(Normaliser.fit(flat, mode="zscore").apply(flat).pos[:, 0]).max() < 1e-6
    nothing = replace(pairs, pos=np.ones_like(pos), neg=np.ones_like(neg))
    for mode in MODES:
        assert np.isfinite(Normaliser.fit(nothing, mode=mode).apply(nothing).pos).all()


def test_thin_and_unknown_templates_are_named_and_take_the_branch() -> None:
    pairs = states(n=44, templates=4)
    train = pairs.take(np.flatnonzero((pairs.template < 2) | (np.arange(44) < 8)))
    normaliser = Normaliser.fit(train)
    assert normaliser.thin == (2, 3)
    other = replace(states(n=6, seed=3), template=np.array([0, 2, 9, 9, 5, 1]))
    assert normaliser.unknown_templates(other) == (5, 9)
    applied = normaliser.apply(other)
    for row in (1, 2, 4):
        assert applied.neg[row] == pytest.approx(other.neg[row] - train.neg.mean(axis=0, dtype=np.float64))


def test_single_texts_are_centred_by_both_branches() -> None:
    train = states()
    for mode in MODES:
        normaliser = Normaliser.fit(train, mode=mode)
        both = np.concatenate([train.pos, train.neg])
        assert np.abs(normaliser.apply_texts(both).mean(axis=0)).max() < 1e-5
        assert normaliser.apply_texts(both) == pytest.approx((both - both.mean(axis=0)) / normaliser.scale, abs=1e-4)


def test_the_digest_is_of_every_number() -> None:
    train = states()
    first = Normaliser.fit(train)
    assert first.digest() == Normaliser.fit(states()).digest()
    assert len(first.digest()) == 64
    moved = train.neg.copy()
    moved[7, 2] += np.float32(0.01)
    others = {Normaliser.fit(train, mode=mode).digest() for mode in MODES}
    others |= {Normaliser.fit(replace(train, neg=moved)).digest(), Normaliser.fit(train.take(np.arange(59))).digest()}
    swapped = replace(first, pos=first.neg, neg=first.pos, pos_all=first.neg_all, neg_all=first.pos_all)
    one_template = [{**branch, 1: branch[1] + 1e-9} for branch in (first.pos, first.neg)]
    others |= {swapped.digest(), replace(first, pos=one_template[0]).digest()}
    others |= {replace(first, neg=one_template[1]).digest(), replace(first, thin=(8,)).digest()}
    assert len(others) == 9


def test_fit_without_pairs_or_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Normaliser.fit(states().take(np.zeros(60, dtype=bool)))
    with pytest.raises(ValueError, match="whiten"):
        Normaliser.fit(states(), mode="whiten")  # type: ignore[arg-type]
