"""Attribution by gradients against exact ablation, where one is right and where it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import linregress, pearsonr, rankdata, spearmanr

from checks.sae_features.probes.attribution import ALPHAS, Attribution, attribute, attribute_tokens, correlation
from checks.sae_features.probes.behaviour import EditSettings, EditsRefused
from tests.checks.sae_features.probes.toy_site import LATENTS, ToySite, by_hand, dictionary, directions, draw, editable

SETTINGS = EditSettings(bootstrap=200)


def asked(site: ToySite, kind: str = "c", **over: Any) -> Attribution | EditsRefused:
    ids, groups = site.named(kind)
    fields: dict[str, Any] = {"dictionary": dictionary(), "live": np.ones(LATENTS, dtype=bool)}
    return attribute(site, ids, groups, settings=SETTINGS, rng=draw, editable=editable, **{**fields, **over})


def told(site: ToySite, **over: Any) -> Attribution:
    found = asked(site, **over)
    assert isinstance(found, Attribution)
    return found


def test_behaviour_that_is_not_there_is_not_attributed() -> None:
    found = asked(ToySite(), kind="plain")
    assert isinstance(found, EditsRefused)
    assert found.reason == "behaviour_absent"


def test_a_linear_readout_is_attributed_exactly() -> None:
    found = told(ToySite(linear=True))
    for form in found.forms.values():
        assert form.spearman == pytest.approx(1.0)
        assert form.pearson == pytest.approx(1.0)
        assert form.slope == pytest.approx(1.0, abs=1e-5)
        exact = {latent: effect.value for latent, effect in found.exact.items()}
        assert {latent: form.ie[latent] for latent in exact} == pytest.approx(exact, abs=1e-5)
    assert found.validated(0.8) == ("gradient", "ig")


def test_latents_and_error_make_up_a_linear_margin() -> None:
    # Setting all latents and the error to zero takes the whole margin but for the bias and the special token.
    site = ToySite(linear=True)
    found = told(site)
    ids, _ = site.named()
    zeroed = {}
    for name in ids:
        tokens = site.contrasts[name][0]
        zeroed[name] = by_hand(site, tokens, {at: np.zeros(site.width) for at in range(1, len(tokens))})
    whole = np.mean([zeroed[name] - by_hand(site, site.contrasts[name][0]) for name in ids])
    for form in found.forms.values():
        assert form.ie.sum() + (form.error.value or 0) == pytest.approx(whole, abs=1e-5)


def numeric_ie(site: ToySite, latent: int, alpha: float) -> float:
    """Return -sum_t f_i dm/df_i at x̂(alpha f) + e by central differences, mean over rows."""
    rows, values, step = directions()[:LATENTS], [], 1e-4
    for name in site.named()[0]:
        part = next(site.states([name]))
        x = part.vectors.astype(np.float64)
        f = np.where(part.special[:, None], 0.0, np.maximum(x @ rows.T, 0.0))
        at = x - (1 - alpha) * f @ rows
        # The sum over tokens is one derivative: along f_i at all tokens together.
        toward = f[:, [latent]] * rows[latent]
        up, down = (
            by_hand(site, site.contrasts[name][0], dict(enumerate(at + sign * step * toward))) for sign in (1, -1)
        )
        values.append(-(up - down) / (2 * step))
    return float(np.mean(values))


def test_both_forms_equal_central_differences() -> None:
    site = ToySite()
    found = told(site)
    for latent in (0, 1, 7):
        assert found.forms["gradient"].ie[latent] == pytest.approx(numeric_ie(site, latent, 1.0), abs=1e-4)
        ig = np.mean([numeric_ie(site, latent, alpha) for alpha in ALPHAS])
        assert found.forms["ig"].ie[latent] == pytest.approx(ig, abs=1e-4)
    assert ALPHAS == (0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95)


def test_a_saturated_readout_is_underestimated_by_its_gradient() -> None:
    site = ToySite()
    found = told(site)
    exact = found.exact[0].value
    assert exact is not None
    assert abs(found.forms["gradient"].ie[0]) < 0.5 * abs(exact)
    assert abs(found.forms["ig"].ie[0]) > abs(exact)


def test_the_error_is_a_node_of_its_own() -> None:
    carried, not_carried = told(ToySite("error")), told(ToySite("latents"))
    for name in ("gradient", "ig"):
        form = carried.forms[name]
        assert form.error.low is not None
        assert (form.error.value or 0) < -10 * np.abs(form.ie).max()
        assert abs(not_carried.forms[name].error.value or 0) < 0.1
    site = ToySite("error")
    outside = directions()[LATENTS:]
    values = []
    for name in site.named()[0]:
        part = next(site.states([name]))
        x = part.vectors.astype(np.float64)
        rows = directions()[:LATENTS]
        e = np.where(part.special[:, None], 0.0, x - np.maximum(x @ rows.T, 0.0) @ rows)
        tokens = site.contrasts[name][0]
        up, down = (by_hand(site, tokens, dict(enumerate(x + sign * 1e-4 * e))) for sign in (1, -1))
        values.append(-(up - down) / 2e-4)
        assert np.abs(e @ outside.T).max() > 1.0
    assert carried.forms["gradient"].error.value == pytest.approx(np.mean(values), abs=1e-4)


def test_exact_effects_equal_a_loop() -> None:
    site = ToySite()
    found = told(site)
    row = directions()[1]
    values = []
    for name in site.named()[0]:
        part = next(site.states([name]))
        x = part.vectors.astype(np.float64)
        f = np.where(part.special, 0.0, np.maximum(x @ row, 0.0))
        tokens = site.contrasts[name][0]
        values.append(by_hand(site, tokens, dict(enumerate(x - f[:, None] * row))) - by_hand(site, tokens))
    assert found.exact[1].value == pytest.approx(np.mean(values), abs=1e-5)


def test_correlations_equal_scipy() -> None:
    found = told(ToySite())
    checked = list(found.exact)
    exact = [found.exact[latent].value for latent in checked]
    for form in found.forms.values():
        assert form.spearman == pytest.approx(spearmanr(form.ie[checked], exact).statistic)
        assert form.pearson == pytest.approx(pearsonr(form.ie[checked], exact).statistic)
        assert form.slope == pytest.approx(linregress(form.ie[checked], exact).slope)


def test_ties_have_mid_ranks() -> None:
    one, other = np.array([0.0, 0.0, 0.0, 1.0, 2.0, 2.0]), np.array([3.0, 1.0, 1.0, 1.0, 9.0, 4.0])
    assert correlation(rankdata(one), rankdata(other)) == pytest.approx(spearmanr(one, other).statistic)


def test_what_does_not_vary_has_no_correlation() -> None:
    assert correlation(np.zeros(5), np.arange(5.0)) is None
    assert correlation(np.arange(2.0), np.arange(2.0)) is None


def test_random_latents_are_live_and_not_the_top() -> None:
    live = np.ones(LATENTS, dtype=bool)
    live[22] = False
    found = told(ToySite(), live=live)
    assert len(found.top) == 20
    assert not set(found.top) & set(found.random)
    assert set(found.random) == set(np.flatnonzero(live).tolist()) - set(found.top)
    assert {0, 1} <= set(found.top[:4])


def test_forms_that_rank_badly_are_not_printed() -> None:
    found = told(ToySite())
    assert set(found.shown(0.8)) == {"exact", "gradient", "ig"}
    assert found.shown(1.1) == {"exact": {latent: effect.value for latent, effect in found.exact.items()}}
    assert found.validated(1.1) == ()


def test_rows_with_the_wrong_sign_do_not_count() -> None:
    site = ToySite()
    ids, groups = site.named()
    wrong, theirs = site.named("plain")
    mixed = attribute(
        site, (*wrong[:8], *ids), (*theirs[:8], *groups), dictionary(), np.ones(LATENTS, dtype=bool), SETTINGS, draw,
        editable=editable,
    )  # fmt: skip
    alone = told(site)
    assert isinstance(mixed, Attribution)
    assert mixed.left_out == tuple(wrong[:8])
    for name, form in mixed.forms.items():
        assert form.ie == pytest.approx(alone.forms[name].ie, abs=1e-6)
        assert form.error.value == pytest.approx(alone.forms[name].error.value, abs=1e-6)


def test_a_contrast_that_could_not_be_read_shifts_no_other() -> None:
    site = ToySite(batch=7)
    whole = told(site, live=np.zeros(LATENTS, dtype=bool))
    ids, groups = site.named()
    site.lost = {ids[3], ids[12]}
    found = told(site, live=np.zeros(LATENTS, dtype=bool))
    assert found.left_out == (ids[3], ids[12])
    left = [number for number in range(40) if number not in (3, 12)]
    site.lost = set()
    alone = attribute(
        site, [ids[number] for number in left], [groups[number] for number in left], dictionary(),
        np.zeros(LATENTS, dtype=bool), SETTINGS, draw, editable=editable,
    )  # fmt: skip
    assert isinstance(alone, Attribution)
    for name, form in found.forms.items():
        assert form.ie == pytest.approx(alone.forms[name].ie, abs=1e-6)
        assert form.error.value == pytest.approx(alone.forms[name].error.value, abs=1e-6)
        assert form.ie != pytest.approx(whole.forms[name].ie, abs=1e-6)


def test_cost_is_known_before() -> None:
    site = ToySite()
    found = told(site)
    tokens = site.tokens(site.named()[0])
    missing = 40 - len(found.exact)  # a dictionary of 24 has no 40 latents to check
    assert site.charged == attribute_tokens(tokens) - missing * tokens
