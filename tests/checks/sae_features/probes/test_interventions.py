"""Ablation with its controls, on a model whose mechanism is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from checks.passages import Change
from checks.sae_features.probes.behaviour import Behaviour, EditSettings, EditsRefused, behaviour, rows_to_edit
from checks.sae_features.probes.coded import Coded
from checks.sae_features.probes.interventions import Effect, ablate, ablate_tokens, p_beyond
from tests.checks.sae_features.probes.toy_site import LATENTS, ToySite, by_hand, dictionary, directions, draw, editable

PLANTED, INERT = [0, 1], [5, 9]
SETTINGS = EditSettings(matched_controls=99, directions=32, bootstrap=200)


def effect(site: ToySite, latents: Sequence[int], kind: str = "c", **over: Any) -> Effect | EditsRefused:
    ids, groups = site.named(kind)
    fields: dict[str, Any] = {
        "dictionary": dictionary(),
        "masses": site.masses(dictionary()),
        "live": np.ones(LATENTS, dtype=bool),
        "settings": SETTINGS,
        "rng": draw,
        "editable": editable,
    }
    return ablate(site, ids, groups, latents=latents, **{**fields, **over})


def told(site: ToySite, latents: Sequence[int], **over: Any) -> Effect:
    found = effect(site, latents, **over)
    assert isinstance(found, Effect)
    return found


def test_the_toy_computes_what_it_says() -> None:
    site = ToySite()
    ids, _ = site.named()
    margins = site.margins(ids, [])[0]
    assert margins == pytest.approx([by_hand(site, site.contrasts[name][0]) for name in ids], abs=1e-6)
    (part,) = site.margin_gradients(ids[:1])
    tokens, h = site.contrasts[ids[0]][0], part.states.vectors.astype(np.float64)
    for position, axis in ((0, 3), (3, 5), (5, 20)):
        step = np.zeros(h.shape[1])
        step[axis] = 1e-5
        rest = dict(enumerate(h))
        up, down = (by_hand(site, tokens, {**rest, position: h[position] + sign * step}) for sign in (1, -1))
        assert part.gradient[position, axis] == pytest.approx((up - down) / 2e-5, abs=1e-6)


@pytest.mark.parametrize("field", ["edit_rows", "matched_controls", "directions", "bootstrap"])
def test_no_controls_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        EditSettings(**{field: 0})


def test_behaviour_that_is_not_there_is_not_explained() -> None:
    site = ToySite()
    found = effect(site, PLANTED, kind="plain")
    assert isinstance(found, EditsRefused)
    assert found.reason == "behaviour_absent"
    assert list(found.left_out) == site.named("plain")[0]
    assert found.rows == 40


def test_rows_with_the_wrong_sign_are_left_out_and_listed() -> None:
    site = ToySite()
    ids, groups = site.named()
    wrong, their_groups = site.named("plain")
    mixed = (*ids, *wrong[:10])
    found = ablate(
        site, mixed, (*groups, *their_groups[:10]), dictionary(), PLANTED, site.masses(dictionary()),
        np.ones(LATENTS, dtype=bool), SETTINGS, draw, editable=editable,
    )  # fmt: skip
    assert isinstance(found, Effect)
    assert found.left_out == tuple(wrong[:10])
    assert found.n == 40
    alone = told(site, PLANTED)
    assert found.value.value == pytest.approx(alone.value.value, abs=1e-9)
    assert found.controls == pytest.approx(alone.controls, abs=1e-9)


@pytest.mark.parametrize(("wrong", "absent"), [(20, False), (21, True)])
def test_a_fifth_of_wrong_signs_is_borne_and_no_more(wrong: int, absent: bool) -> None:
    margins = np.ones(100)
    margins[:wrong] = -1.0
    margins[0] = 0.0  # as likely as the foil is not a preference
    names = [f"r{row}" for row in range(100)]
    assert isinstance(behaviour(margins, names, names, SETTINGS, draw), EditsRefused) == absent


def test_a_margin_that_is_no_number_is_not_kept() -> None:
    names = [f"r{row}" for row in range(10)]
    found = behaviour(np.array([math.nan, *[1.0] * 9]), names, names, SETTINGS, draw)
    assert isinstance(found, Behaviour)
    assert found.left_out == ("r0",)


def test_an_edit_that_breaks_the_output_is_refused_by_name() -> None:
    class Broken(ToySite):
        def margins(self, ids: Sequence[str], changes: Sequence[Change]) -> np.ndarray:
            found = super().margins(ids, changes)
            found[3, 2] = math.nan
            return found

    found = effect(Broken(), PLANTED)
    assert isinstance(found, EditsRefused)
    assert (found.reason, found.left_out) == ("margin_not_finite", ("c2",))


def test_too_few_latents_for_controls_are_refused_before_anything_runs() -> None:
    site = ToySite()
    live = np.zeros(LATENTS, dtype=bool)
    live[[0, 1, 5]] = True
    found = effect(site, PLANTED, live=live)
    assert isinstance(found, EditsRefused)
    assert found.reason == "too_few_latents"
    assert site.charged == 0


def test_memory_that_is_used_again_is_no_old_batch() -> None:
    # The toy writes every batch over the last one: same array, other states.
    small, whole = ToySite(batch=8), ToySite(batch=1000)
    assert told(small, PLANTED).controls == pytest.approx(told(whole, PLANTED).controls, abs=1e-9)


def test_effect_equals_a_loop_over_rows_and_tokens() -> None:
    site = ToySite()
    found = told(site, PLANTED)
    ids, _ = site.named()
    rows, changes = directions()[PLANTED], []
    for name, part in ((name, next(site.states([name]))) for name in ids):
        edited = {}
        for position, x in enumerate(part.vectors.astype(np.float64)):
            f = 0.0 if part.special[position] else np.maximum(rows @ x, 0.0)
            edited[position] = x - (f * rows.T).sum(axis=1)
        tokens = site.contrasts[name][0]
        changes.append(by_hand(site, tokens, edited) - by_hand(site, tokens))
    assert found.value.value == pytest.approx(np.mean(changes), abs=1e-5)


def test_planted_latents_act_beyond_matched_controls() -> None:
    found = told(ToySite(), PLANTED)
    assert found.p == pytest.approx(0.01)
    assert found.p_random == pytest.approx(1 / 33)
    assert found.relative.high is not None
    assert found.relative.high < -0.5
    assert np.abs(found.controls).max() < 0.1 * abs(found.value.value or 0)
    assert found.value.groups == 20


@pytest.mark.parametrize(("carrier", "latents"), [("latents", INERT), ("error", INERT), ("error", PLANTED)])
def test_inert_latents_do_not_act(carrier: Any, latents: list[int]) -> None:
    found = told(ToySite(carrier), latents)
    assert found.p > 0.05
    assert abs(found.relative.value or 0) < 0.02


def test_p_counts_equal_controls_and_is_never_zero() -> None:
    assert p_beyond(-2.0, np.array([2.0, -2.0, 1.0, -3.0])) == pytest.approx(4 / 5)
    assert p_beyond(9.0, np.zeros(99)) == pytest.approx(0.01)
    assert p_beyond(0.0, np.zeros(99)) == 1.0


def test_p_of_an_inert_set_is_uniform() -> None:
    rng = np.random.default_rng(3)
    found = [p_beyond(rng.standard_normal(), rng.standard_normal(19)) for _ in range(4000)]
    for level in (0.05, 0.25, 0.5):
        assert np.mean(np.array(found) <= level + 1e-9) == pytest.approx(level, abs=4 * math.sqrt(level / 4000))


def test_bootstrap_equals_drawing_rows_of_groups_again() -> None:
    site = ToySite()
    found = told(site, PLANTED)
    ids, groups = site.named()
    margins = site.margins(ids, [Coded(dictionary(), editable, PLANTED).without(PLANTED)])
    change, names = margins[1] - margins[0], sorted(set(groups))
    times = draw("bootstrap").multinomial(len(names), np.full(len(names), 1 / len(names)), size=SETTINGS.bootstrap)
    plain, relative = [], []
    for counts in times:
        rows = [row for name, count in zip(names, counts, strict=True) for row in np.flatnonzero(
            np.array(groups) == name).tolist() * count]  # fmt: skip
        plain.append(float(np.mean(change[rows])))
        relative.append(float(np.mean(change[rows]) / abs(np.mean(margins[0][rows]))))
    assert (found.value.low, found.value.high) == pytest.approx(np.percentile(plain, [2.5, 97.5]), abs=1e-9)
    assert (found.relative.low, found.relative.high) == pytest.approx(np.percentile(relative, [2.5, 97.5]), abs=1e-9)


def test_random_directions_are_as_long_as_what_was_removed() -> None:
    site, seen = ToySite(), []

    class Watched(ToySite):
        def margins(self, ids: Sequence[str], changes: Sequence[Change]) -> np.ndarray:
            first = next(self.states(ids))
            seen.append([change(first) - first.vectors for change in changes])
            return super().margins(ids, changes)

    told(Watched(), PLANTED)
    del site
    (edits,) = seen
    lengths = np.linalg.norm(edits[0], axis=1)
    assert len(edits) == 1 + 99 + 32
    for random in edits[100:]:
        assert np.linalg.norm(random, axis=1) == pytest.approx(lengths, abs=1e-5)
    one, other = edits[100][lengths.argmax()], edits[101][lengths.argmax()]
    assert abs(one @ other) < 0.9 * np.linalg.norm(one) * np.linalg.norm(other)


def test_diffmean_is_projected_out_whatever_its_length() -> None:
    site = ToySite()
    short, long = (told(site, PLANTED, diffmean=scale * site.carried).diffmean for scale in (1.0, 50.0))
    assert short is not None
    assert long is not None
    assert short.value == pytest.approx(long.value, abs=1e-9)
    assert short.value == pytest.approx(told(site, PLANTED).value.value, abs=0.1)
    assert told(site, PLANTED).diffmean is None


def test_off_target_is_kl_over_scored_tokens_of_neutral_passages() -> None:
    site = ToySite()
    neutral = list(site.passages)
    # Latents that fire in neutral text: the planted ones do not.
    found = told(site, INERT, neutral=neutral)
    change = Coded(dictionary(), editable, INERT).without(INERT)
    total, count = 0.0, 0
    for name in neutral:
        (part,) = site.splice([name], [change])
        total += float(part.divergence[1][part.scored].sum())
        count += int(part.scored.sum())
    assert found.off_target_kl is not None
    assert found.off_target_kl.value == pytest.approx(total / count, rel=1e-9)
    assert found.off_target_kl.groups == len(neutral)
    assert found.per_nat == pytest.approx((found.value.value or 0) / (total / count))


def test_nothing_is_told_per_nat_of_rounding() -> None:
    site = ToySite()
    found = told(site, PLANTED, neutral=list(site.passages))
    assert found.off_target_kl is not None
    assert abs(found.off_target_kl.value or 0) < 1e-9
    assert found.per_nat is None
    assert told(site, PLANTED).off_target_kl is None


@pytest.mark.parametrize("with_diffmean", [True, False])
def test_cost_is_known_before(with_diffmean: bool) -> None:
    site = ToySite()
    ids, _ = site.named()
    neutral = list(site.passages)
    masses = site.masses(dictionary())
    site.charged = 0
    told(site, PLANTED, neutral=neutral, masses=masses, diffmean=site.carried if with_diffmean else None)
    assert site.charged == ablate_tokens(site.tokens(ids), site.tokens(neutral), SETTINGS, with_diffmean)


def test_same_labels_draw_the_same() -> None:
    one, other = told(ToySite(), PLANTED), told(ToySite(), PLANTED)
    assert one.controls.tobytes() == other.controls.tobytes()
    assert one.random.tobytes() == other.random.tobytes()


def test_rows_come_from_many_groups() -> None:
    ids = [f"r{row}" for row in range(60)]
    groups = ["large"] * 50 + [f"g{row}" for row in range(10)]
    chosen, theirs = rows_to_edit(ids, groups, 12, draw)
    assert len(set(theirs)) == 11
    assert theirs.count("large") == 2
    assert list(chosen) == [name for name in ids if name in chosen]
    assert rows_to_edit(ids, groups, 100, draw) == (tuple(ids), tuple(groups))
