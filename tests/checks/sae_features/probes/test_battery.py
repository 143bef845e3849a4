"""The residual battery: where a behaviour passes, on a model in which that is planted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from checks.sae_features.probes.battery import EDITS, Battery, battery, battery_tokens
from checks.sae_features.probes.behaviour import EditSettings, EditsRefused
from tests.checks.sae_features.probes.toy_site import ToySite, by_hand, dictionary, directions, draw, editable

PLANTED = [0, 1]
SETTINGS = EditSettings(bootstrap=200)


def asked(site: ToySite, kind: str = "c", **over: Any) -> Battery | EditsRefused:
    ids, groups = site.named(kind)
    fields: dict[str, Any] = {"dictionary": dictionary(), "latents": PLANTED, "average": site.average()}
    site.charged = 0
    return battery(site, ids, groups, settings=SETTINGS, rng=draw, editable=editable, **{**fields, **over})


def told(site: ToySite, **over: Any) -> Battery:
    found = asked(site, **over)
    assert isinstance(found, Battery)
    return found


def test_behaviour_that_is_not_there_passes_nowhere() -> None:
    found = asked(ToySite(), kind="plain")
    assert isinstance(found, EditsRefused)
    assert found.reason == "behaviour_absent"


@pytest.mark.parametrize("carrier", ["latents", "error"])
def test_each_margin_equals_a_loop_over_rows_and_tokens(carrier: Any) -> None:
    site = ToySite(carrier)
    found = told(site)
    assert tuple(found.margins) == EDITS
    rows, average, ids = directions()[: dictionary().latents], site.average(), site.named()[0]
    sums = dict.fromkeys(EDITS, 0.0)
    for name in ids:
        part = next(site.states([name]))
        edits: dict[str, dict[int, np.ndarray]] = {edit: {} for edit in EDITS}
        for position, x in enumerate(part.vectors.astype(np.float64)):
            if part.special[position]:
                continue
            f = np.maximum(rows @ x, 0.0)
            made, own = f @ rows, f[PLANTED] @ rows[PLANTED]
            error = x - made
            told_as = (x, made, average, average + error, x - own, made - own, own + error, own)
            for edit, state in zip(EDITS, told_as, strict=True):
                edits[edit][position] = state
        for edit, states in edits.items():
            sums[edit] += by_hand(site, site.contrasts[name][0], states) / len(ids)
    assert {edit: one.value for edit, one in found.margins.items()} == pytest.approx(sums, abs=1e-5)
    share = (sums["mean_error"] - sums["mean"]) / (sums["unedited"] - sums["mean"])
    assert found.error_share.value == pytest.approx(share, abs=1e-5)


def test_error_that_carries_is_seen() -> None:
    found = told(ToySite("error"))
    assert found.error_share.low is not None
    assert found.error_share.low > 0.5
    assert found.margins["xhat"].value is not None
    assert found.margins["xhat"].value < 0.0
    assert found.margins["ablated"].value == pytest.approx(found.margins["unedited"].value, abs=1e-3)


def test_latents_that_carry_leave_the_error_nothing() -> None:
    found = told(ToySite("latents"))
    assert found.error_share.high is not None
    assert found.error_share.high < 0.05
    assert found.margins["ablated"].value is not None
    assert found.margins["ablated"].value < 0.0
    assert found.margins["only_no_error"].value == pytest.approx(found.margins["unedited"].value, rel=0.1)


def test_share_of_nothing_is_not_defined() -> None:
    # The output prefers the target whatever stands at the site.
    found = told(ToySite("nothing", bias=3.0))
    assert found.error_share.value is None
    assert found.error_share.low is None
    assert found.error_share.reason == "site_harmless_when_averaged"
    assert found.margins["unedited"].value == pytest.approx(found.margins["mean"].value, abs=0.3)


def test_average_that_helps_leaves_no_share() -> None:
    site = ToySite("latents")
    found = told(site, average=site.average() + 3 * site.out.numpy())
    assert found.margins["mean"].value is not None
    assert found.error_share.reason == "site_harmless_when_averaged"


def test_interval_equals_drawing_rows_of_groups_again() -> None:
    site = ToySite("error")
    found = told(site)
    ids, groups = site.named()
    from checks.sae_features.probes.coded import Coded

    coded, average = Coded(dictionary(), editable), site.average()
    x, mean, both = site.margins(
        ids,
        [
            coded.change(lambda code: np.broadcast_to(average, code.x.shape)),
            coded.change(lambda code: average + code.error),
        ],
    )
    names = sorted(set(groups))
    times = draw("bootstrap").multinomial(len(names), np.full(len(names), 1 / len(names)), size=SETTINGS.bootstrap)
    shares = []
    for counts in times:
        weight = np.array([counts[names.index(group)] for group in groups], dtype=float)
        shares.append((weight @ (both - mean)) / (weight @ (x - mean)))
    assert (found.error_share.low, found.error_share.high) == pytest.approx(
        np.percentile(shares, [2.5, 97.5]), abs=1e-6
    )


def test_cost_is_known_before() -> None:
    site = ToySite()
    asked(site)
    assert site.charged == battery_tokens(site.tokens(site.named()[0]))
