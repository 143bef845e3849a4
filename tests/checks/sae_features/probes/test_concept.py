"""The concept table: what may choose, what is compared, and what planted concepts give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from checks.organisms.sae_toy import planted
from checks.sae_features.dictionary.grouped import difference
from checks.sae_features.probes.concept import (
    ConceptRefused,
    ConceptRows,
    Features,
    ProbeSettings,
    Readings,
    Twin,
    concept_table,
    least_permutations,
    split_of,
)
from checks.sae_features.probes.concept_fit import subsamples
from checks.sae_features.probes.concept_null import RIDGE_ABOVE, Permuted, dense_areas
from checks.sae_features.probes.concept_permute import Dealer
from tests.checks.sae_features.probes.concept_drawn import (
    QUICK,
    background_only,
    drawn_rows,
    draws,
    knows,
    read,
    rows_of,
    scrambled_test,
    table,
    with_concept,
)

STRONG, FAINT = planted(1.0), planted(0.5)


def detected(readings: Readings) -> bool:
    """Apply the rule of section 12 for one concept."""
    best = max(readings.auroc["dense"].low or 0, readings.sparse.low or 0)
    return best > QUICK.detect_floor and (readings.p or 1) <= QUICK.alpha


def in_test(rows: ConceptRows) -> np.ndarray:
    return np.array([split == "test" for split in rows.split])


def test_probe_never_sees_test() -> None:
    # Acceptance 9: other states and permuted labels in test change no direction, penalty, k, latent or baseline.
    rows = drawn_rows(FAINT, train_rows=100, test_rows=100)
    frozen = knows(np.random.default_rng(0).standard_normal((96, 64)) / 8)
    told = []
    for one in (rows, scrambled_test(rows)):
        twin = Twin(one.x[:, ::-1], read(frozen, one.x[:, ::-1]).latents)
        told.append(table(one, background_only(FAINT), with_concept(FAINT), frozen=read(frozen, one.x), twin=twin))
    before, after = told
    np.testing.assert_array_equal(before.diffmean, after.diffmean)
    for name in before.read:
        own, same = before.read[name], after.read[name]
        assert (own.k, own.latents, own.best, own.surface) == (same.k, same.latents, same.best, same.surface)
        assert own.penalties == same.penalties
        assert own.auroc["dense"].value != same.auroc["dense"].value


def test_null_permutes_test_labels() -> None:
    # Labels permuted in train alone leave the truth in test: where one direction rules, a probe of noise falls on it
    # or against it, and "chance" reaches almost 0 or 1.
    rng = np.random.default_rng(0)
    split = ["train"] * 100 + ["val"] * 60 + ["test"] * 100
    labels = np.arange(260) % 2
    x = rng.standard_normal((260, 2)) + np.outer(labels, (6.0, 6.0))
    rows = rows_of(x, labels, split)
    own = table(rows, knows(np.eye(2))).read["trained-0"].null
    for probe in ("dense", "sparse"):
        assert abs(own[probe].mean - 0.5) < max(4 * own[probe].sd / own[probe].n ** 0.5, 0.015)
        assert own[probe].sd < 0.12
    train, val, test = (np.array(split) == name for name in ("train", "val", "test"))
    wrong = np.tile(labels, (40, 1))
    wrong[:, train] = Dealer(labels[train], rows.groups[:100]).deal(40, rng)
    areas = dense_areas(Permuted(train, val, test, wrong), rows.x, 1.0)[1]
    assert np.abs(areas - 0.5).max() > 0.4


@pytest.mark.parametrize("seed", [0, 1])
def test_a_faint_concept_is_carried_by_the_dense_probe_alone(seed: int) -> None:
    # Acceptance 12 without the training: below O2's cliff a dictionary has the background and no latent of the concept.
    found = table(drawn_rows(FAINT, seed, 400, 300), background_only(FAINT), with_concept(FAINT), seed=seed)
    blind, sees = found.read["trained-0"], found.read["trained-1"]
    assert detected(blind)
    assert blind.auroc["dense"].value == pytest.approx(0.94, abs=0.03)
    assert blind.delta_surface.low is not None
    assert blind.delta_surface.low > 0
    assert blind.delta_sae.low is not None
    assert blind.delta_sae.low <= 0
    assert blind.delta_sparse_16.high is not None
    assert blind.delta_sparse_16.high < -0.05
    residual = blind.auroc["residual_dense"]
    assert residual.low is not None
    assert residual.low > 0.9
    assert sees.latents[0] == 128
    assert sees.auroc["sparse_1"].value > blind.auroc["sparse_16"].value + 0.1  # type: ignore[operator]


def test_nothing_is_not_detected_in_19_of_20_seeds() -> None:
    world = planted(0.0)
    found = [table(drawn_rows(world, seed, 100, 100), background_only(world), seed=seed) for seed in range(20)]
    assert sum(detected(one.read["trained-0"]) for one in found) <= 1


def test_dense_probe_is_sklearns() -> None:
    rows = drawn_rows(FAINT, train_rows=80, test_rows=100)
    found = table(rows, background_only(FAINT)).read["trained-0"]
    train, val, test = (np.array(rows.split) == name for name in ("train", "val", "test"))
    x = StandardScaler().fit(rows.x[train].astype(float)).transform(rows.x.astype(float))
    held = subsamples(rows.labels[train], rows.groups[:80], 5, draws()("concept/planted/train"))
    assert (held.sum(1) == 64).all()
    areas = {}
    for l2 in (0.1, 1.0, 10.0):
        both = []
        for weights in held:
            peer = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=10_000)
            peer.fit(x[train][weights == 1], rows.labels[train][weights == 1])
            scores = peer.decision_function(x)
            both.append([roc_auc_score(rows.labels[part], scores[part]) for part in (val, test)])
        areas[l2] = np.mean(both, axis=0)
    best = max(areas, key=lambda l2: (areas[l2][0], l2))
    assert found.penalties["dense"] == best
    assert found.auroc["dense"].value == pytest.approx(areas[best][1], abs=1e-4)


def test_differences_are_paired() -> None:
    rows = drawn_rows(STRONG, train_rows=100, test_rows=80)
    frozen = read(background_only(STRONG), rows.x)
    found = table(rows, with_concept(STRONG), frozen=frozen).read["trained-0"]
    assert len({one.drawn_from for one in found.auroc.values()}) == 1
    own = difference(found.sparse, found.auroc["dense"])
    assert (own.value, own.low, own.high) == (found.delta_sae.value, found.delta_sae.low, found.delta_sae.high)
    assert found.delta_frozen is not None
    assert found.delta_frozen.low is not None
    assert found.delta_frozen.low > 0


def test_surface_explains_what_tokens_say() -> None:
    rows = drawn_rows(STRONG, train_rows=100, test_rows=80)
    told = replace(rows, tokens=[(5, 9) if label else (5, 8) for label in rows.labels])
    found = table(told, with_concept(STRONG)).read["trained-0"]
    assert found.surface == "ngram"
    assert found.auroc["ngram"].value == 1.0
    assert found.delta_surface.low is not None
    assert found.delta_surface.low <= 0
    assert "twin_dense" not in found.auroc
    assert found.delta_frozen is None


def test_a_twin_that_reads_as_well_is_the_surface() -> None:
    rows = drawn_rows(STRONG, train_rows=100, test_rows=80)
    twin = Twin(rows.x, read(background_only(STRONG), rows.x).latents)
    found = table(rows, with_concept(STRONG), twin=twin).read["trained-0"]
    assert found.surface == "twin_dense"
    assert found.auroc["twin_dense"].value == found.auroc["dense"].value


def test_an_identical_baseline_differs_by_exactly_nothing() -> None:
    rows = drawn_rows(FAINT, train_rows=100, test_rows=80)
    found = table(rows, background_only(FAINT), frozen=read(background_only(FAINT), rows.x)).read["trained-0"]
    assert found.delta_frozen is not None
    assert (found.delta_frozen.value, found.delta_frozen.low, found.delta_frozen.high) == (0, 0, 0)


def test_too_few_groups_are_refused_with_counts() -> None:
    rows = drawn_rows(FAINT, train_rows=60, test_rows=60)
    few = replace(rows, groups=[f"g{row}" if row < 120 else f"h{row % 19}" for row in range(180)])
    refused = concept_table(few, {"trained-0": read(background_only(FAINT), rows.x)}, None, None, QUICK, draws())
    assert isinstance(refused, ConceptRefused)
    assert (refused.concept, refused.reason) == ("planted", "too_few_groups")
    assert refused.counts["test_positive"] == 19
    one_class = replace(rows, labels=np.where(np.arange(180) < 60, 1, rows.labels))
    refused = concept_table(one_class, {"trained-0": read(background_only(FAINT), rows.x)}, None, None, QUICK, draws())
    assert isinstance(refused, ConceptRefused)
    assert refused.counts["train_negative"] == 0


def test_shifted_rows_neither_train_nor_choose_and_are_told_apart() -> None:
    rows = drawn_rows(STRONG, train_rows=100, test_rows=80)
    shift: list[str | None] = list(rows.shift)
    # French rows lost the concept; of the paraphrases, the first ten are of groups that trained.
    order = np.arange(260)
    extra = rows_of(rows.x[180:], rows.labels[180:], ["train"] * 80, [f"f{row}" for row in range(80)])
    groups = rows.groups + extra.groups + rows.groups[:10] + [f"p{row}" for row in range(50)]
    lost = np.random.default_rng(0).permutation(rows.x[180:])
    x = np.concatenate([rows.x, lost, rows.x[:10], rows.x[10:60]])
    labels = np.concatenate([rows.labels, extra.labels, rows.labels[:10], rows.labels[10:60]])
    every = replace(
        rows_of(x, labels, [*rows.split, *["train"] * 140], groups),
        shift=[*shift, *["french"] * 80, *["paraphrase"] * 60],
    )
    assert len(order) == len(rows.labels)
    dictionary = with_concept(STRONG)
    alone, found = table(rows, dictionary), table(every, dictionary)
    assert found.read["trained-0"].latents == alone.read["trained-0"].latents
    assert found.counts["shift_left_out"] == 10
    assert found.counts["shifted"] == 130
    french, paraphrase = found.shifted["french"], found.shifted["paraphrase"]
    assert not isinstance(french, ConceptRefused)
    assert not isinstance(paraphrase, ConceptRefused)
    assert french["trained-0"].auroc["dense"].value == pytest.approx(0.5, abs=0.12)
    assert paraphrase["trained-0"].auroc["dense"].n == 50
    assert paraphrase["trained-0"].auroc["dense"].value > 0.95  # type: ignore[operator]
    assert paraphrase["trained-0"].p is None


def test_a_shift_of_few_groups_is_refused_alone() -> None:
    rows = drawn_rows(STRONG, train_rows=100, test_rows=80)
    shift = [None if row < 250 else "format" for row in range(260)]
    found = table(replace(rows, shift=shift), with_concept(STRONG))
    refused = found.shifted["format"]
    assert isinstance(refused, ConceptRefused)
    assert refused.counts == {"test_positive": 5, "test_negative": 5}


def test_wide_states_are_permuted_by_ridge_and_agree() -> None:
    # Above RIDGE_ABOVE one factorisation stands in for a logistic fit of every permutation.
    rng = np.random.default_rng(0)
    split = np.array(["train"] * 400 + ["val"] * 60 + ["test"] * 100)
    labels = rng.integers(0, 2, (30, 560))
    wide = rng.standard_normal((560, RIDGE_ABOVE + 1))
    wide[:, 0] += 2 * labels[0]
    parted = Permuted(split == "train", split == "val", split == "test", labels)
    ridge, exact = dense_areas(parted, wide, 10.0)[1], dense_areas(parted, wide[:, :RIDGE_ABOVE], 10.0)[1]
    assert ridge[0] == pytest.approx(exact[0], abs=0.03)
    assert np.corrcoef(ridge[1:], exact[1:])[0, 1] > 0.9


def test_same_seed_same_table_and_order_of_dictionaries_does_not_matter() -> None:
    rows = drawn_rows(FAINT, train_rows=80, test_rows=60)
    one, other = background_only(FAINT), with_concept(FAINT)
    there, back = table(rows, one, other), table(rows, other, one)
    again = table(rows, one, other)
    for a, b in ((there.read["trained-0"], back.read["trained-1"]), (there.read["trained-0"], again.read["trained-0"])):
        assert a.p == b.p
        assert a.delta_sae.low == b.delta_sae.low
        assert a.null == b.null


def test_bad_rows_are_refused() -> None:
    rows = drawn_rows(FAINT, train_rows=60, test_rows=60)
    features = read(background_only(FAINT), rows.x)
    with pytest.raises(ValueError, match="no dictionary"):
        concept_table(rows, {}, None, None, QUICK, draws())
    short = Features(features.latents[1:], features.residual)
    with pytest.raises(ValueError, match="trained-0 has 179 rows, the concept 180"):
        concept_table(rows, {"trained-0": short}, None, None, QUICK, draws())
    broken = features.latents.copy()
    broken[3, 2] = np.nan
    with pytest.raises(ValueError, match="frozen holds a number that is not finite"):
        concept_table(rows, {"trained-0": features}, Features(broken, features.residual), None, QUICK, draws())
    leaking = replace(rows, groups=["g0"] * 180)
    with pytest.raises(ValueError, match="group g0 stands in train and in val"):
        concept_table(leaking, {"trained-0": features}, None, None, QUICK, draws())
    with pytest.raises(ValueError, match="0 or 1"):
        replace(rows, labels=rows.labels + 1)
    with pytest.raises(ValueError, match="one entry a row"):
        replace(rows, groups=rows.groups[1:])
    x = rows.x.copy()
    x[17, 3] = np.inf
    with pytest.raises(ValueError, match="row 17 is not finite"):
        replace(rows, x=x)


def test_splits_are_shares_of_groups_and_depend_on_the_seed() -> None:
    drawn = [split_of(f"group {one}", 3) for one in range(4000)]
    for name, share in (("train", 0.5), ("val", 0.2), ("test", 0.3)):
        assert drawn.count(name) / 4000 == pytest.approx(share, abs=0.03)  # type: ignore[arg-type]
    assert drawn != [split_of(f"group {one}", 4) for one in range(4000)]
    assert split_of("groß", 0) == split_of("groß", 0)


def test_subsamples_hold_whole_groups_and_both_classes() -> None:
    labels = np.array([1, 1] + [0] * 38)
    groups = [f"g{row // 2}" for row in range(40)]
    drawn = subsamples(labels, groups, 5, np.random.default_rng(0))
    assert (drawn.sum(1) == 32).all()
    assert (drawn[:, :2] == 1).all()
    assert (drawn[:, ::2] == drawn[:, 1::2]).all()


def test_permutations_carry_the_correction() -> None:
    # 200 permutations have least p 1/201: over eleven concepts Holm could detect nothing, however strong.
    assert least_permutations(10, 0.05) == 199
    assert 12 / (1 + least_permutations(12, 0.05)) <= 0.05
    assert 12 / (1 + ProbeSettings().permutations) > 0.05
