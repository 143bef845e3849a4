"""Dose and answer: more of the latents, and pushes along directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from checks.sae_features.probes.behaviour import EditSettings, EditsRefused
from checks.sae_features.probes.dose import FACTORS, PUSHES, Dose, dose, dose_tokens
from tests.checks.sae_features.probes.toy_site import ToySite, by_hand, dictionary, directions, draw, editable

PLANTED = [0, 1]
SETTINGS = EditSettings(bootstrap=100)
SCALE = 3.0


def asked(site: ToySite, kind: str = "c", **over: Any) -> Dose | EditsRefused:
    ids, groups = site.named(kind)
    fields: dict[str, Any] = {"masses": site.masses(dictionary()), "diffmean": site.carried}
    return dose(
        site, ids, groups, dictionary(), PLANTED, scale=SCALE, settings=SETTINGS, rng=draw, editable=editable,
        **{**fields, **over},
    )  # fmt: skip


def told(site: ToySite, **over: Any) -> Dose:
    found = asked(site, **over)
    assert isinstance(found, Dose)
    return found


def mean_by_hand(site: ToySite, edit: Any) -> float:
    margins = []
    for name in site.named()[0]:
        part = next(site.states([name]))
        states = {
            position: edit(x)
            for position, x in enumerate(part.vectors.astype(np.float64))
            if not part.special[position]
        }
        margins.append(by_hand(site, site.contrasts[name][0], states))
    return float(np.mean(margins))


def test_behaviour_that_is_not_there_has_no_dose() -> None:
    assert isinstance(asked(ToySite(), kind="plain"), EditsRefused)


def test_scaling_equals_a_loop_and_one_is_unedited() -> None:
    site = ToySite()
    found = told(site)
    rows = directions()[PLANTED]
    assert tuple(found.scaled) == FACTORS
    for factor in FACTORS:
        wanted = mean_by_hand(site, lambda x, by=factor: x + (by - 1) * np.maximum(rows @ x, 0) @ rows)
        assert found.scaled[factor].value == pytest.approx(wanted, abs=1e-5)
    margins = [found.scaled[factor].value or 0.0 for factor in (0.0, 0.5, 1.0, 2.0)]
    assert margins == sorted(margins)
    assert margins[0] < 0 < margins[2]


def test_pushes_equal_a_loop() -> None:
    site = ToySite()
    found = told(site)
    masses = site.masses(dictionary())[PLANTED]
    written = masses @ directions()[PLANTED]
    written /= np.linalg.norm(written)
    mean_direction = site.carried / np.linalg.norm(site.carried)
    for length in PUSHES:
        for name, direction in (("with", written), ("against", -written), ("diffmean", mean_direction)):
            wanted = mean_by_hand(site, lambda x, by=length * SCALE * direction: x + by)
            assert found.pushed[name][length].value == pytest.approx(wanted, abs=1e-5)


def test_a_direction_that_acts_leaves_the_band_and_one_that_does_not_stays() -> None:
    acts, stays = told(ToySite("latents")), told(ToySite("error"))
    low, high = acts.band[1.0]
    assert (acts.pushed["against"][1.0].value or 0) < low < high
    low, high = stays.band[1.0]
    assert low < (stays.pushed["against"][1.0].value or 0) < high
    assert {len(margins) for margins in acts.random.values()} == {16}


def test_random_pushes_are_one_set_of_directions() -> None:
    # The shortest push moves as the next does: the band is of directions, not of fresh draws.
    found = told(ToySite(linear=True))
    unedited = found.scaled[1.0].value or 0.0
    short, long = found.random[0.25] - unedited, found.random[0.5] - unedited
    assert long == pytest.approx(2 * short, abs=1e-5)
    assert np.ptp(short) > 0.01


@pytest.mark.parametrize("with_diffmean", [True, False])
def test_cost_is_known_before(with_diffmean: bool) -> None:
    site = ToySite()
    found = told(site, diffmean=site.carried if with_diffmean else None)
    assert ("diffmean" in found.pushed) == with_diffmean
    assert site.charged == dose_tokens(site.tokens(site.named()[0]), with_diffmean)
